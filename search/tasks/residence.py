"""Whether a data set lives on the device that trains, whole, or is streamed to it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

RESIDENT = 0.25
"""Share of a device's memory up to which a training part lives there: several trials may share a
GPU, and each has its own copy. CIFAR-10's 150 MB do everywhere."""


def too_large(tensors: Sequence[Tensor], device: torch.device) -> bool:
    """Whether they take more of the device's memory than a training part may.

    On a CPU a tensor is there already, unless its memory is a file's (`torch.from_file`,
    `torch.load(mmap=True)`): then this says whether it can stay in memory once read.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return size > RESIDENT * memory_of(device)


def memory_of(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
