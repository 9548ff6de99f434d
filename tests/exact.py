"""Formulas in mpmath: an evaluator that shares nothing with the table but the names of its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mpmath import mp

from search.language.expression import Call, Constant, Input, Node, Number, Parameter, walk

DIGITS = 40
Exact = Any  # an mpf, or a bool out of a comparison

FUNCTIONS: dict[str, Callable[..., Exact]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "neg": lambda a: -a,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "select": lambda condition, a, b: a if condition else b,
    "max": max,
    "min": min,
    "clip": lambda a, low, high: min(max(a, low), high),
    "step": lambda a: mp.mpf(a > 0),
    "relu": lambda a: max(a, mp.mpf(0)),
    "abs": abs,
    "sign": mp.sign,
    "exp": mp.exp,
    "exp2": lambda a: mp.mpf(2) ** a,
    "expm1": mp.expm1,
    "log": mp.log,
    "log1p": lambda a: mp.log(1 + a),
    "sqrt": mp.sqrt,
    "rsqrt": lambda a: 1 / mp.sqrt(a),
    "sin": mp.sin,
    "cos": mp.cos,
    "sinc": lambda a: mp.sin(a) / a if a else mp.mpf(1),
    "sinh": mp.sinh,
    "cosh": mp.cosh,
    "tanh": mp.tanh,
    "asinh": mp.asinh,
    "arctan": mp.atan,
    "arcsin": mp.asin,
    "erf": mp.erf,
    "erfc": mp.erfc,
    "softplus": lambda a: mp.log1p(mp.exp(a)),
    "sigmoid": lambda a: 1 / (1 + mp.exp(-a)),
    "gompertz": lambda a: mp.exp(-mp.exp(-a)),
    "gumbel_pdf": lambda a: mp.exp(-a - mp.exp(-a)),
    "normal_cdf": lambda a: mp.erfc(-a / mp.sqrt(2)) / 2,
    "normal_pdf": lambda a: mp.exp(-a * a / 2) / mp.sqrt(2 * mp.pi),
    "arctan_gate": lambda a: mp.acot(-a) / mp.pi if a < 0 else mp.mpf(1) / 2 + mp.atan(a) / mp.pi,
    "arcsin_gate": lambda a: mp.mpf(1) / 2 + mp.asin(min(max(a, -1), 1)) / mp.pi,
}


def exact(node: Node, names: Mapping[str, Any]) -> Exact:
    """The value at one point of a formula without statistics, at mpmath's working precision."""
    values: dict[Node, Exact] = {}
    for current in walk(node):
        match current:
            case Number(value):
                values[current] = mp.mpf(value)
            case Constant(name):
                values[current] = mp.pi if name == "pi" else mp.e
            case Input(name) | Parameter(name):
                values[current] = mp.mpf(names[name])
            case Call(function, arguments):
                values[current] = FUNCTIONS[function](*(values[a] for a in arguments))
    return values[node]


def exact_slope(node: Node, leaf: str, names: Mapping[str, Any]) -> Exact:
    """The derivative by an input or parameter, by differences of `exact`."""
    return mp.diff(lambda t: exact(node, {**names, leaf: t}), mp.mpf(names[leaf]))
