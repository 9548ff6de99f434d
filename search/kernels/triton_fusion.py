"""Rewrites of formulas that suit Triton, beside those of `fusion.py`.

They may call functions of `triton_functions.py` and `triton_gates.py` that the language does not
have: `reciprocal`, `within`, `reduced_angle`, `sin_at`, `cos_at`, `angle`, `gompertz_exponent`,
`mish_power`, `normal_tail`. A rewrite stays only while every 16-bit input comes out right
(tests/interpreted).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from search.kernels.fusion import fuse_gates, join_angles, negated, of_arcsin
from search.kernels.limits import held_at, hold_limits_near
from search.kernels.products import is_own, parameters_apart
from search.kernels.program import Origin
from search.language.expression import (
    Call,
    Input,
    Node,
    Number,
    map_nodes,
    walk,
)

_LOG2_E = math.log2(math.e)


def fuse(outputs: tuple[Node, ...], origin: Origin) -> tuple[Node, ...]:
    """The outputs of one program, rewritten together: what they share stays shared."""
    forms = [tuple(map_nodes(output, parameters_apart) for output in outputs), outputs]
    held = [hold_limits_near(form, origin, _near(form)) for form in forms]
    return min(map(_fuse, held), key=_operations)


def _operations(outputs: tuple[Node, ...]) -> int:
    """Of every element: what parameters alone make is made once."""
    nodes = {n for output in outputs for n in walk(output) if isinstance(n, Call)}
    return sum(not is_own(node) for node in nodes)


def _fuse(outputs: tuple[Node, ...]) -> tuple[Node, ...]:
    outputs = tuple(map_nodes(output, _local) for output in outputs)
    calls = {n for output in outputs for n in walk(output) if isinstance(n, Call)}

    def share(node: Node) -> Node:
        match node:
            case Call("sigmoid", (a,)) if Call("sigmoid", (negated(a),)) in calls:
                return _PARTS["sigmoid"](a)
            case Call(name, (a,)) if Call(_KIN.get(name, ""), (a,)) in calls:
                return _PARTS[name](a)
            case _:
                return node

    return tuple(map_nodes(map_nodes(output, share), _of_held) for output in outputs)


# --- x held to numbers with limits -------------------------------------------------------------

_NEAR = 80.0
"""Where exponentials have come to their limits, and e**80 is still a float32."""
_NEAR_OF_MISH = 40.0
"""The same of tanh∘softplus, which squares e**x."""


def _near(outputs: tuple[Node, ...]) -> tuple[float]:
    """Where x may be held at the least."""
    nodes = (n for output in outputs for n in walk(output))
    return (_NEAR_OF_MISH if any(map(_is_mish, nodes)) else _NEAR,)


def _is_mish(node: Node) -> bool:
    match node:
        case Call("tanh", (Call("softplus"),)):
            return True
        case _:
            return False


def _of_held(node: Node) -> Node:
    """Functions of the held x: they need not clamp it once more."""
    match node:
        case Call("gompertz", (a,)) if _ends(a)[0] >= -_NEAR:
            return _call("exp2", _call("neg", _call("gompertz_exponent_within", a)))
        case Call("gompertz_exponent", (a,)) if _ends(a)[0] >= -_NEAR:
            return Call("gompertz_exponent_within", (a,))
        case Call("mish_power", (a,)) if _ends(a)[1] <= _NEAR_OF_MISH:
            return Call("exponential", (a,))
        case Call("clip", (a, Number(low), Number(high))) if low == -high and high >= _NEAR_OF_MISH:
            return Call("within", (a, Number(high)))
        case _:
            return node


def _ends(node: Node) -> tuple[float, float]:
    """Between which numbers a value of the held x lies; infinite where that is not known."""
    match node:
        case Call("within", (Input("x"), Number(size))):
            return -size, size
        case _:
            return held_at(node) or (-math.inf, math.inf)


# --- one node at a time ------------------------------------------------------------------------


def _local(node: Node) -> Node:
    match node:
        case Call("exp", (argument,)):
            return Call("exp2", (scaled(argument, _LOG2_E),))
        case Call("sin" | "cos" as wave, (argument,)):  # of one angle, reduced once
            return Call(f"{wave}_at", (Call("reduced_angle", (argument,)),))
        case Call("div", (Number(1.0), divisor)):
            return Call("reciprocal", (divisor,))
        # Its divisor overflows only where the quotient is far below every tolerance.
        case Call("div", (above, Call("add", (Number(1.0), Call("mul", (a, b)))) as below)) if (
            a == b
        ):
            return Call("mul", (above, Call("reciprocal", (below,))))
        case Call("div", (above, Number(value))) if 1e-30 < abs(value) < 1e30:
            return Call("mul", (above, Number(1 / value)))
        # Of a row or a parameter: one division for many elements.
        case Call("div", (above, below)) if not isinstance(below, Number) and _is_shared(below):
            return Call("mul", (above, Call("reciprocal", (below,))))
        case Call("max", (Call("mul", factors), Number() as least)) if a := of_arcsin(factors):
            # One fused multiply-add, rounded once.
            return Call("max", (_call("sub", 1.0, _call("mul", a, a)), least))
        case _:
            return join_angles(fuse_gates(node), _root)


def _is_shared(node: Node) -> bool:
    """Whether a value is the same for many elements."""
    match node:
        case Input():
            return False
        case Call(_, arguments):
            return all(map(_is_shared, arguments))
        case _:
            return True


def _root(a: Node) -> Node:
    """Of the difference that arcsin's slope takes."""
    return _call("sqrt", _call("sub", 1.0, _call("mul", a, a)))


