"""dy taken into a factor that the outputs of a backward share.

    dx = dy * (r + F * g), da = dy * (F * h)   →   P = dy * F, dx = dy * r + P * g, da = P * h

One product less for every output that has the factor, one more for every term of a sum that has it
not; done where it leaves fewer operations (an arctan-arcsin backward: 62 cycles of 16 elements, 64
before). An infinite dy may give NaN where terms of unlike signs meet, as in torch's own derivative;
a NaN in dy is never masked: a term that a choice may set to 0 does not carry it alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from search.language.expression import DY, Call, Input, Node, walk
from search.language.simplify import build

_MOST_TRIED = 8  # factors, those nearest to the outputs
_Carried = tuple[Node, bool]
"""dy times a node, and whether a NaN in dy comes out whatever a choice in it says."""


def share_upstream(outputs: tuple[Node, ...]) -> tuple[Node, ...]:
    """Outputs that are all dy times something, in as few operations; any others as they are."""
    slopes = [_slope(output) for output in outputs]
    if len(slopes) < 2 or not all(slopes):
        return outputs
    nodes = dict.fromkeys(n for slope in slopes if slope for n in walk(slope))
    uses = Counter(a for n in nodes if isinstance(n, Call) for a in n.arguments)
    uses.update(slope for slope in slopes if slope)
    factors = [n for n in nodes if uses[n] > 1 and isinstance(n, Call) and n.function == "mul"]
    choices = (_through(outputs, nodes, factor) for factor in factors[-_MOST_TRIED:])
    return min((outputs, *choices), key=_operations)


def _slope(output: Node) -> Node | None:
    match output:
        case Call("mul", (a, slope)) if a == DY:
            return slope
        case _:
            return None


def _operations(outputs: Iterable[Node]) -> int:
    return len({n for output in outputs for n in walk(output) if isinstance(n, Call)})


def _through(outputs: tuple[Node, ...], nodes: Iterable[Node], factor: Node) -> tuple[Node, ...]:
    """The outputs with dy in a factor, where it is one of theirs."""
    found: dict[Node, _Carried] = {factor: (_times(factor), True)}
    for node in nodes:
        if node != factor and (carried := _carry(node, found)):
            found[node] = carried
    made = []
    for output in outputs:
        new, sure = found.get(_slope(output) or output, (output, True))
        made.append(new if sure else output)
    return tuple(made)


def _times(factor: Node) -> Node:
    """dy times a factor, so that an input, which is there first, meets it first."""
    match factor:
        case Call("mul", (Input() as a, b)):
            return Call("mul", (Call("mul", (DY, a)), b))
        case _:
            return Call("mul", (DY, factor))


def _carry(node: Node, found: Mapping[Node, _Carried]) -> _Carried | None:
    """dy times a node of arguments that may carry it; None of a node that is not linear in any."""
    match node:
        case Call("mul" | "div" | "neg" | "kept_inside" | "over_root" as function, (a, *rest)) if (
            a in found
        ):
            new, sure = found[a]
            return Call(function, (new, *rest)), sure and function in ("mul", "div", "neg")
        case Call("mul", (a, b)) if b in found:
            new, sure = found[b]
            return Call("mul", (a, new)), sure
        case Call("add" | "sub" as function, (a, b)) if a in found or b in found:
            (left, one), (right, other) = (
                found.get(n, (build("mul", DY, n), True)) for n in (a, b)
            )
            return Call(function, (left, right)), one or other
        case _:
            return None
