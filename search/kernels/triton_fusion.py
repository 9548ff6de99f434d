"""Rewrites of formulas that suit Triton, beside those of `fusion.py`.

They may call functions of `triton_functions.py` that the language does not have: `reciprocal`,
`reduced_angle`, `sin_at`, `cos_at`, `mirrored_sigmoid`. A rewrite stays only while every 16-bit
input comes out right (tests/interpreted).
"""

from __future__ import annotations

import math

from search.kernels.fusion import fuse_gates, negated
from search.language.expression import Call, Node, Number, map_nodes, walk

_LOG2_E = math.log2(math.e)


def fuse(outputs: tuple[Node, ...]) -> tuple[Node, ...]:
    """The outputs of one program, rewritten together: what they share stays shared."""
    outputs = tuple(map_nodes(output, _local) for output in outputs)
    gates = {n for o in outputs for n in walk(o) if isinstance(n, Call) and n.function == "sigmoid"}
    both = {gate for gate in gates if Call("sigmoid", (negated(gate.arguments[0]),)) in gates}
    densities = {n for o in outputs for n in walk(o) if _is(n, "logistic_pdf")}
    both |= {gate for gate in gates if Call("logistic_pdf", gate.arguments) in densities}

    def mirror(node: Node) -> Node:
        return Call("mirrored_sigmoid", node.arguments) if node in both else node  # type: ignore[union-attr]

    return tuple(map_nodes(output, mirror) for output in outputs)


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
        case _:
            return fuse_gates(node)


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


def _is(node: Node, function: str) -> bool:
    return isinstance(node, Call) and node.function == function
