"""What tests of the plain loop share."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from search.records import Point, Run
from search.tasks.task import Split, Splits, Task
from search.training.loop import run_epochs, train
from tests.toy_task import TASK

CPU = torch.device("cpu")
SPLITS = TASK.load(Path())
VELU = "x * sigmoid(lam * x) where lam = 1 per layer penalty (lam - 3) ** 2"


def toy(
    make: Any = nn.ReLU, task: Task = TASK, rate: float = 0.1, seed: int = 0, **recipe: Any
) -> Run:
    """A run of the toy task, with parts of its recipe replaced."""
    changed = replace(task.recipe, **recipe)
    return train(
        task, SPLITS, make, options=task.options, recipe=changed, learning_rate=rate, seed=seed
    )


def epochs(make: Any = nn.ReLU, **recipe: Any) -> Generator[Point, str | None, Run]:
    return run_epochs(
        TASK,
        SPLITS,
        make,
        options=TASK.options,
        recipe=replace(TASK.recipe, **recipe),
        learning_rate=0.1,
        seed=0,
    )


def timeless(run: Run) -> Run:
    return replace(run, seconds=0.0)


def numbered(count: int) -> Splits:
    part = Split(torch.arange(count), torch.arange(count))
    return Splits(part, part, part)
