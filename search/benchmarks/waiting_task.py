"""A task whose runs wait: so many seconds each, and next to no work.

With it a search shows what it does itself: proposing, launching, writing down.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.tasks.task import MakeActivation, Recipe, Split, Splits, Task

POINTS = 8


def load(data_root: Path | None, **_: Any) -> Splits:
    """Eight points in two classes; those of the validation part are all above 1."""
    inputs, targets = torch.linspace(-1, 1, POINTS).reshape(-1, 1), torch.arange(POINTS) % 2
    points = Split(inputs, targets)
    return Splits(points, Split(inputs + 3, targets), points, outputs=2)


class Waits(nn.Module):
    """One site. What sees the validation part waits: a run of one epoch does so once. Steps, of
    which the cost of an activation takes many, do not."""

    def __init__(self, activation: nn.Module, seconds: float):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 4), activation, nn.Linear(4, 2))
        self.wait = partial(time.sleep, seconds)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 2) of points (N, 1)."""
        if x.min() > 1:
            self.wait()
        return self.layers(x)


def build(make_activation: MakeActivation, splits: Splits, *, seconds: float) -> nn.Module:
    """A run of `seconds`."""
    return Waits(make_activation(), seconds)


TASK = Task(
    name="waiting",
    title="runs that wait",
    load=load,
    build=build,
    options={"seconds": 10.0},
    recipe=Recipe(batch_size=POINTS, epochs=1),
)
