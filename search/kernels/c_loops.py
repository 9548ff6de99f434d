"""The loops of a C kernel: a chain of long functions is cut where that saves waiting.

A processor looks ahead by a hundred instructions or so. Of one loop over gompertz(x), two
exponentials one after the other, that is two or three turns, and most of the time goes by waiting
for results: GoLU's kernels take 7.4 and 8.9 ns for 16 elements. As two loops, the first one's
values kept in an array that stays in the nearest cache, they take 5.9 and 6.5.

What a loop takes is estimated from what its functions need of a processor with 512-bit vectors
(Zen 4, measured): turns of its multipliers, which comparisons and divisions use too, turns of its
divider, instructions, and how long a result is waited for. The cuts with the smallest sum are made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from search.kernels.program import Operation, Value

_ARITHMETIC = ("add", "sub", "mul", "div", "neg", "abs", "sign")
_CHOICES = ("gt", "ge", "lt", "le", "select", "max", "min", "clip", "step", "relu")
_HELD = ("inside_of", "kept_inside", "held_root", "over_root", "not_infinite")
_CHEAP = frozenset((*_ARITHMETIC, *_CHOICES, *_HELD))
"""Functions of a few instructions: no link of a chain."""
_MOST_KEPT = 3  # arrays between two loops; with more, loading and storing costs what the cut gains
_MOST_AGAIN = 2  # cheap functions that a later loop computes again rather than load their value
_MOST_CUTS = 5  # of which every choice is looked at; of longer chains every link is cut


@dataclass(frozen=True, slots=True)
class Work:
    """What 16 elements of a function take."""

    products: float
    """Cycles of the multipliers."""
    instructions: float
    latency: float
    """Cycles from its arguments to its value."""
    divider: float = 0


_SUM = Work(0, 0.5, 2)  # half of them are one instruction with the product before
_WORK: dict[str, Work] = {
    **dict.fromkeys(("add", "sub", "neg"), _SUM),
    **dict.fromkeys(("abs", "max", "min", "relu", "held_root", "not_infinite"), Work(0, 1, 2)),
    **dict.fromkeys(("gt", "ge", "lt", "le", "select"), Work(0.5, 1, 2)),
    "clip": Work(0, 2, 4),
    "mul": Work(1, 1, 4),
    "div": Work(2, 3, 13, 6),
    "over_root": Work(3, 5, 19, 6),
    "sqrt": Work(2, 3, 20, 10),
    "root_of_unit": Work(3, 4, 24, 10),
    "rsqrt": Work(4, 6, 33, 16),
    "exp2_wide": Work(5, 16, 38),
    "falling": Work(7, 18, 40),
    "exp_low": Work(8, 18, 40),
    "gompertz_power": Work(8, 19, 42),
    "exp": Work(11, 24, 45),
    "expm1": Work(11, 28, 45),
    "tanh": Work(13, 25, 62, 6),
    "softplus": Work(20, 34, 75),
    "mish_gate": Work(11, 22, 65, 6),
    "mish_slope": Work(13, 24, 70, 6),
    "normal_pdf": Work(15, 27, 55),
    "normal_cdf": Work(30, 45, 90, 6),
    "angle": Work(13, 26, 70, 6),
    "arctan": Work(14, 22, 60, 6),
    "arctan_gate": Work(18, 25, 80, 12),
    "arcsin": Work(15, 23, 60, 10),
    "arcsin_gate": Work(16, 26, 65, 10),
    "arcsin_slope": Work(15, 23, 65, 16),
}
_LIBRARY = (
    "sin",
    "cos",
    "sinc",
    "sinh",
    "cosh",
    "asinh",
    "erf",
    "erfc",
    "log",
    "log1p",
    "exp2",
    "pow",
)
_WORK |= dict.fromkeys(_LIBRARY, Work(20, 10, 20))  # in loops of their own
_LONG = Work(20, 35, 75)  # any other function
_SMALL = Work(1, 2, 4)  # any other cheap one
_AHEAD = 128  # instructions
_TURN = 3.0  # cycles of a loop whatever it does: constants, and values kept and read
_DISTURBED = 15  # cycles of a loop that calls the C library beside a long function
_BESIDE = 4  # cheap functions that a call does not disturb


@dataclass(frozen=True, slots=True)
class Loop:
    """Operations on one element; what earlier loops kept is read, and some of it kept for later."""

    read: tuple[str, ...]
    operations: tuple[Operation, ...]
    kept: tuple[str, ...]

    def reads(self, name: str) -> bool:
        """Whether an operation takes a value of this name."""
        return any(name in op.arguments for op in self.operations)

    @property
    def calls(self) -> bool:
        """Whether it calls the C library."""
        return any(op.function in _LIBRARY for op in self.operations)


def split_loops(operations: Sequence[Operation], outputs: Iterable[Value]) -> tuple[Loop, ...]:
    """The loops that make `outputs`, all of which the last loop has at hand."""
    links, outputs = _links(operations), tuple(outputs)
    cuts = range(1, max(links.values(), default=0))
    few = 0 if len(cuts) <= _MOST_CUTS else len(cuts)
    choices = (c for count in range(few, len(cuts) + 1) for c in combinations(cuts, count))
    return min((_cut(operations, outputs, links, c) for c in choices), key=_cycles)


def _cut(
    operations: Sequence[Operation],
    outputs: tuple[Value, ...],
    links: dict[Value, int],
    cuts: Iterable[int],
) -> tuple[Loop, ...]:
    """The loops of a chain cut after some of its links; not where too much is to be kept."""
    loops, kept = list[Loop](), tuple[str, ...]()
    for link in cuts:
        before = [op for op in operations if links[op.target] <= link]
        later = {a for op in operations if links[op.target] > link for a in op.arguments}
        crossing = _crossing(before, links, later.union(outputs))
        if len(crossing) <= _MOST_KEPT:
            new = tuple(name for name in crossing if name not in kept)
            loops += _calls_apart(_loop(operations, new, kept, new), new)
            kept = (*kept, *new)
    return (*loops, *_calls_apart(_loop(operations, outputs, kept, ()), outputs))


def _links(operations: Sequence[Operation]) -> dict[Value, int]:
    """How many long functions lie on the longest way to every value; of what none needs, the most
    and one more: the last loop makes it."""
    links, wanted = dict[Value, int](), set[Value]()
    for op in operations:
        before = max((links.get(a, 0) for a in op.arguments), default=0)
        links[op.target] = before + (op.function not in _CHEAP)
    most = max(links.values(), default=0)
    for op in reversed(operations):
        if op.target in wanted or op.function not in _CHEAP:
            wanted.update(op.arguments)
        else:
            links[op.target] = most + 1
    return links


def _crossing(
    before: Iterable[Operation], links: dict[Value, int], needed: Collection[Value]
) -> list[str]:
    """What of `needed` must be kept; what leaves or a few cheap functions give need not."""
    found, again = list[str](), dict[Value, set[str]]()
    out_of_reach = set[Value]()
    for op in before:
        steps = {op.target}.union(*(again.get(a, ()) for a in op.arguments))
        cheap = op.function in _CHEAP and not out_of_reach.intersection(op.arguments)
        again[op.target] = steps
        if op.target in needed and links[op.target] and not (cheap and len(steps) <= _MOST_AGAIN):
            found.append(op.target)
            again[op.target] = set()
        elif not cheap:
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


def _calls_apart(loop: Loop, wanted: Iterable[Value]) -> Iterable[Loop]:
    """Calls of the C library in loops before it: they take all registers, and what is beside them
    is spilled (a sine takes 17 cycles, an exponential 9, both in one loop 33)."""
    calls = [
        _loop(loop.operations, (op.target,), loop.read, (op.target,))
        for op in loop.operations
        if op.function in _LIBRARY
    ]
    calls = [c for c in calls if sum(op.function not in _CHEAP for op in c.operations) == 1]
    others = [op for op in loop.operations if not any(op in call.operations for call in calls)]
    if len(calls) + sum(op.function not in _CHEAP for op in others) < 2 and len(others) <= _BESIDE:
        return (loop,)
    names = tuple(name for call in calls for name in call.kept)
    kept = tuple(name for name in loop.kept if name not in names)
    rest = _loop(loop.operations, wanted, (*loop.read, *names), kept)
    return (*calls, rest) if kept or not loop.kept else calls


def _cycles(loops: Iterable[Loop]) -> float:
    """What 16 elements take."""
    return sum(_TURN + _cycles_of(loop) for loop in loops)


def _cycles_of(loop: Loop) -> float:
    works = [_work(op) for op in loop.operations]
    ready: dict[Value, float] = {}
    for op, work in zip(loop.operations, works, strict=True):
        ready[op.target] = work.latency + max((ready.get(a, 0) for a in op.arguments), default=0)
    instructions = sum(work.instructions for work in works) + len(loop.kept) + len(loop.read)
    waiting = instructions * max(ready.values(), default=0) / _AHEAD
    products, divider = sum(w.products for w in works), sum(w.divider for w in works)
    long = [op.function for op in loop.operations if op.function not in _CHEAP]
    disturbed = _DISTURBED if len(long) > 1 and not set(long).isdisjoint(_LIBRARY) else 0
    return max(products, divider, instructions / 2, waiting) + disturbed


def _work(operation: Operation) -> Work:
    return _WORK.get(operation.function) or (_SMALL if operation.function in _CHEAP else _LONG)
