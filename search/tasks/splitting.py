"""Deterministic splits: the same samples in every run, on every machine, for every seed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from search.errors import TaskError
from search.tasks.task import Split


def fixed_permutation(count: int) -> Tensor:
    """The one permutation of `count` samples, int64.

    From NumPy's RandomState(0), whose stream is frozen for ever (NEP 19); no run's seed enters.
    """
    return torch.from_numpy(np.random.RandomState(0).permutation(count))


def carve(
    inputs: Tensor, targets: Tensor, *, validation_size: int, train_size: int
) -> tuple[Split, Split]:
    """Training and validation parts of one official training part, disjoint.

    The validation part comes first in the fixed permutation, so it is the same for every
    train_size, and a smaller training part is contained in a larger one. train_size 0 means all.
    """
    left = len(inputs) - validation_size
    if left < 1 or train_size > left:
        raise TaskError(
            f"options.train_size: got train_size {train_size} and validation_size "
            f"{validation_size}; expected at most {len(inputs)} samples together"
        )
    order = fixed_permutation(len(inputs))
    held = order[:validation_size]
    kept = order[validation_size : validation_size + (train_size or left)]
    return Split(inputs[kept], targets[kept]), Split(inputs[held], targets[held])
