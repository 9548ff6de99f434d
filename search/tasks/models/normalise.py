"""Normalisation of raw images, as the first layer: a trained model takes raw bytes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(x - mean) / std per channel; images (N, C, H, W) of any dtype → float.

    The constants are buffers, so that they travel in the state dict. Images stay bytes in memory
    and on the device: CIFAR's 50,000 take 154 MB instead of 614.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor):
        super().__init__()
        self.register_buffer("mean", mean.reshape(-1, 1, 1))
        self.register_buffer("std", std.reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised batch, in the dtype of the constants."""
        return (x.to(self.mean.dtype) - self.mean) / self.std


def fit_normalise(images: Tensor) -> Normalise:
    """The layer for these images (N, C, H, W): each channel gets mean 0 and variance 1.

    Moments in float64, a thousand images at a time, so that no float copy of the set is made.
    """
    total = torch.zeros(images.shape[1], dtype=torch.float64, device=images.device)
    squares = torch.zeros_like(total)
    for part in images.split(1000):
        part = part.to(torch.float64)
        total += part.sum((0, 2, 3))
        squares += part.square().sum((0, 2, 3))
    count = images.numel() / images.shape[1]
    mean = total / count
    variance = squares / count - mean.square()
    std = variance.clamp_min(0).sqrt()
    return Normalise(mean.float(), torch.where(std > 0, std, 1.0).float())
