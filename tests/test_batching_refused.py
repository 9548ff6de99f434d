"""What cannot be batched: told in one line that names the place, and trained the plain way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search.records import Run
from search.tasks.digits import TASK as DIGITS
from search.tasks.task import MakeActivation, Recipe, Splits, Task
from search.training.batched import BatchingError
from search.training.candidate import train_candidate
from search.training.job import Job
from search.training.planner import planned
from tests.batched_cases import KEYS, OWN, digits, settings, silu, together, training

# --- what cannot be batched ----------------------------------------------------------------------


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.mean() > 0 else x


class Replacing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.mean()
        return x


CALLS = 0


class Global(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        global CALLS
        CALLS += 1
        return x / CALLS


class Counting(nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x / self.calls


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(16, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x.unsqueeze(1))[0][:, 0]


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, self.training)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (Branching, r"layer 3 \(Branching\): data-dependent.*; expected torch.where"),
        (Replacing, "buffer mean is replaced in the forward pass; expected a change in place"),
        (Global, r"the file of Global.forward changes 'CALLS' .*; expected a buffer"),
        (Counting, r"layer 3 \(Counting\) changes 'calls' .*; expected a buffer"),
        (Remembering, r"layer 3 \(Remembering\) changes 'seen' .*; expected a buffer"),
        (Recurrent, r"layer 3.cell \(LSTM\): "),
        (Random, r"layer 3 \(Random\): .*random"),
    ],
)
def test_what_cannot_be_batched_is_told_by_its_layer(layer: type[nn.Module], said: str):
    def build(make: MakeActivation, splits: Splits, **_: Any) -> nn.Module:
        first = [nn.Flatten(), nn.Linear(64, 16), make(), layer()]
        return nn.Sequential(*first, nn.Linear(16, splits.outputs))

    task = Task(name="own", load=lambda root: digits(), build=build)
    with pytest.raises(BatchingError, match=said) as caught:
        together(task, digits(), silu, KEYS, options={}, recipe=Recipe(batch_size=16, epochs=1))
    assert "\n" not in str(caught.value)


def test_an_optimizer_without_a_form_for_several_runs_is_told():
    rest = settings(DIGITS, {})
    recipe = replace(rest["recipe"], optimizer="lion")  # as a task of the user's own might say
    with pytest.raises(BatchingError, match=r"recipe.optimizer: lion has no .*; expected sgd or"):
        together(DIGITS, digits(), silu, KEYS, options=rest["options"], recipe=recipe)


def test_a_candidate_that_cannot_be_batched_trains_the_plain_way_and_says_why(tmp_path: Path):
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    ended: dict[int, list[Run]] = {1: [], 4: []}
    outcomes = [
        train_candidate(
            training(tmp_path, "own.py", at_once=n), Job("silu(x)", gated=False), ended[n].append
        )
        for n in ended
    ]
    assert [o.state for o in outcomes] == ["complete", "complete"]
    assert [r.curve for r in ended[1]] == [r.curve for r in ended[4]]
    said = outcomes[1].environment["batching"]
    assert said.startswith("one by one: layer 2 (Branching): ") and "\n" not in said
    choice = planned(training(tmp_path, "own.py"), None, None)[1]
    assert choice.at_once == 1
    assert choice.words.startswith("runs one by one; layer 2 (Branching): ")
