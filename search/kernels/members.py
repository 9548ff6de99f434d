"""Many models at once (torch.func.vmap): the formula whose first dimension counts the members.

The members' calls become one call of a fused kernel where a formula allows it: a parameter per
layer is, to K members, a parameter per channel of their dimension, and a statistic over a member's
tensor is one over a sample.
"""

from __future__ import annotations

from dataclasses import replace

from search.language.expression import Expression, Node, Over, Statistic, map_nodes, walk


def stack_members(expression: Expression, *, own_parameters: bool) -> Expression | None:
    """The formula that computes all members in one call; None where they must take turns.

    own_parameters: every member has its own values, (K, 1, …), read along dimension 0.
    """
    overs = {node.over for node in walk(expression.body) if isinstance(node, Statistic)}
    scopes = {p.scope for p in expression.trainable}
    if "sample" in overs or (own_parameters and ("features" in overs or "channel" in scopes)):
        return None
    if not overs and not own_parameters:
        return expression
    declared = [
        replace(p, scope="channel") if own_parameters and p.scope == "layer" else p
        for p in expression.parameters
    ]
    body = map_nodes(expression.body, _per_member)
    return replace(expression, body=body, parameters=tuple(declared), penalty=None)


def _per_member(node: Node) -> Node:
    over: Over = "sample"
    if isinstance(node, Statistic) and node.over == "tensor":
        return replace(node, over=over)
    return node
