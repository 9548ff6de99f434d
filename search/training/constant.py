"""The loss that needs no network: a gate asks whether a candidate beats it."""

from __future__ import annotations

import torch
from torch import Tensor

from search.tasks.task import Splits, Task
from search.training.optimizers import without_compiler

MOST_TARGETS = 10_000
"""Samples of a part that are looked at."""


def constant_loss(task: Task, splits: Splits) -> float:
    """The validation loss of the best prediction that ignores its input; compare it with a
    Run's `loss`.

    Best for the training targets: for classes the logarithms of their frequencies (where the
    cross-entropy is least), for numbers their mean (where the squared error is), moved on by
    L-BFGS for a task with another loss.
    """
    fitted, judged = (
        part.targets[:MOST_TARGETS].cpu() for part in (splits.train, splits.validation)
    )
    constant = _start(fitted, splits.outputs).requires_grad_()
    without_compiler()
    optimizer = torch.optim.LBFGS([constant], line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = _loss(task, constant, fitted)
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return _loss(task, constant, judged).item()


def _loss(task: Task, constant: Tensor, targets: Tensor) -> Tensor:
    """The task's loss when every target gets the same prediction."""
    shape = targets.shape[:1] if targets.is_floating_point() else targets.shape
    return task.loss(constant.expand(*shape, *constant.shape), targets, 0.0)


def _start(targets: Tensor, outputs: int) -> Tensor:
    """The constant to start from: log-frequencies (classes,), or means of the targets' shape."""
    if targets.is_floating_point():
        return targets.mean(0)
    counts = torch.bincount(targets.flatten(), minlength=outputs).double()
    # Half a sample for a class that never occurs, whose logarithm would be -inf.
    return (counts.clamp_min(0.5) / counts.sum()).log().float()
