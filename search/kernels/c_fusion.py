"""Rewrites of formulas that suit C, beside those of `fusion.py`.

They may call functions of `c_math.h` that the language does not have. A rewrite stays only while
every 16-bit input comes out as before (tests/test_c_code.py).
"""

from __future__ import annotations

import math
from collections import Counter

from search.kernels.c_upstream import share_upstream
from search.kernels.fusion import fuse_gates, join_angles, of_arcsin
from search.kernels.program import Origin
from search.language.expression import Call, Node, Number, Parameter, map_nodes, walk
from search.language.simplify import build

FUSED = {
    "mish_gate": "mish_gate({0})",
    "mish_slope": "mish_slope({0})",
    "falling": "falling({0})",
    "exp2_wide": "exp2_wide({0})",
    "not_infinite": "not_infinite({0})",
    "inside_of": "inside_of({0}, {1}, {2})",
    "kept_inside": "kept_inside({0}, {1}, {2}, {3})",
    "arcsin_slope": "arcsin_slope({0})",
    "root_of_unit": "root_of_unit({0})",
    "held_root": "held_root({0})",
    "over_root": "over_root({0}, {1})",
    "angle": "angle({0}, {1})",
    "gompertz_power": "gompertz_power({0})",
    "exp_low": "exp_low({0})",
}
"""The texts of the functions that only C knows."""


def fuse(outputs: tuple[Node, ...], _origin: Origin) -> tuple[Node, ...]:
    """The outputs of one program, rewritten together: what they share stays shared."""
    outputs = tuple(map_nodes(output, _local) for output in outputs)
    roots = {n for output in outputs for n in walk(output) if _is_root(n)}

    def share(node: Node) -> Node:
        match node:
            case Call("arcsin_slope", arguments) if (root := _root(*arguments)) in roots:
                return Call("div", (Number(1.0), Call("held_root", (root,))))
            case Call("mul", (a, Call("div", (Number(1.0), Call("held_root") as root)))):
                return Call("div", (a, root))
            case Call("kept_inside", (Call("div", (a, Call("held_root", (root,)))), *ends)) if (
                root == _root(Call("clip", tuple(ends))) and ends[1:] == [Number(-1.0), _ONE]
            ):
                return Call("over_root", (a, root))
            case _:
                return _logistic(node)

    return share_upstream(_quotients(tuple(map_nodes(output, share) for output in outputs)))


_ONE = Number(1.0)


def _logistic(node: Node) -> Node:
    """sigmoid and its slope over the exponential and the inverse that they share."""
    match node:
        case Call("sigmoid", (a,)):
            return Call("div", (_ONE, Call("add", (_ONE, _falling(a)))))
        case Call("logistic_pdf", (a,)):
            inverse = _logistic(Call("sigmoid", (a,)))
            share = Call("mul", (Call("not_infinite", (_falling(a),)), inverse))
            return Call("mul", (share, inverse))
        case _:
            return node


def _falling(a: Node) -> Node:
    """exp(-a); a power of 2 where a is a product with something that is fixed in a loop."""
    match a:
        case Call("neg", (inner,)):
            return Call("falling", (a,)) if _factor(inner) is None else _power(inner, 1.0)
        case _:
            return Call("falling", (a,)) if _factor(a) is None else _power(a, -1.0)


def _power(a: Node, sign: float) -> Node:
    """exp(sign * a) of a product with a factor that takes log2(e) in."""
    factor, rest = _factor(a) or (_ONE, a)
    scaled = build("mul", Number(sign * math.log2(math.e)), factor)
    return Call("exp2_wide", (Call("mul", (scaled, rest)),))


def _factor(a: Node) -> tuple[Node, Node] | None:
    """A factor of literals and parameters, and the rest."""
    match a:
        case Call("mul", (left, right)) if _is_fixed(left):
            return left, right
        case Call("mul", (left, right)) if _is_fixed(right):
            return right, left
        case _:
            return None


def _is_fixed(node: Node) -> bool:
    return all(isinstance(n, Number | Parameter | Call) for n in walk(node))


def _quotients(outputs: tuple[Node, ...]) -> tuple[Node, ...]:
    """a * (1 / b) as a / b where nothing else takes the inverse."""
    nodes = {n for output in outputs for n in walk(output)}
    uses = Counter(a for n in nodes if isinstance(n, Call) for a in n.arguments)

    def divide(node: Node) -> Node:
        match node:
            case Call("mul", (a, Call("div", (Number(1.0), b)) as inverse)) | Call(
                "mul", (Call("div", (Number(1.0), b)) as inverse, a)
            ) if uses[inverse] == 1:
                return Call("div", (a, b))
            case _:
                return node

    return tuple(map_nodes(output, divide) for output in outputs)


def _root(node: Node) -> Node:
    return Call("root_of_unit", (node,))


def _is_root(node: Node) -> bool:
    return isinstance(node, Call) and node.function == "root_of_unit"


def _local(node: Node) -> Node:
    match node:
        case Call("rsqrt", (Call("max", (Call("mul", factors), Number(1e-12))),)) if a := of_arcsin(
            factors
        ):
            return Call("arcsin_slope", (a,))
        case Call("gompertz", arguments):
            return _outer(Call("gompertz_power", arguments))
        case Call("gumbel_pdf", arguments):
            power = Call("gompertz_power", arguments)
            return Call("mul", (power, _outer(power)))
        case _:
            return join_angles(fuse_gates(node), _root)


def _outer(power: Node) -> Node:
    """exp(-exp(-a)) of its inner exponential: apart, so that they come into two loops."""
    return Call("exp_low", (Call("neg", (power,)),))
