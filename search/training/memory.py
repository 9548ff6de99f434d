"""Batches of runs that fit: so many at a time, and half as many when memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest

import torch

from search.records import Epoch, Key, Point, Run
from search.training.sweep import Together


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def in_batches(
    together: Together,
    keys: Sequence[Key],
    at_once: int,
    *,
    abreast: bool = False,
    begun: Sequence[Sequence[Key]] = (),
) -> Iterator[Epoch]:
    """Train the runs at most `at_once` together, in batches of about equal size.

    begun: batches of other runs that were cut off, and go on as they are.
    abreast: all batches advance together, an epoch at a time, all of them in memory; else one
    after the other, and a batch that runs out of memory is halved.
    """
    batches = -(-len(keys) // at_once)
    ends = [len(keys) * k // batches for k in range(batches + 1)] if keys else []
    parts = [*begun, *(keys[begin:end] for begin, end in pairwise(ends))]
    if abreast:
        yield from side_by_side([together(part) for part in parts])
        return
    for part in parts:
        yield from halving(together, part)


def side_by_side(streams: Sequence[Iterator[Epoch]]) -> Iterator[Epoch]:
    """The epochs of several batches as those of one."""
    for epochs in zip_longest(*streams, fillvalue=Epoch({})):
        points, ended = dict[Key, Point](), list[Run]()
        for epoch in epochs:
            points |= epoch.points
            ended += epoch.ended
        yield Epoch(points, tuple(ended))


def halving(together: Together, keys: Sequence[Key]) -> Iterator[Epoch]:
    """Train some runs together; out of memory, those that have not ended begin anew in halves."""
    left = list(keys)
    try:
        for epoch in together(keys):
            ended = {(run.learning_rate, run.seed) for run in epoch.ended}
            left = [key for key in left if key not in ended]
            yield epoch
        return
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error) or len(keys) == 1:
            raise
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = -(-len(left) // 2)
    for part in (left[:half], left[half:]):
        if part:
            yield from halving(together, part)
