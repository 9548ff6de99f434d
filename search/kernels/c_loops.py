"""The loops of a C kernel: a chain of long functions is cut, one loop a link.

A processor looks ahead by a hundred instructions or so. Of one loop over gompertz(x), two
exponentials one after the other, that is two or three turns, and most of the time goes by waiting
for results: GoLU's kernels take 7.4 and 8.9 ns for 16 elements. As two loops, the first one's
values kept in an array that stays in the nearest cache, they take 5.9 and 6.5.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from search.kernels.program import Operation, Value

_ARITHMETIC = ("add", "sub", "mul", "div", "neg", "abs", "sign")
_CHOICES = ("gt", "ge", "lt", "le", "select", "max", "min", "clip", "step", "relu")
_CHEAP = frozenset((*_ARITHMETIC, *_CHOICES, "inside_of", "kept_inside", "held_root"))
"""Functions of a few instructions: a later loop computes them again."""
_SHORT = _CHEAP | {"sqrt", "rsqrt", "root_of_unit"}
"""Functions that are no link of a chain; a root, 10 cycles for 16 numbers, is kept."""
_MOST_KEPT = 3  # arrays between two loops; with more, loading and storing costs what the cut gains


@dataclass(frozen=True, slots=True)
class Loop:
    """Operations on one element; what earlier loops kept is read, and some of it kept for later."""

    read: tuple[str, ...]
    operations: tuple[Operation, ...]
    kept: tuple[str, ...]


def split_loops(operations: Sequence[Operation], outputs: Iterable[Value]) -> tuple[Loop, ...]:
    """The loops that make `outputs`, all of which the last loop has at hand."""
    links = _links(operations)
    outputs = tuple(outputs)
    loops, kept = list[Loop](), tuple[str, ...]()
    for link in range(1, max(links.values(), default=0)):
        before = [op for op in operations if links[op.target] <= link]
        later = [op.arguments for op in operations if links[op.target] > link]
        crossing = _crossing(before, {*outputs, *(a for arguments in later for a in arguments)})
        if len(crossing) <= _MOST_KEPT:
            new = tuple(name for name in crossing if name not in kept)
            loops.append(_loop(operations, new, kept, new))
            kept = (*kept, *new)
    return (*loops, _loop(operations, outputs, kept, ()))


def _links(operations: Iterable[Operation]) -> dict[Value, int]:
    """How many long functions lie on the longest way to every value."""
    links: dict[Value, int] = {}
    for op in operations:
        before = max((links.get(a, 0) for a in op.arguments), default=0)
        links[op.target] = before + (op.function not in _SHORT)
    return links


def _crossing(before: Iterable[Operation], needed: Collection[Value]) -> list[str]:
    """What of `needed` must be kept; what cheap functions make of that and of leaves need not."""
    found, out_of_reach = list[str](), set[Value]()
    for op in before:
        if op.function in _CHEAP and not out_of_reach.intersection(op.arguments):
            continue
        if op.target in needed:
            found.append(op.target)
        else:
            out_of_reach.add(op.target)
    return found


def _loop(
    operations: Sequence[Operation],
    wanted: Iterable[Value],
    kept: Sequence[str],
    keep: tuple[str, ...],
) -> Loop:
    """The loop that makes what is wanted from leaves and what earlier loops kept."""
    names, own = set(wanted), list[Operation]()
    for op in reversed(operations):
        if op.target in names and op.target not in kept:
            own.append(op)
            names.update(op.arguments)
    return Loop(tuple(k for k in kept if k in names), tuple(reversed(own)), keep)