# --- a function and its slope ------------------------------------------------------------------

# Written out where both are there: neither Triton nor LLVM sees that two functions, once inlined,
# take the same exponential, so GoLU's backward took 23 for 8 elements where 16 are enough.
_KIN = {"gompertz": "gumbel_pdf", "mish_gate": "mish_slope", "sigmoid": "logistic_pdf"}
_KIN |= {"normal_cdf": "normal_pdf"}
_KIN |= {slope: function for function, slope in _KIN.items()}


def _call(function: str, *arguments: Node | float) -> Call:
    nodes = (Number(float(a)) if isinstance(a, float | int) else a for a in arguments)
    return Call(function, tuple(nodes))


def _gompertz(a: Node) -> Node:
    return _call("exp2", _call("neg", _call("gompertz_exponent", a)))


def _gumbel_pdf(a: Node) -> Node:
    return _call("mul", _call("mul", _call("gompertz_exponent", a), math.log(2)), _gompertz(a))


def _mish_shares(a: Node) -> tuple[Node, Node, Node]:
    """h, 1 / d and n / d of n = e**a, h = n / 2 + 1, d = n h + 1."""
    n = _call("mish_power", a)
    h = _call("add", _call("mul", n, 0.5), 1.0)
    inverse = _call("reciprocal", _call("add", _call("mul", n, h), 1.0))
    return h, inverse, _call("mul", n, inverse)


def _mish_gate(a: Node) -> Node:
    h, _, share = _mish_shares(a)
    return _call("mul", share, h)


def _mish_slope(a: Node) -> Node:
    _, inverse, share = _mish_shares(a)
    return _call("mul", share, _call("add", share, inverse))


def _sigmoid_shares(a: Node) -> tuple[Node, Node]:
    """sigmoid(-|a|) and sigmoid(|a|)."""
    e = _call("exp2", _call("mul", _call("abs", a), -_LOG2_E))
    inverse = _call("reciprocal", _call("add", e, 1.0))
    return _call("mul", e, inverse), inverse


def _sigmoid(a: Node) -> Node:
    return _call("select", _call("lt", a, 0.0), *_sigmoid_shares(a))


def _logistic_pdf(a: Node) -> Node:
    return _call("mul", *_sigmoid_shares(a))


def _bell(a: Node) -> Node:
    return _call("exp2", _call("mul", _call("mul", a, a), -0.5 * _LOG2_E))


def _normal_cdf(a: Node) -> Node:
    tail = _call("mul", _call("normal_tail", _call("abs", a)), _bell(a))
    return _call("select", _call("lt", a, 0.0), tail, _call("sub", 1.0, tail))


def _normal_pdf(a: Node) -> Node:
    return _call("mul", _bell(a), 1 / math.sqrt(2 * math.pi))


_PARTS: dict[str, Callable[[Node], Node]] = {
    "gompertz": _gompertz,
    "gumbel_pdf": _gumbel_pdf,
    "mish_gate": _mish_gate,
    "mish_slope": _mish_slope,
    "sigmoid": _sigmoid,
    "logistic_pdf": _logistic_pdf,
    "normal_cdf": _normal_cdf,
    "normal_pdf": _normal_pdf,
}
"""Every function of _KIN over what it shares with its kin."""


def scaled(node: Node, factor: float) -> Node:
    """factor * node, taken into a literal of the product where it has one."""
    match node:
        case Number(value):
            return Number(value * factor)
        case Call("neg", (inner,)):
            return scaled(inner, -factor)
        case Call("mul", (left, right)) if _has_literal(left):
            return Call("mul", (scaled(left, factor), right))
        case Call("mul", (left, right)) if _has_literal(right):
            return Call("mul", (left, scaled(right, factor)))
        case Call("div", (left, right)) if _has_literal(left):
            return Call("div", (scaled(left, factor), right))
        case Call("div", (left, Number(value))):
            return Call("mul", (Number(factor / value), left))
        case _:
            return Call("mul", (Number(factor), node))


def _has_literal(node: Node) -> bool:
    match node:
        case Number():
            return True
        case Call("neg", (inner,)):
            return _has_literal(inner)
        case Call("mul", (left, right)):
            return _has_literal(left) or _has_literal(right)
        case Call("div", (left, right)):
            return _has_literal(left) or isinstance(right, Number)
        case _:
            return False
