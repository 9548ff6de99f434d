"""An epoch of the plain loop: which batches it has, its steps, and the losses that end it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from search.tasks.task import Recipe, Splits
from search.training.augment import augment
from search.training.step import Update
from search.training.streaming import streamed


def full_batches(samples: int, recipe: Recipe) -> int:
    """Batches of an epoch: the full ones, or the only one.

    The last, smaller batch of an epoch is left out; each epoch leaves out others.
    """
    return max(1, samples // recipe.batch_size)


def count_steps(samples: int, recipe: Recipe) -> int:
    """Steps of the whole run: the batches of every epoch, at most `max_steps`."""
    steps = full_batches(samples, recipe) * recipe.epochs
    return min(steps, recipe.max_steps or steps)


def epoch_batches(
    splits: Splits,
    recipe: Recipe,
    order: torch.Generator,
    draws: torch.Generator,
    at_most: int,
    device: torch.device,
    done: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The epoch's batches (inputs, targets) in a fresh order, augmented; without the first
    `done`, for which nothing is drawn."""
    split = splits.train
    count = len(split.targets)
    numbers = torch.randperm(count, generator=order).to(split.targets.device)
    chosen = numbers.split(recipe.batch_size)[done : min(full_batches(count, recipe), at_most)]
    if splits.stream:
        batches = streamed(split, chosen, device)
    else:
        batches = ((split.inputs[batch], split.targets[batch]) for batch in chosen)
    for inputs, targets in batches:
        yield augment(inputs, recipe.augmentation, draws), targets


@dataclass(frozen=True, slots=True)
class Keep:
    """What is done between two steps."""

    due: Callable[[int], bool]
    """`due(step)`: whether it is to be done after so many steps of the run."""
    write: Callable[[list[float]], None]
    """`write(losses)` does it, given the epoch's losses so far."""


def train_epoch(
    update: Update,
    batches: Iterable[tuple[Tensor, Tensor]],
    step: int,
    bound: float,
    device: torch.device,
    losses: Sequence[float] = (),
    keep: Keep | None = None,
) -> tuple[list[float], str]:
    """The losses of the epoch's steps, up to the first that diverged and why it did.

    losses: of its steps so far, where it was left in its middle.
    """
    together = looks_at(device)
    found, pending = list(losses), list[Tensor]()
    for inputs, targets in batches:
        pending.append(update(step + len(found) + len(pending), inputs, targets))
        due = keep is not None and keep.due(step + len(found) + len(pending))
        if len(pending) < together and not due:
            continue
        if problem := _collect(pending, found, step, bound):
            return found, problem
        if keep is not None and due:
            keep.write(found)
    return found, _collect(pending, found, step, bound)


def _collect(pending: list[Tensor], losses: list[float], step: int, bound: float) -> str:
    """Move the pending losses to `losses`, until one is bad; what is wrong with that one."""
    values = torch.stack(pending).tolist() if pending else []
    pending.clear()
    for loss in values:
        losses.append(loss)
        if problem := loss_problem(loss, bound, step + len(losses)):
            return problem
    return ""


def looks_at(device: torch.device) -> int:
    """How many losses are looked at together: each one on a CPU; on a GPU 32, as each look waits
    for all that is queued."""
    return 1 if device.type == "cpu" else 32


def loss_problem(loss: float, bound: float, step: int) -> str:
    """Why a training loss ends its run as diverged, or nothing."""
    if not math.isfinite(loss):
        return f"step {step}: loss is {loss}"
    return f"step {step}: loss is {loss:.4g}, above the bound {bound:g}" if loss > bound else ""
