"""The training step of one model: loss, gradients, clipping, optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from search.tasks.task import Recipe, Task
from search.training.cuda_graph import Recorded
from search.training.optimizers import make_optimizer, penalties, set_rate
from search.training.precision import make_scaler, precision_of
from search.training.schedules import rate_factor
from search.training.shards import ALONE, Backward, Shards, in_parts

Update = Callable[[int, Tensor, Tensor], Tensor]
"""`update(step, inputs, targets)`: one training step; the loss before it, detached."""

LossOf = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""`loss_of(forward, inputs, targets)`: a batch's mean loss with the activations' penalties."""


def make_update(
    task: Task,
    model: nn.Module,
    recipe: Recipe,
    learning_rate: float,
    steps: int,
    optimizer: Optimizer | None = None,
    scaler: GradScaler | None = None,
    shards: Shards = ALONE,
) -> Update:
    """The training step of a model: schedule, loss with the activations' penalties, gradients,
    clipping, optimizer. Loss scaling only for float16 on a GPU. Compiled as the recipe says, except
    where several processes share it: the first step then takes as long as the compiler does."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    recording = is_recorded(recipe, device, shards)
    optimizer = optimizer or make_optimizer(model, recipe, learning_rate, recording)
    scaler = scaler or make_scaler(recipe, device)
    loss_of = _loss(task, model, recipe, device)
    if recipe.compile == "inductor" and shards.world == 1:  # the same draws of random layers
        loss_of = torch.compile(loss_of, dynamic=False, options={"fallback_random": True})
    backward = _backward(model, loss_of, scaler, shards, recipe.accumulate)
    whole = _whole_step(parameters, recipe, optimizer, scaler, backward)
    once = Recorded(whole) if recording else whole

    def update(step: int, inputs: Tensor, targets: Tensor) -> Tensor:
        return once(inputs, targets, learning_rate * rate_factor(recipe, step, steps))

    return update


def is_recorded(recipe: Recipe, device: torch.device, shards: Shards) -> bool:
    """Whether a step is a CUDA graph; loss scaling asks the CPU in its middle."""
    on_gpu = device.type == "cuda" and recipe.amp != "float16"
    return recipe.compile == "cudagraphs" and on_gpu and shards.world == 1


def _loss(task: Task, model: nn.Module, recipe: Recipe, device: torch.device) -> LossOf:
    precision = precision_of(recipe.amp, device)
    terms = penalties(model) if recipe.penalty else []

    def loss_of(forward: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        with precision():
            loss = task.loss(forward(inputs), targets, recipe.label_smoothing)
            for penalty in terms:
                loss = loss + recipe.penalty * penalty()
        return loss

    return loss_of


def _backward(
    model: nn.Module, loss_of: LossOf, scaler: GradScaler, shards: Shards, pieces: int
) -> Backward:
    if shards.world > 1 or pieces > 1:
        return in_parts(model, loss_of, scaler, shards, pieces)

    def undivided(inputs: Tensor, targets: Tensor) -> Tensor:
        loss = loss_of(model, inputs, targets)
        scaler.scale(loss).backward()
        return loss.detach()

    return undivided


def _whole_step(
    parameters: Sequence[nn.Parameter],
    recipe: Recipe,
    optimizer: Optimizer,
    scaler: GradScaler,
    backward: Backward,
) -> Callable[[Tensor, Tensor, float | Tensor], Tensor]:
    def whole(inputs: Tensor, targets: Tensor, rate: float | Tensor) -> Tensor:
        set_rate(optimizer, rate)
        for parameter in parameters:  # 1 µs; optimizer.zero_grad takes 30
            parameter.grad = None
        loss = backward(inputs, targets)
        if recipe.clip_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        return loss

    return whole
