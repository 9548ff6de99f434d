"""What tests of tasks share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from search.errors import TaskError

ROOT = Path(__file__).resolve().parent.parent


class Counted:
    """Makes ReLUs and counts them."""

    def __init__(self) -> None:
        self.sites = 0

    def __call__(self) -> nn.Module:
        self.sites += 1
        return nn.ReLU()


def problems(call: Callable[[], object]) -> list[str]:
    """The lines of the TaskError that a call raises."""
    with pytest.raises(TaskError) as caught:
        call()
    assert all("\n" not in line for line in caught.value.problems)
    return list(caught.value.problems)


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
