"""What tests of checkpoints share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.records import Run
from search.tasks.digits import TASK as DIGITS
from search.tasks.task import Recipe, Splits, Task, options_with
from search.training.checkpoints import Checkpoints, Directory, Keeping, State
from tests.batched_cases import GATED, digits

KEYS = ((0.01, 0), (0.03, 0), (0.03, 7))


def dropping(make: Callable[[], nn.Module], splits: Splits, **_: Any) -> nn.Module:
    first = [nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), make(), nn.Dropout(0.5)]
    return nn.Sequential(*first, nn.Linear(16, splits.outputs), make())


class Counting(nn.Module):
    """A buffer that no state dict has, and dropout by torch's own generator."""

    calls: Tensor

    def __init__(self, make: Callable[[], nn.Module]):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), make(), nn.Dropout2d(0.3))
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layers(x[:, :, None])[..., 0] / self.calls if x.ndim == 2 else self._images(x)

    def _images(self, x: Tensor) -> Tensor:
        return self.layers[:3](x) * (1 + 1 / self.calls)


DROPPING = Task("dropping", lambda root: digits(80), dropping)
COUNTING = Task("counting", lambda root: digits(80), lambda make, splits: Counting(make))
# name: task, options, activation, recipe; five steps an epoch.
CASES: dict[str, tuple[Task, dict[str, Any], str, Recipe]] = {
    "momentum, cosine, dropout, BatchNorm": (
        DROPPING,
        {},
        GATED.format("per channel"),
        Recipe(batch_size=16, epochs=3, schedule="cosine", warmup=0.3, nesterov=True),
    ),
    "AdamW, multistep, clipping, augmentation": (
        DIGITS,
        options_with(DIGITS, {"model": "cnn"}),
        "gelu",
        Recipe(
            optimizer="adamw",
            batch_size=16,
            epochs=3,
            schedule="multistep",
            weight_decay=0.1,
            clip_norm=0.5,
            augmentation=("flip", "crop"),
            label_smoothing=0.1,
        ),
    ),
    "a penalty, no momentum, cut within an epoch": (
        DROPPING,
        {},
        "velu",
        Recipe(batch_size=16, epochs=4, momentum=0.0, weight_decay=0.1, max_steps=13),
    ),
    "a buffer that is not kept": (COUNTING, {}, "mish", Recipe(batch_size=16, epochs=2)),
    "bfloat16": (DROPPING, {}, "silu", Recipe(batch_size=16, epochs=2, amp="bfloat16")),
}


class Every:
    """A folder that keeps a copy of itself after every write: where a kill may leave it."""

    def __init__(self, path: Path):
        self.now, self.copies = Directory(path / "now"), path / "copies"

    def names(self) -> list[str]:
        return self.now.names()

    def read(self, name: str) -> State | None:
        return self.now.read(name)

    def write(self, name: str, state: State) -> None:
        self.now.write(name, state)
        number = len(list(self.copies.glob("*")))
        shutil.copytree(self.now.path, self.copies / f"{number:03d}")

    def each(self) -> Iterator[Directory]:
        return map(Directory, sorted(self.copies.iterdir()))


def kept(store: Any, folder: Path, say: list[str] | None = None, **every: Any) -> Checkpoints:
    keeping = Keeping(folder, **{"steps": None, "seconds": None, **every})
    return Checkpoints(store, keeping, "about", (say if say is not None else []).append)


def same(a: Run, b: Run) -> bool:
    """Equal in all but the time they took."""
    return replace(a, seconds=0.0) == replace(b, seconds=0.0)
