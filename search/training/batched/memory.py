"""Batches of runs that fit: so many at a time, and half as many when memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch

from search.records import Member, Point, Run, SharedEpoch
from search.training.sweep import AllTogether, SharedEpochs


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def in_batches(
    together: AllTogether,
    members: Sequence[Member],
    at_once: int,
    *,
    abreast: bool = False,
    begun: Sequence[Sequence[Member]] = (),
) -> SharedEpochs:
    """Train the runs at most `at_once` together, in batches of about equal size; one that runs out
    of memory is halved.

    abreast: all batches advance together, an epoch at a time, all of them in memory; else one
    after the other. begun: batches of other runs that were cut off, and go on as they are.
    """
    batches = -(-len(members) // at_once)
    ends = [len(members) * k // batches for k in range(batches + 1)] if members else []
    parts = [*begun, *(members[begin:end] for begin, end in pairwise(ends))]
    streams = (halving(together, part, abreast=abreast) for part in parts)
    if abreast:
        yield from side_by_side(list(streams))
        return
    for stream in streams:
        yield from stream


def side_by_side(streams: Sequence[SharedEpochs]) -> SharedEpochs:
    """The epochs of several batches as those of one."""
    alive, dropped = list(streams), None
    while alive:
        points, ended = dict[Member, Point](), dict[Member, Run]()
        for stream in list(alive):
            try:
                epoch = stream.send(dropped)
            except StopIteration:
                alive.remove(stream)
                continue
            points |= epoch.points
            ended |= epoch.ended
        if points or ended:
            dropped = yield SharedEpoch(points, ended)


def halving(
    together: AllTogether, members: Sequence[Member], *, abreast: bool = False
) -> SharedEpochs:
    """Train some runs together; out of memory, those that have not ended begin anew in halves.

    abreast: the halves advance together, and catch up with the epoch that the batch had reached
    before they are heard again: their runs repeat what they did.
    """
    left, reached, dropped = list(members), 0, None
    stream = together(members)
    try:
        while True:
            try:
                epoch = stream.send(dropped)
            except StopIteration:
                return
            reached += bool(epoch.points)
            left = [member for member in left if member not in epoch.ended]
            dropped = yield epoch
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error) or len(members) == 1:
            raise
    del stream
    free_memory()
    half = -(-len(left) // 2)
    streams = [
        halving(together, part, abreast=abreast) for part in (left[:half], left[half:]) if part
    ]
    if abreast:
        yield from _caught_up(side_by_side(streams), reached, dropped)
        return
    for stream in streams:
        yield from stream


def _caught_up(
    stream: SharedEpochs, reached: int, dropped: Mapping[Member, str] | None
) -> SharedEpochs:
    """The epochs behind the first `reached`; what was dropped meanwhile is dropped now."""
    ended: dict[Member, Run] = {}
    try:
        for _ in range(reached):
            ended |= next(stream).ended
        while True:
            epoch = stream.send(dropped)
            dropped = yield SharedEpoch(epoch.points, {**ended, **epoch.ended})
            ended.clear()
    except StopIteration:
        if ended:
            yield SharedEpoch({}, ended)


def free_memory() -> None:
    """Give back what a batch has left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
