"""Rewrites of formulas that suit C: one exponential where two or three would do.

They may call functions of `c_math.h` that the language does not have. A rewrite stays only while
every 16-bit input comes out as before (tests/test_c_code.py).
"""

from __future__ import annotations

from search.language.expression import Call, Node, Number, map_nodes, walk

FUSED = {name: name + "({0})" for name in ("mish_gate", "mish_rest", "mish_sigmoid")}
"""The texts of the functions that only C knows."""


def fuse(outputs: tuple[Node, ...]) -> tuple[Node, ...]:
    """The outputs of one program, rewritten together: what they share stays shared."""
    outputs = tuple(map_nodes(output, _local) for output in outputs)
    nodes = [n for output in outputs for n in walk(output) if isinstance(n, Call)]
    of_mish = {n.arguments for n in nodes if n.function in ("mish_gate", "mish_rest")}

    def share(node: Node) -> Node:
        if isinstance(node, Call) and node.function == "sigmoid" and node.arguments in of_mish:
            return Call("mish_sigmoid", node.arguments)
        return node

    return tuple(map_nodes(output, share) for output in outputs)


def _local(node: Node) -> Node:
    match node:
        case Call("tanh", (Call("softplus", arguments),)):
            return Call("mish_gate", arguments)
        case Call("sub", (Number(1.0), Call("mish_gate", arguments))):
            return Call("mish_rest", arguments)
        case _:
            return node
