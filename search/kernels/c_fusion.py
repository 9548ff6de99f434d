"""Rewrites of formulas that suit C, beside those of `fusion.py`.

They may call functions of `c_math.h` that the language does not have. A rewrite stays only while
every 16-bit input comes out as before (tests/test_c_code.py).
"""

from __future__ import annotations

from search.kernels.fusion import fuse_gates, join_angles, of_arcsin
from search.language.expression import Call, Node, Number, map_nodes, walk

FUSED = {
    "mish_gate": "mish_gate({0})",
    "mish_slope": "mish_slope({0})",
    "logistic_pdf": "logistic_pdf({0})",
    "inside_of": "inside_of({0}, {1}, {2})",
    "kept_inside": "kept_inside({0}, {1}, {2}, {3})",
    "arcsin_slope": "arcsin_slope({0})",
    "root_of_unit": "root_of_unit({0})",
    "held_root": "held_root({0})",
    "angle": "angle({0}, {1})",
    "gompertz_power": "gompertz_power({0})",
    "exp_low": "exp_low({0})",
}
"""The texts of the functions that only C knows."""


def fuse(outputs: tuple[Node, ...]) -> tuple[Node, ...]:
    """The outputs of one program, rewritten together: what they share stays shared."""
    outputs = tuple(map_nodes(output, _local) for output in outputs)
    roots = {n for output in outputs for n in walk(output) if _is_root(n)}

    def share(node: Node) -> Node:
        match node:
            case Call("arcsin_slope", arguments) if (root := _root(*arguments)) in roots:
                return Call("div", (Number(1.0), Call("held_root", (root,))))
            case Call("mul", (a, Call("div", (Number(1.0), Call("held_root") as root)))):
                return Call("div", (a, root))
            case _:
                return node

    return tuple(map_nodes(output, share) for output in outputs)


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
