"""Augmentation of batches of images, (N, C, H, W) of any dtype, without a loop over samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from search.errors import TaskError

PADDING = 4
"""Pixels of zeros on each side from which a crop is taken, as He et al. 2015 did for CIFAR."""


def augment(images: Tensor, names: tuple[str, ...], generator: Generator) -> Tensor:
    """The batch with each named augmentation, drawn per image from a generator of the CPU.

    The generator lives on the CPU so that every device sees the same draws.
    """
    return augment_groups(images[None], names, [generator])[0] if names else images


def augment_groups(
    images: Tensor, names: tuple[str, ...], generators: Sequence[Generator]
) -> Tensor:
    """Batches (G, N, C, H, W), each augmented as `augment` does with its own generator."""
    if names and images.ndim != 5:
        shape = tuple(images.shape[2:])
        raise TaskError(f"recipe.augmentation: got samples of shape {shape}; expected (C, H, W)")
    groups, count = images.shape[:2]
    images = images.flatten(0, 1)
    if "flip" in names:
        drawn = [torch.rand(count, generator=generator) < 0.5 for generator in generators]
        images = flip(images, torch.cat(drawn))
    if "crop" in names:
        size = (2, count)
        drawn = [torch.randint(2 * PADDING + 1, size, generator=g) for g in generators]
        images = crop(images, torch.cat(drawn, 1))
    return images.unflatten(0, (groups, count))


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """The chosen (N,) images mirrored left to right."""
    chosen = chosen.to(images.device).view(-1, 1, 1, 1)
    return torch.where(chosen, images.flip(-1), images)


def crop(images: Tensor, offsets: Tensor) -> Tensor:
    """Each image moved by its offsets (2, N) in 0 … 2·PADDING, rows then columns; PADDING keeps
    it in place, and zeros come in from outside."""
    *_, height, width = images.shape
    padded = F.pad(images, (PADDING,) * 4)
    top, left = offsets.to(images.device).unsqueeze(-1)
    rows = (top + torch.arange(height, device=images.device))[:, :, None]
    columns = (left + torch.arange(width, device=images.device))[:, None, :]
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[sample, :, rows, columns].permute(0, 3, 1, 2)
