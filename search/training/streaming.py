"""Batches of a data set that does not live on the device: gathered by DataLoader's workers ahead of
the step, and copied while it runs."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search.environment import available_cpus
from search.tasks.task import Split

WORKERS = 2
"""At most; gathering is memory traffic, and one worker keeps up with most models."""
AHEAD = 2
"""Batches that each worker holds ready."""
SHARED = Path("/dev/shm")
"""Where batches pass between processes; containers often give it 64 MiB."""


class Gathered:
    """A split by batches: item i is the samples with the numbers `numbers[i]`, of any shape."""

    def __init__(self, split: Split, numbers: Sequence[Tensor]):
        self.split, self.numbers = split, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        chosen = self.numbers[item]
        return self.split.inputs[chosen], self.split.targets[chosen]


def streamed(
    split: Split, numbers: Sequence[Tensor], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets on the device, batch by batch; `numbers` are on the split's."""
    from torch.utils.data import DataLoader  # 40 ms, for who streams alone

    workers = workers_for(split, numbers)
    several: dict[str, Any] = {}
    if workers:  # forked: they read the parent's tensors in place
        several = {"prefetch_factor": AHEAD, "multiprocessing_context": "fork"}
    loader = DataLoader(
        Gathered(split, numbers),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # torch's own would be moved on, and dropout with it
        **several,
    )
    for inputs, targets in loader:
        yield inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def workers_for(split: Split, numbers: Sequence[Tensor]) -> int:
    """How many workers there are processors for, and room for what they hold ready."""
    if "fork" not in multiprocessing.get_all_start_methods() or not numbers:
        return 0
    most = min(WORKERS, available_cpus() - 1)
    one = split.inputs[:1], split.targets[:1]
    batch = numbers[0].numel() * sum(part.numel() * part.element_size() for part in one)
    free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else 0
    return max(0, min(most, free // (2 * (AHEAD + 1) * batch)))
