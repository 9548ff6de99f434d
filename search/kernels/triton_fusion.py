"""Rewrites of formulas that suit Triton: one exponential or reciprocal where two would do.

They may call functions of `triton_functions.py` that the language does not have: `reciprocal`,
`inside_of`, `reduced_angle`, `sin_at`, `cos_at`, `mish_gate`, `mish_slope`, `mirrored_sigmoid`,
`logistic_pdf`. A rewrite stays only while every 16-bit input comes out right (tests/interpreted).
"""

from __future__ import annotations

import math

from search.language.expression import Call, Node, Number, map_nodes, walk
from search.language.simplify import build

_LOG2_E = math.log2(math.e)
_ONE = Number(1.0)


def fuse(outputs: tuple[Node, ...]) -> tuple[Node, ...]:
    """The outputs of one program, rewritten together: what they share stays shared."""
    outputs = tuple(map_nodes(output, _local) for output in outputs)
    gates = {n for o in outputs for n in walk(o) if isinstance(n, Call) and n.function == "sigmoid"}
    both = {gate for gate in gates if Call("sigmoid", (_negated(gate.arguments[0]),)) in gates}
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
        case Call("mul", (Call("step", (low,)), Call("step", (high,)))) if clip := _clip(low, high):
            return clip
        case Call("tanh", (Call("softplus", (inner,)),)):
            return Call("mish_gate", (inner,))
        case Call("mul", (left, Call("sigmoid", (inner,)))) if _mish_product(left, inner):
            return Call("mish_slope", (inner,))
        case Call("mul", (Call("mul", (g, left)), Call("sigmoid", (inner,)))) if _mish_product(
            left, inner
        ):
            return build("mul", g, Call("mish_slope", (inner,)))
        case Call("mul", (Call("sigmoid", (left,)), Call("sigmoid", (right,)))) if (
            _negated(left) == right
        ):
            return Call("logistic_pdf", (left,))
        case _:
            return node


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


def _negated(node: Node) -> Node:
    return node.arguments[0] if _is(node, "neg") else Call("neg", (node,))  # type: ignore[union-attr]


def _is(node: Node, function: str) -> bool:
    return isinstance(node, Call) and node.function == function
