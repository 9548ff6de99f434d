"""What a function is like: minimum, slope, moments, monotonicity, kinks, computed numerically.

All facts hold at the initial parameters; `u` is 1 for a gated pair, and a statistic is that of a
N(0, 1) row. Accuracy is that of the quadrature and root finding, about 1e-9, unless noted.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import integrate, optimize
from scipy.special import ndtri

from search.language.derivative import derivative
from search.language.evaluate import evaluate
from search.language.expression import (
    Call,
    Expression,
    Node,
    Number,
    Parameter,
    Statistic,
    X,
    substitute,
    walk,
)
from search.language.parser import parse_node
from search.language.primitives import PRIMITIVES
from search.language.simplify import fold_fixed

Function = Callable[[ArrayLike], NDArray[np.float64]]
_SPAN = 10.0
_GRID = np.linspace(-_SPAN, _SPAN, 4001)


@dataclass(frozen=True, slots=True)
class Facts:
    """Numbers about one activation at its initial parameters."""

    minimum: tuple[float, float] | None
    """(x, f(x)) of the lowest point on [-10, 10] if it lies inside, else None."""
    value_at_zero: float
    slope_at_zero: float
    mean: float
    """E f(z), z ~ N(0, 1)."""
    variance: float
    monotonic: str
    """`increasing`, `decreasing` or `no` on [-10, 10]."""
    kinks: tuple[float, ...]
    """Points of [-10, 10] where f or f' jumps."""


def facts(expression: Expression) -> Facts:
    """The facts of an expression."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Of a function that is not finite everywhere, as arcsin(x); its facts say so.
        warnings.simplefilter("ignore")
        return _facts(expression)


def _facts(expression: Expression) -> Facts:
    f, slope = functions(expression)
    found = kinks(expression)
    mean, second = (_gaussian(lambda z, p=p: f(z) ** p, found) for p in (1, 2))
    return Facts(
        minimum=_minimum(f),
        value_at_zero=float(f(0.0)),
        slope_at_zero=float(slope(0.0)),
        mean=mean,
        variance=second - mean**2,
        monotonic=_monotonic(f),
        kinks=found,
    )


def functions(expression: Expression) -> tuple[Function, Function]:
    """f and df/dx as functions of a float64 array, statistics frozen at those of N(0, 1)."""
    frozen = _freeze(expression)
    slope = derivative(frozen, X)
    return _numeric(frozen.body, expression), _numeric(slope, expression)


def _numeric(node: Node, expression: Expression) -> Function:
    def value(x: ArrayLike) -> NDArray[np.float64]:
        x = np.asarray(x, dtype=np.float64)
        inputs = {"x": x, "u": np.ones_like(x)}
        return np.broadcast_to(evaluate(node, inputs, expression.initial), x.shape)

    return value


def _freeze(expression: Expression) -> Expression:
    """Every statistic replaced by its value on a N(0, 1) row (10,001 normal quantiles)."""
    folded = fold_fixed(expression)
    row = ndtri((np.arange(10_001) + 0.5) / 10_001)
    inputs = {"x": row, "u": np.ones_like(row)}

    def frozen(node: Node) -> Node:
        match node:
            case Statistic():  # as a whole: a statistic within it sees the same row
                value = evaluate(node, inputs, expression.initial)
                return Number(float(value.ravel()[0]))
            case Call(function, arguments):
                return Call(function, tuple(frozen(a) for a in arguments))
            case _:
                return node

    return Expression(frozen(folded.body), folded.parameters)


def _minimum(f: Function) -> tuple[float, float] | None:
    values = f(_GRID)
    if not np.isfinite(values).any():
        return None
    i = int(np.nanargmin(values))
    if i in (0, len(_GRID) - 1):
        return None
    bracket = (_GRID[i - 1], _GRID[i + 1])
    found = optimize.minimize_scalar(
        lambda x: float(f(x)), bounds=bracket, method="bounded", options={"xatol": 1e-11}
    )
    x, y = (found.x, found.fun) if found.fun < values[i] else (_GRID[i], values[i])
    return float(x), float(y)


def _gaussian(f: Function, breaks: tuple[float, ...]) -> float:
    """E f(z) for z ~ N(0, 1): piecewise Gauss-Kronrod between the kinks on [-12, 12]."""

    def weighted(z: float) -> float:
        value = float(f(z))
        return value * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) if value else 0.0

    edges = sorted({-12.0, 0.0, 12.0, *breaks})
    pieces = pairwise(edges)
    return sum(integrate.quad(weighted, a, b, limit=200, epsabs=1e-13)[0] for a, b in pieces)


def _monotonic(f: Function) -> str:
    steps = np.diff(f(_GRID))
    noise = 1e-13 * max(1.0, float(np.nanmax(np.abs(f(_GRID)))))
    if (steps >= -noise).all():
        return "increasing"
    return "decreasing" if (steps <= noise).all() else "no"


def kinks(expression: Expression) -> tuple[float, ...]:
    """Where the table says that a derivative jumps, and it does: zeros of the rows' formulas."""
    frozen = _freeze(expression)
    _, slope = functions(expression)
    candidates: set[float] = set()
    for node in walk(frozen.body):
        if isinstance(node, Call):
            for formula in PRIMITIVES[node.function].kinks:
                candidates.update(_zeros(_numeric(_placed(formula, node), expression)))
    return tuple(sorted(x for x in candidates if _jumps(slope, x)))


def _placed(formula: str, node: Call) -> Node:
    names = ("a", "b", "c")
    places: dict[Node, Node] = {
        Parameter(n): a for n, a in zip(names, node.arguments, strict=False)
    }
    return substitute(parse_node(formula, names), places)


def _zeros(f: Function) -> list[float]:
    values = f(_GRID)
    exact = [float(x) for x in _GRID[values == 0]]
    signs = np.sign(values)
    crossings = np.nonzero(signs[:-1] * signs[1:] < 0)[0]
    brackets = [(_GRID[i], _GRID[i + 1]) for i in crossings]
    roots = [optimize.root_scalar(lambda x: float(f(x)), bracket=ends).root for ends in brackets]
    return [round(x, 12) + 0.0 for x in (*exact[:100], *roots)]


def _jumps(slope: Function, x: float) -> bool:
    """Whether the slopes beside x differ by more than a smooth function's would."""
    h = 1e-7
    left, right = float(slope(x - h)), float(slope(x + h))
    return not abs(right - left) <= 1e-5 * max(1.0, abs(left), abs(right))
