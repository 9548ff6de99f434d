"""Normalisation layers by name, in the one place that knows the names."""

from __future__ import annotations

from torch import nn

NORMS = ("none", "layernorm", "batchnorm")


def norm_1d(norm: str, width: int) -> list[nn.Module]:
    """The layers that normalise (N, width): none or one."""
    rows = {"none": [], "layernorm": [nn.LayerNorm], "batchnorm": [nn.BatchNorm1d]}
    return [make(width) for make in rows[norm]]


def norm_2d(norm: str, channels: int) -> list[nn.Module]:
    """The layers that normalise (N, channels, H, W); `layernorm` is over channels and pixels."""
    match norm:
        case "batchnorm":
            return [nn.BatchNorm2d(channels)]
        case "layernorm":
            return [nn.GroupNorm(1, channels)]
        case _:
            return []
