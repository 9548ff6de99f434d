"""The training step of all members of a batch: loss, gradients, clipping, optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search.records import Member
from search.tasks.task import Recipe, Splits, Task
from search.training.batched.compiled import CompileError, Gradients, told, traced
from search.training.batched.losses import losses_of
from search.training.batched.optimizers import clipped, make_stacked_optimizer
from search.training.batched.refusing import naming_layers
from search.training.batched.shared_state import refusing_shared_state
from search.training.batched.stacked import stack_models
from search.training.cuda_graph import Recorded
from search.training.optimizers import decays_by_name
from search.training.precision import precision_of
from search.training.schedules import rate_factor


class SharedUpdate:
    """`update(step, inputs, targets)`: one step of all members; their losses before it, (K,).

    models: of the members, in order; the first of them becomes the program.

    Raises:
        BatchingError: what cannot be batched, by its layer.
    """

    def __init__(
        self,
        task: Task,
        splits: Splits,
        recipe: Recipe,
        models: Sequence[nn.Module],
        members: Sequence[Member],
        steps: int,
        device: torch.device,
    ):
        self.recipe, self.steps, self.device = recipe, steps, device
        decays = decays_by_name(models[0], recipe)
        self.stacked = stack_models(models, [seed for _, _, seed in members], device)
        self.losses = losses_of(task, splits, recipe)
        self.precision = precision_of(recipe.amp, device)
        self._try(task, splits, len(members))
        self.optimizer = make_stacked_optimizer(
            self.stacked.stored,
            [decays[name] for name in self.stacked.names],
            recipe,
            [rate for _, rate, _ in members],
        )
        self.gradients: Gradients = self.weighted
        self.recorded: Recorded | None = None

    def _try(self, task: Task, splits: Splits, members: int) -> None:
        """Find out what cannot be batched, and which parameters have no gradient."""
        train = splits.train
        index = torch.arange(min(2, len(train.targets))).expand(members, -1)
        model, shared = self.stacked.model, refusing_shared_state
        with naming_layers(model), shared(model, task.loss), self.stacked.untouched():
            model.train()
            self.stacked.streams.seed(0)
            data = train.inputs[index].to(self.device), train.targets[index].to(self.device)
            losses = self._forward(*data)
            self.stacked.leave_out_unused(losses)
            model.eval()
            with torch.no_grad():
                self.stacked(train.inputs[:2].to(self.device), shared=True)

    def compile(self, inputs: Tensor, targets: Tensor) -> None:
        """Compile the step for batches like this one; where that fails, a line says so."""
        self.stacked.model.train()
        try:
            example = inputs, targets, self.optimizer.weights
            self.gradients = traced(self.stacked, self.weighted, example)
        except CompileError as error:
            told(error)

    def record(self) -> None:
        """Steps from here on as one CUDA graph, where the recipe wants that."""
        if self.recipe.compile == "cudagraphs" and self.device.type == "cuda":
            self.recorded = Recorded(self.whole, self.stacked.streams.generators)

    def __call__(self, step: int, inputs: Tensor, targets: Tensor) -> Tensor:
        """One step of all members; their losses before it, (K,)."""
        factor = rate_factor(self.recipe, step, self.steps)
        return (self.recorded or self.whole)(inputs, targets, factor)

    def whole(self, inputs: Tensor, targets: Tensor, factor: float | Tensor) -> Tensor:
        """The step at a factor of the schedule."""
        losses, gradients = self.gradients(inputs, targets, self.optimizer.weights)
        self.optimizer.step(self.stacked.stored, gradients, factor)
        return losses

    def weighted(
        self, inputs: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The members' losses (K,), and the gradients, weighted and clipped."""
        losses = self._forward(inputs, targets)
        gradients = self.stacked.gradients(losses, weights)
        if self.recipe.clip_norm is not None:
            gradients = clipped(gradients, weights, self.recipe.clip_norm)
        return losses.detach(), gradients

    def _forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        with self.precision():
            outputs, terms = self.stacked(inputs)
            losses = self.losses(outputs, targets)
            for term in terms:
                losses = losses + self.recipe.penalty * term
        return losses

    def keep(self, index: Tensor) -> None:
        """Go on with some members, uncompiled: what was compiled is for another size."""
        self.stacked.keep(index)
        self.optimizer.keep(index)
        self.gradients = self.weighted
        self.record()
