"""Regression outside the training range: what an activation makes of inputs it never saw.

In the spirit of the 2026 AlphaEvolve study of activations, whose fitness is the error on small
synthetic tasks out of distribution. Inputs (a, b, c) fill the cube |·| ≤ 1 in training; they are
validated on the shell 1 < max(|a|, |b|, |c|) ≤ 1.5 and tested on the shell 1.5 < … ≤ 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.tasks.models.mlp import mlp
from search.tasks.models.norms import NORMS
from search.tasks.task import MakeActivation, Recipe, Split, Splits, Task

Function = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

FUNCTIONS: dict[str, Function] = {
    "absolute": lambda a, b, c: np.abs(a),
    "square": lambda a, b, c: a**2,
    "cubic": lambda a, b, c: a**3 - a,
    "sine": lambda a, b, c: np.sin(np.pi * a),
    "decay": lambda a, b, c: np.exp(-a),
    "product": lambda a, b, c: a * b,
    "kinetic": lambda a, b, c: a * (b**2 + c**2) / 2,  # m (v² + u²) / 2, Feynman I.13.4's kind
    "coulomb": lambda a, b, c: a * b / (c + 3) ** 2,  # q₁ q₂ / r², Feynman I.12.2
}

TRAIN_SIZE, HELD_SIZE = 1024, 512
BANDS = ((0.0, 1.0), (1.0, 1.5), (1.5, 2.0))
"""The largest absolute coordinate in training, validation and test."""


def load(data_root: Path | None, *, function: str = "all", **_: Any) -> Splits:
    """Inputs float32 (N, 3); targets float32 (N, functions), each function standardised by its
    mean and deviation in the training part. The same points always (NumPy's RandomState(0))."""
    names = list(FUNCTIONS) if function == "all" else [function]
    random = np.random.RandomState(0)
    points = [_inside(random, TRAIN_SIZE), *(_shell(random, *band) for band in BANDS[1:])]
    values = [np.stack([FUNCTIONS[name](*x.T) for name in names], axis=1) for x in points]
    mean, std = values[0].mean(0), values[0].std(0)
    parts = [
        Split(torch.from_numpy(x).float(), torch.from_numpy((y - mean) / std).float())
        for x, y in zip(points, values, strict=True)
    ]
    return Splits(*parts, outputs=len(names))


def _inside(random: np.random.RandomState, count: int) -> np.ndarray:
    """Points spread evenly over the cube."""
    return random.uniform(-1, 1, (count, 3))


def _shell(random: np.random.RandomState, low: float, high: float) -> np.ndarray:
    """Points whose largest absolute coordinate is spread evenly over (low, high]."""
    x = random.uniform(-1, 1, (HELD_SIZE, 3))
    radius = high - (high - low) * random.uniform(0, 1, (HELD_SIZE, 1))
    return x / np.abs(x).max(1, keepdims=True) * radius


def build(
    make_activation: MakeActivation,
    splits: Splits,
    *,
    depth: int,
    width: int,
    norm: str,
    function: str = "all",
) -> nn.Module:
    """An MLP from (N, 3) to one output a function."""
    return mlp(make_activation, (3,), splits.outputs, depth=depth, width=width, norm=norm)


def mean_square(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean squared error over samples and functions."""
    return F.mse_loss(outputs, targets)


def squares(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Squared errors summed over the batch, one number a function."""
    return {"squares": (outputs - targets).square().sum(0)}


def nrmse(means: Mapping[str, Tensor]) -> float:
    """Root mean squared error in deviations of the training targets, averaged over functions.

    The root is taken for each function: else the fastest growing one alone would decide.
    """
    return float(means["squares"].sqrt().mean())


TASK = Task(
    name="extrapolation",
    title="regression outside the training range",
    load=load,
    build=build,
    options={"function": "all", "depth": 2, "width": 64, "norm": "none"},
    choices={"function": ("all", *FUNCTIONS), "norm": NORMS},
    loss=mean_square,
    metrics=squares,
    metric="nrmse",
    score=nrmse,
    maximize=False,
    recipe=Recipe(
        optimizer="adamw", learning_rate=3e-3, batch_size=128, epochs=50, schedule="cosine"
    ),
)
