"""A tiny task for everybody's tests: two rings, 256 points to train on, a run of 20 ms.

Also an example of a task of one's own: `find_task("toy_task.py", relative_to=...)`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.tasks.task import MakeActivation, Recipe, Split, Splits, Task


def rings(count: int, seed: int) -> Split:
    """Points (count, 2) around the origin: class 0 at radius 0.5, class 1 at radius 1.5."""
    random = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 2
    angle = torch.rand(count, generator=random) * 2 * math.pi
    radius = 0.5 + targets + 0.2 * torch.randn(count, generator=random)
    inputs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return Split(inputs, targets)


def load(data_root: Path | None, **_: Any) -> Splits:
    """The same points always."""
    return Splits(rings(256, 0), rings(128, 1), rings(128, 2), outputs=2)


def build(make_activation: MakeActivation, splits: Splits, *, width: int) -> nn.Module:
    """Two points in, two logits out, one site."""
    return nn.Sequential(nn.Linear(2, width), make_activation(), nn.Linear(width, splits.outputs))


class Slope(nn.Module):
    """slope · max(x, 0) with a trainable slope and a penalty: what an activation may look like."""

    is_activation = True

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return self.slope * x.clamp_min(0)

    def penalty(self) -> Tensor:
        """The slope's distance from 2, squared."""
        return (self.slope - 2).square()


TASK = Task(
    name="toy",
    title="two rings of points",
    load=load,
    build=build,
    options={"width": 16},
    recipe=Recipe(learning_rate=0.1, batch_size=32, epochs=3),
)
