"""The multilayer perceptron."""

from __future__ import annotations

import math

from torch import nn

from search.tasks.models.norms import norm_1d
from search.tasks.task import MakeActivation


def mlp(
    make_activation: MakeActivation,
    shape: tuple[int, ...],
    outputs: int,
    *,
    depth: int,
    width: int,
    norm: str = "none",
) -> nn.Module:
    """`depth` blocks of Linear(width), norm, activation, then a Linear: (N, *shape) → (N, outputs).

    With norm "layernorm" and width 512 these are the blocks of GoLU's small study
    (arXiv 2502.03654).
    """
    layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    features = math.prod(shape)
    for _ in range(depth):
        layers += [nn.Linear(features, width), *norm_1d(norm, width), make_activation()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, outputs))
