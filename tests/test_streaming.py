"""A training part that stays on the host, or in a file: the same runs, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from search.activation import Activation
from search.records import Run
from search.tasks.residence import RESIDENT, memory_of, too_large
from search.tasks.task import Split, Splits, splits_to
from search.training import streaming
from search.training.batched import run_together
from search.training.loop import run_epochs
from search.training.streaming import streamed, workers_for
from search.training.sweep import drain
from tests.batched_cases import CASES, digits, settings

CPU = torch.device("cpu")
KEYS = ((0.003, 0), (1e9, 7), (0.03, 7), (0.003, 3))
"""The second diverges, within an epoch."""


def curves(runs: list[Run]) -> list[Any]:
    return [replace(run, seconds=0.0) for run in runs]


def batched(splits: Splits, **rest: Any) -> list[Any]:
    make = partial(Activation, "silu")
    epochs = list(run_together(CASES["mlp"][0], splits, make, keys=KEYS, **rest))
    return curves([run for epoch in epochs for run in epoch.ended])


def test_a_plain_run_that_streams_is_the_resident_one():
    task, splits, options, formula, recipe = CASES["cnn, BatchNorm"]
    rest = settings(task, options, **recipe) | {"learning_rate": 0.03, "seed": 1}
    make = partial(Activation, formula)
    runs = [
        drain(run_epochs(task, replace(splits, stream=stream), make, **rest))
        for stream in (False, True)
    ]
    assert curves(runs[:1]) == curves(runs[1:]) and runs[0].state == "complete"


@pytest.mark.parametrize("augmentation", [[], ["flip", "crop"]])
def test_a_batch_that_streams_is_the_resident_one(augmentation: list[str]):
    rest = settings(CASES["mlp"][0], {}, augmentation=augmentation)
    splits = digits()
    resident = batched(replace(splits, stream=False), **rest)
    assert batched(replace(splits, stream=True), **rest) == resident
    assert sorted(run.state for run in resident) == ["complete"] * 3 + ["diverged"]


def test_without_workers_the_batches_are_the_same(monkeypatch: pytest.MonkeyPatch):
    split = digits().train
    numbers = list(torch.randperm(96).split(32))
    monkeypatch.setattr(streaming, "WORKERS", 0)
    alone = list(streamed(split, numbers, CPU))
    monkeypatch.setattr(streaming, "WORKERS", 1)
    monkeypatch.setattr(streaming, "available_cpus", lambda: 2)
    assert workers_for(split, numbers) == 1
    for (x, y), (u, v), chosen in zip(streamed(split, numbers, CPU), alone, numbers, strict=True):
        assert torch.equal(x, u) and torch.equal(y, v) and torch.equal(x, split.inputs[chosen])


def test_streaming_leaves_torchs_own_draws_alone():
    before = torch.get_rng_state()
    list(streamed(digits().train, [torch.arange(4)], CPU))
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_need_processors_and_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    split, numbers = digits().train, [torch.arange(32)]
    monkeypatch.setattr(streaming, "available_cpus", lambda: 16)
    assert workers_for(split, numbers) == 2
    wide = Split(torch.empty(1, 2**40, device="meta"), torch.empty(1, device="meta"))
    assert workers_for(wide, numbers) == 0
    monkeypatch.setattr(streaming, "SHARED", tmp_path / "none")
    assert workers_for(split, numbers) == 0
    monkeypatch.undo()
    monkeypatch.setattr(streaming, "available_cpus", lambda: 1)
    assert workers_for(split, numbers) == 0


def test_a_part_of_a_file_is_trained_on(tmp_path: Path):
    """A file of bytes, mapped into memory, as a data set larger than it would be."""
    splits = digits()
    path = tmp_path / "inputs.bin"
    splits.train.inputs.numpy().tofile(path)
    count = splits.train.inputs.numel()
    mapped = torch.from_file(str(path), shared=False, size=count)
    train = Split(mapped.view(splits.train.inputs.shape), splits.train.targets)
    rest = settings(CASES["mlp"][0], {}, epochs=1)
    found = batched(replace(splits, train=train, stream=True), **rest)
    assert found == batched(splits, **rest)


def test_a_part_that_takes_more_than_a_quarter_of_the_memory_streams():
    floats = int(RESIDENT * memory_of(CPU)) // 4
    below, above = (torch.empty(floats + more, device="meta") for more in (-9, 9))
    assert not too_large([below], CPU) and too_large([above], CPU)
    assert splits_to(digits(), "cpu").stream is False
    held = splits_to(replace(digits(), stream=True), "meta")
    assert held.train.inputs.device.type == "cpu"
    assert held.validation.inputs.device.type == "meta" == held.test.targets.device.type
