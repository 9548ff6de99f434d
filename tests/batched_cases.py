"""What tests of runs that train together share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from search.activation import Activation
from search.records import Key, Run
from search.tasks.digits import TASK as DIGITS
from search.tasks.task import (
    MakeActivation,
    Split,
    Splits,
    Task,
    find_task,
    options_with,
    recipe_with,
)
from search.tasks.text import TASK as TEXT
from search.training.batched import run_together
from search.training.job import Training
from search.training.loop import run_epochs
from search.training.rates import Grid
from search.training.sweep import drain

HERE = Path(__file__).parent
CLOSE = 64 * torch.finfo(torch.float32).eps
"""Relative, of losses after a dozen steps: some roundings a step, which so few amplify little."""
TOY = find_task("toy_task.py", HERE)
KEYS = ((0.003, 0), (0.03, 0), (0.003, 7), (0.03, 7))
GATED = "(a - b) * x * sigmoid(s * x) + b * x where a = 1 per layer, b = 0 per layer, s = 1 {}"


def digits(count: int = 96) -> Splits:
    """Random numbers in the shape of digits."""
    random = torch.Generator().manual_seed(0)

    def part(size: int) -> Split:
        inputs = torch.randn(size, 1, 8, 8, generator=random)
        return Split(inputs, torch.randint(10, (size,), generator=random))

    return Splits(part(count), part(40), part(2), outputs=10)


def characters() -> Splits:
    random = torch.Generator().manual_seed(0)
    parts = [torch.randint(20, (size, 9), generator=random) for size in (24, 6, 2)]
    return Splits(*(Split(p[:, :-1], p[:, 1:]) for p in parts), outputs=20)


# name: task, data, options, activation, recipe
CASES: dict[str, tuple[Task, Splits, dict[str, Any], str, dict[str, Any]]] = {
    "mlp": (DIGITS, digits(), {}, "golu", {}),
    "mlp, nesterov and decay": (
        DIGITS,
        digits(),
        {"norm": "layernorm"},
        "gelu",
        {"nesterov": True, "weight_decay": 0.05, "decay": "all"},
    ),
    "mlp, AdamW": (
        DIGITS,
        digits(),
        {},
        "silu",
        {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 0.5, "label_smoothing": 0.1},
    ),
    "mlp, BatchNorm": (DIGITS, digits(), {"norm": "batchnorm"}, "mish", {"momentum": 0.0}),
    "mlp, a parameter per layer": (DIGITS, digits(), {}, GATED.format("per layer"), {}),
    "mlp, a parameter per channel": (
        DIGITS,
        digits(),
        {},
        GATED.format("per channel"),
        {"activation_weight_decay": 0.1},
    ),
    "mlp, a statistic and channels": (
        DIGITS,
        digits(),
        {},
        "x * sigmoid(s * x) * (1 + 0.1 * tanh(std(x))) where s = 1 per channel",
        {},
    ),
    "mlp, a penalty": (DIGITS, digits(), {}, "velu", {}),
    "cnn, BatchNorm": (
        DIGITS,
        digits(48),
        {"model": "cnn"},
        GATED.format("per channel"),
        {"augmentation": ["flip", "crop"], "epochs": 1},
    ),
    "gpt": (
        TEXT,
        characters(),
        {"context": 8, "layers": 1, "heads": 2, "width": 16},
        "gelu",
        {"batch_size": 8, "epochs": 1},
    ),
    "gpt, gated": (
        TEXT,
        characters(),
        {"context": 8, "layers": 1, "heads": 2, "width": 16, "ffn": "gated"},
        "u * x * sigmoid(b * x) where b = 1 per layer",
        {"batch_size": 8, "epochs": 1},
    ),
}


def plain(task: Task, splits: Splits, make: MakeActivation, keys: Sequence[Key], **rest: Any):
    return {
        key: drain(run_epochs(task, splits, make, learning_rate=key[0], seed=key[1], **rest))
        for key in keys
    }


def together(task: Task, splits: Splits, make: MakeActivation, keys: Sequence[Key], **rest: Any):
    epochs = list(run_together(task, splits, make, keys=keys, **rest))
    return {(r.learning_rate, r.seed): r for epoch in epochs for r in epoch.ended}


def settings(task: Task, options: dict[str, Any], **recipe: Any) -> dict[str, Any]:
    base = {"batch_size": 16, "epochs": 2, "schedule": "cosine", "warmup": 0.2}
    made = recipe_with(task.recipe, base | recipe)
    return {"options": options_with(task, options), "recipe": made}


def distance(a: Run, b: Run) -> float:
    """The largest relative difference of two runs' losses."""
    pairs = zip(a.curve, b.curve, strict=True)
    numbers = [((p.train_loss, q.train_loss), (p.loss, q.loss)) for p, q in pairs]
    return max(abs(x - y) / abs(x) for point in numbers for x, y in point)


def silu() -> nn.Module:
    return Activation("x * sigmoid(x)")


def training(folder: Path = HERE, task: str = "toy_task.py", **changes: Any) -> Training:
    grid = Grid(rates=(0.03, 0.3), default=0.3, seeds=(0, 1), extend=True)
    shared = {"options": {}, "recipe": {}, "data_root": None, "grid": grid}
    return Training(task, folder, **{**shared, **changes})


OWN = """
import torch
from torch import nn
from search.tasks.task import Recipe, Split, Splits, Task

class Branching(nn.Module):
    def forward(self, x):
        return x if x.mean() > 1000 else 2 * x

def load(root):
    torch.manual_seed(0)
    parts = [Split(torch.randn(n, 4), torch.randint(2, (n,))) for n in (64, 16, 16)]
    return Splits(*parts, outputs=2)

def build(make, splits):
    return nn.Sequential(nn.Linear(4, 8), make(), Branching(), nn.Linear(8, 2))

TASK = Task(name="own", load=load, build=build, recipe=Recipe(batch_size=16, epochs=2))
"""
