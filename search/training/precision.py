"""Mixed precision, as the recipe's `amp` says: autocast, and for float16 loss scaling."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch.amp.grad_scaler import GradScaler

from search.tasks.task import Recipe


def precision_of(
    amp: str | None, device: torch.device
) -> Callable[[], AbstractContextManager[object]]:
    """Makes the context of a forward pass: autocast to `amp`, or nothing."""
    return partial(torch.autocast, device.type, getattr(torch, amp)) if amp else nullcontext


def make_scaler(recipe: Recipe, device: torch.device) -> GradScaler:
    """Loss scaling, at work only for float16 on a GPU."""
    return GradScaler(enabled=recipe.amp == "float16" and device.type == "cuda")
