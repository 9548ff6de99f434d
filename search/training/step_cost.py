"""What an activation costs in training, against another one, measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from search.tasks.task import MakeActivation, Recipe, Splits, Task, splits_to
from search.training.augment import augment
from search.training.loop import initial_model, make_update
from search.training.streams import AUGMENTATION, generator

WARM_UP = 5
"""Steps before the clock: allocation, compiled kernels, the optimizer's state."""


def measure_step_cost(
    task: Task,
    splits: Splits,
    options: Mapping[str, Any],
    recipe: Recipe,
    make_activation: MakeActivation,
    make_reference: MakeActivation,
    steps: int = 30,
    device: torch.device | str = "cpu",
) -> float:
    """Median ratio of the seconds of a training step with one activation against another.

    The two models take turns in one process, and the order turns every time, so that a busy
    machine slows both. Rate 0: neither diverges.
    """
    device = torch.device(device)
    splits = splits_to(splits, device)
    inputs = splits.train.inputs[: recipe.batch_size]
    inputs = augment(inputs, recipe.augmentation, generator(0, AUGMENTATION))
    targets = splits.train.targets[: recipe.batch_size]
    clocks: list[Callable[[], float]] = []
    for make in (make_activation, make_reference):
        model = initial_model(task, splits, make, options, seed=0, device=device).train()
        update = make_update(task, model, recipe, learning_rate=0.0, steps=1)
        clocks.append(lambda update=update: _seconds(lambda: update(0, inputs, targets), device))
    ratios = []
    for turn in range(WARM_UP + steps):
        pair = {index: clocks[index]() for index in ((0, 1) if turn % 2 else (1, 0))}
        ratios.append(pair[0] / pair[1])
    return statistics.median(ratios[WARM_UP:])


def _seconds(step: Callable[[], object], device: torch.device) -> float:
    """Wall time of one step, with what it queued on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
