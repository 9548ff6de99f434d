"""What was cut off goes on with the numbers that it would have had, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from torch import Tensor

from search.activation import Activation
from search.tasks.task import Task
from search.training.batched import run_together
from search.training.loop import run_epochs
from search.training.sweep import drain
from tests.batched_cases import digits
from tests.checkpoint_cases import CASES, DROPPING, KEYS, Every, kept, same


def counted(task: Task) -> tuple[Task, list[int]]:
    """The task, and how often its loss was asked for in training."""
    calls: list[int] = []

    def loss(outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        calls.extend([1] if outputs.requires_grad else [])
        return task.loss(outputs, targets, smoothing)

    return replace(task, loss=loss), calls


@pytest.mark.parametrize("case", CASES)
def test_a_plain_run_goes_on_from_any_checkpoint_bit_by_bit(case: str, tmp_path: Path):
    task, options, formula, recipe = CASES[case]
    task, calls = counted(task)
    run = partial(
        run_epochs,
        task,
        digits(80),
        partial(Activation, formula),
        options=options,
        recipe=recipe,
        learning_rate=0.03,
        seed=3,
        testing=True,
    )
    whole = drain(run())
    steps, _ = len(calls), calls.clear()
    assert whole.state == "complete" and whole.test is not None
    every = Every(tmp_path)
    assert same(drain(run(checkpoint=kept(every, tmp_path, steps=2).run(0.03, 3))), whole)
    cuts = list(every.each())
    assert len(cuts) == steps // 2 + 1  # the last is what came of it
    for number, cut in enumerate(cuts):
        calls.clear()
        points: list[object] = []
        stream = run(checkpoint=kept(cut, tmp_path).run(0.03, 3))
        try:
            while True:
                points.append(next(stream))
        except StopIteration as end:
            assert same(end.value, whole)
        assert tuple(points) == whole.curve  # those of before come again
        assert len(calls) == max(0, steps - 2 * (number + 1)) if number < len(cuts) - 1 else True
    assert not calls


@pytest.mark.parametrize("case", CASES)
def test_a_batch_goes_on_from_any_checkpoint_bit_by_bit(case: str, tmp_path: Path):
    task, options, formula, recipe = CASES[case]
    wild = (1e30, 1)  # leaves on its way
    run = partial(
        run_together,
        task,
        digits(80),
        partial(Activation, formula),
        options=options,
        recipe=recipe,
        testing=True,
    )
    keys = [*KEYS, wild]
    epochs = list(run(keys=keys))
    whole = {(r.learning_rate, r.seed): r for epoch in epochs for r in epoch.ended}
    assert {whole[key].state for key in KEYS} == {"complete"}
    every = Every(tmp_path)
    members = [(0, *key) for key in keys]
    list(run(keys=keys, checkpoint=kept(every, tmp_path, steps=3).batch(members)))
    cuts = list(every.each())
    assert len(cuts) == whole[KEYS[0]].steps // 3 + 1
    for cut in cuts:
        trial = kept(cut, tmp_path)
        assert [sorted(part) for part in trial.begun(members)] == [sorted(members)]
        again = list(run(keys=keys, checkpoint=trial.batch(members)))
        assert [epoch.points for epoch in again] == [epoch.points for epoch in epochs]
        for one, other in zip(again, epochs, strict=True):
            assert len(one.ended) == len(other.ended)
            assert all(same(a, b) for a, b in zip(one.ended, other.ended, strict=True))


def test_a_batch_goes_on_with_what_is_asked_of_it(tmp_path: Path):
    """Runs that the study has are not trained again, and the others do not notice."""
    _, options, formula, recipe = CASES["momentum, cosine, dropout, BatchNorm"]
    run = partial(
        run_together,
        DROPPING,
        digits(80),
        partial(Activation, formula),
        options=options,
        recipe=recipe,
    )
    whole = {(r.learning_rate, r.seed): r for epoch in run(keys=KEYS) for r in epoch.ended}
    every = Every(tmp_path)
    members = [(0, *key) for key in KEYS]
    list(run(keys=KEYS, checkpoint=kept(every, tmp_path, steps=7).batch(members)))
    left = [members[2], (0, 0.1, 5)]
    for cut in every.each():
        trial = kept(cut, tmp_path)
        assert trial.begun(left) == [[members[2]]]
        epochs = run(keys=[KEYS[2]], checkpoint=trial.batch([members[2]]))
        (found,) = [r for epoch in epochs for r in epoch.ended]
        assert same(found, whole[KEYS[2]])
