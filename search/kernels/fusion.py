"""Rewrites of formulas that suit every machine: one exponential or division where two would do.

They call functions that the language does not have: `inside_of` (the slope of a clip) and
`kept_inside` (a factor times it), `mish_gate` and `mish_slope` (tanh∘softplus and its derivative
from one exponential and one division), `logistic_pdf`, sigmoid(a) sigmoid(-a), and `angle`, that of
(x, y). `c_fusion.py` and `triton_fusion.py` add what suits theirs.
"""

from __future__ import annotations

from collections.abc import Callable

from search.language.expression import Call, Input, Node, Number, walk
from search.language.simplify import build

_ONE = Number(1.0)


def fuse_gates(node: Node) -> Node:
    """One node of a formula whose arguments are rewritten already."""
    match node:
        case Call("mul", (Call("step", (low,)), Call("step", (high,)))) if clip := _clip(low, high):
            return clip
        # Outside, 0 without a product; NaN of the clip's argument is NaN of the factor too.
        case Call("mul", (factor, Call("inside_of", ends))) if _inputs(factor) == _inputs(ends[0]):
            return Call("kept_inside", (factor, *ends))
        case Call("mul", (Call("inside_of", ends), factor)) if _inputs(factor) == _inputs(ends[0]):
            return Call("kept_inside", (factor, *ends))
        case Call("tanh", (Call("softplus", (inner,)),)):
            return Call("mish_gate", (inner,))
        case Call("mul", (left, Call("sigmoid", (inner,)))) if _mish_product(left, inner):
            return Call("mish_slope", (inner,))
        case Call("mul", (Call("mul", (g, left)), Call("sigmoid", (inner,)))) if _mish_product(
            left, inner
        ):
            return build("mul", g, Call("mish_slope", (inner,)))
        case Call("mul", (Call("sigmoid", (left,)), Call("sigmoid", (right,)))) if (
            negated(left) == right
        ):
            return Call("logistic_pdf", (left,))
        case _:
            return node


_FAR = Number(1e18)


def join_angles(node: Node, root: Callable[[Node], Node]) -> Node:
    """arctan(a) + arcsin(b) as one angle, that of (1 + i a) (r + i b), r = sqrt(1 - b**2).

    One polynomial and one division where the two functions take two, and the root is that of
    arcsin's slope. a is held to 1e18, where arctan is pi/2 to the last bit, so that inf * 0 does
    not appear; b outside [-1, 1] has no root and gives NaN as before.
    """
    match node:
        case Call("add", (Call("arctan", (a,)), Call("arcsin", (b,)))) | Call(
            "add", (Call("arcsin", (b,)), Call("arctan", (a,)))
        ):
            a, r = Call("clip", (a, Number(-_FAR.value), _FAR)), root(b)
            x = Call("sub", (r, Call("mul", (a, b))))
            return Call("angle", (Call("add", (Call("mul", (a, r)), b)), x))
        case _:
            return node


def _inputs(node: Node) -> set[Node]:
    return {n for n in walk(node) if isinstance(n, Input)}


def _clip(low: Node, high: Node) -> Node | None:
    """The slope of a clip, step(a - b) * step(c - a)."""
    match low, high:
        case Call("sub", (a, b)), Call("sub", (c, again)) if a == again:
            return Call("inside_of", (a, b, c))
        case _:
            return None


def _mish_product(node: Node, inner: Node) -> bool:
    """Whether a node is (1 - t)(1 + t) of t = tanh(softplus(inner))."""
    gate = Call("mish_gate", (inner,))
    return node == Call("mul", (Call("sub", (_ONE, gate)), Call("add", (_ONE, gate))))


def of_arcsin(factors: tuple[Node, ...]) -> Node | None:
    """a, of the factors 1 - a and 1 + a of arcsin's slope."""
    match factors:
        case Call("sub", (Number(1.0), a)), Call("add", (Number(1.0), b)) if a == b:
            return a
        case _:
            return None


def negated(node: Node) -> Node:
    """-a of a, a of -a."""
    match node:
        case Call("neg", (inner,)):
            return inner
        case _:
            return Call("neg", (node,))
