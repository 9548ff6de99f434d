"""What an activation costs in training, measured side by side with what it is compared with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from search.tasks.task import MakeActivation, Recipe, Splits, Task, splits_to
from search.training.augment import augment
from search.training.loop import initial_model
from search.training.step import make_update
from search.training.streams import AUGMENTATION, generator

WARM_UP = 5
"""Steps before the clock: allocation, compiled kernels, the optimizer's state."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """Medians over the turns of one comparison."""

    relative: float
    """Seconds of a training step relative to the same model with ReLU."""
    share: float
    """Of a step's time, what the model saves that has the identity for an activation."""
    composed_share: float
    """The same share with the formula composed of torch operations (kernel "composed")."""
    memory: float
    """Bytes that a step keeps for its backward pass, relative to the same model with ReLU."""


def measure_step_cost(
    task: Task,
    splits: Splits,
    options: Mapping[str, Any],
    recipe: Recipe,
    make_activation: MakeActivation,
    make_composed: MakeActivation,
    steps: int = 30,
    device: torch.device | str = "cpu",
) -> StepCost:
    """Times a training step of one model with the activation, composed, with ReLU, and without.

    The models take turns in one process, and the order turns every time, so that a busy machine
    slows all alike. Rate 0: none diverges.
    """
    device, recipe = torch.device(device), replace(recipe, compile="off")
    splits = splits_to(splits, device)
    inputs = splits.train.inputs[: recipe.batch_size].to(device)
    inputs = augment(inputs, recipe.augmentation, generator(0, AUGMENTATION))
    targets = splits.train.targets[: recipe.batch_size].to(device)
    clocks: list[Callable[[], float]] = []
    kept: list[int] = []
    for make in (make_activation, make_composed, nn.ReLU, nn.Identity):
        model = initial_model(task, splits, make, options, seed=0, device=device).train()
        kept.append(kept_bytes(model, inputs))
        update = make_update(task, model, recipe, learning_rate=0.0, steps=1)
        clocks.append(lambda update=update: _seconds(lambda: update(0, inputs, targets), device))
    turns = [_turn(clocks, turn) for turn in range(WARM_UP + steps)][WARM_UP:]
    return StepCost(
        relative=statistics.median(own / relu for own, _, relu, _ in turns),
        share=max(0.0, statistics.median(1 - bare / own for own, *_, bare in turns)),
        composed_share=max(0.0, statistics.median(1 - bare / by for _, by, _, bare in turns)),
        memory=kept[0] / kept[2],
    )


def kept_bytes(model: nn.Module, inputs: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass beside the parameters and the inputs,
    each piece of storage once: what limits the batch on a GPU."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (inputs, *model.parameters())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(inputs)  # alive until all is counted: no address is used twice
    del outputs
    return sum(kept.values())


def _turn(clocks: list[Callable[[], float]], turn: int) -> list[float]:
    """Seconds of every clock, started at another one each turn."""
    order = [(turn + k) % len(clocks) for k in range(len(clocks))]
    seconds = {k: clocks[k]() for k in order}
    return [seconds[k] for k in range(len(clocks))]


def _seconds(step: Callable[[], object], device: torch.device) -> float:
    """Wall time of one step, with what it queued on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
