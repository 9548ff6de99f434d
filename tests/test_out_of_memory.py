"""Batches that run out of memory: halved, and in step they catch up; no run ends twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from search.records import Member, Point, Run, SharedEpoch
from search.training.batched.memory import halving, in_batches, out_of_memory
from search.training.candidate import train_candidate
from search.training.job import Job
from search.training.sweep import SharedEpochs
from tests.batched_cases import training
from tests.rungs_cases import EPOCHS, RATES, start


def test_out_of_memory_halves_the_batch_and_every_run_ends_once():
    tried: list[int] = []

    def fits_three(members: Sequence[Member]) -> SharedEpochs:
        tried.append(len(members))
        if len(members) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        runs = {(c, r, seed): Run(r, seed, "complete", score=1.0) for c, r, seed in members}
        yield SharedEpoch({}, runs)

    members = [(0, 0.1, seed) for seed in range(10)]
    runs = [run for epoch in halving(fits_three, members) for run in epoch.ended.values()]
    assert [run.seed for run in runs] == list(range(10))
    assert tried == [10, 5, 3, 2, 5, 3, 2]
    tried.clear()
    list(in_batches(fits_three, members, 3))
    assert tried == [2, 3, 2, 3]


def test_one_run_that_does_not_fit_is_an_error():
    def never(members: Sequence[Member]) -> SharedEpochs:
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield SharedEpoch({})

    for abreast in (False, True):
        with pytest.raises(torch.OutOfMemoryError):
            list(halving(never, [(0, 0.1, 0), (0, 0.1, 1)], abreast=abreast))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


# --- out of memory, in step ----------------------------------------------------------------------


def shared(members: tuple[Member, ...], most: int, at: int, begun: list[int]) -> SharedEpochs:
    """Runs in step, of which no more than `most` fit together from epoch `at` on."""
    begun.append(len(members))
    alive = {(c, rate, seed): start(rate, seed) for c, rate, seed in members}
    dropped: Any = {}
    epoch = 0
    while alive:
        epoch += 1
        points, ended = dict[Member, Point](), dict[Member, Run]()
        if len(alive) > most and epoch >= at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for member, stream in list(alive.items()):
            try:
                points[member] = stream.send(dropped.get(member))
            except StopIteration as stop:
                del alive[member]
                ended[member] = stop.value
        dropped = (yield SharedEpoch(points, ended)) or {}


@pytest.mark.parametrize("at", [1, 3, 5])
@pytest.mark.parametrize("at_once", [6, 10])
def test_out_of_memory_in_step_halves_the_batch_and_no_epoch_is_told_twice(at: int, at_once: int):
    members = tuple((0, rate, seed) for rate in RATES for seed in (0, 1))
    told: list[dict[Member, Point]] = []
    runs: dict[Member, Run] = {}
    begun: list[int] = []
    stream = in_batches(
        lambda part: shared(tuple(part), 3, at, begun), members, at_once, abreast=True
    )
    dropped: Any = None
    gone = members[0], members[7]
    while True:
        try:
            epoch = stream.send(dropped)
        except StopIteration:
            break
        assert not runs.keys() & epoch.ended.keys()
        runs |= epoch.ended
        dropped = {}
        if epoch.points:
            told.append(dict(epoch.points))
            dropped = dict.fromkeys(gone, "the rung") if len(told) == 4 else {}
    assert len(begun) > len(members) // at_once + 1
    assert [set(map(lambda p: p.step, each.values())) for each in told] == [
        {5 * epoch} for epoch in range(1, EPOCHS + 1)
    ]
    assert [set(each) for each in told] == [set(members)] * 4 + [set(members) - set(gone)] * 4
    assert {m: run.state for m, run in runs.items() if run.state == "pruned"} == dict.fromkeys(
        gone, "pruned"
    )
    assert all(len(runs[m].curve) == 4 for m in gone) and runs.keys() == set(members)


def test_a_scheduler_hears_the_same_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch):
    from search.training.batched.batch import Batch

    heard: list[list[tuple[int, float, int]]] = []
    for most in (100, 3):
        whole = Batch.train_epoch

        def limited(batch: Any, *rest: Any, most: int = most, whole: Any = whole) -> Any:
            if len(batch.members) > most and batch.step:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return whole(batch, *rest)

        told: list[tuple[int, float, int]] = []
        with monkeypatch.context() as patch:
            patch.setattr(Batch, "train_epoch", limited)
            outcome = train_candidate(
                training(at_once=4, in_step=True),
                Job("relu(x)", gated=False),
                on_epoch=lambda e, value, points, to=told: to.append((e, value, len(points))),
            )
        assert outcome.state == "complete"
        heard.append(told)
    assert heard[0] == heard[1] and len(heard[0]) == 2
