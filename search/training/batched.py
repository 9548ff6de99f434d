"""Many runs of one candidate in one program: the rates and seeds of a sweep, an epoch at a time.

    one forward pass, one backward pass and one optimizer step for all members

A member has its own weights, buffers, rate, order of data, augmentation, dropout stream, clipping
and penalties; it follows the trajectory of its own plain run (`search.training.loop`) up to
round-off, and what happens to one leaves the others bitwise as they were. One that diverges leaves
at its step, with the reason that the plain loop gives, and the batch is compacted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from search.records import Epoch, Key, Point, Run
from search.tasks.task import (
    MakeActivation,
    Recipe,
    Split,
    Splits,
    Task,
    cross_entropy,
    splits_to,
)
from search.training.batch_state import Past, batch_state, take_up
from search.training.checkpoints import Stream
from search.training.loop import (
    EVALUATION_BATCH,
    MetricSums,
    count_steps,
    initial_model,
    looks_at,
    loss_problem,
    precision_of,
    test_problem,
)
from search.training.member_batches import MemberBatches
from search.training.optimizers import decays_by_name
from search.training.schedules import rate_factor
from search.training.stacked import BatchingError, naming_layers, stack_models
from search.training.stacked_optimizers import clipped, make_stacked_optimizer


@dataclass(slots=True)
class _Member:
    """One run on its way."""

    key: Key
    curve: list[Point] = field(default_factory=list)
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    """Of the epoch's steps."""
    test: float | None = None
    """The score on the test part."""

    def run(
        self, state: Literal["complete", "diverged", "pruned"], step: int, reason: str = ""
    ) -> Run:
        last = self.curve[-1] if state == "complete" else None
        return Run(
            learning_rate=self.key[0],
            seed=self.key[1],
            state=state,
            reason=reason,
            score=last.score if last else None,
            loss=last.loss if last else None,
            test=self.test if last else None,
            curve=tuple(self.curve),
            steps=step,
            seconds=self.seconds,
        )


def run_together(
    task: Task,
    splits: Splits,
    make_activation: MakeActivation,
    *,
    options: Mapping[str, Any],
    recipe: Recipe,
    keys: Sequence[Key],
    device: torch.device | str = "cpu",
    testing: bool = False,
    stream: Stream | None = None,
) -> Generator[Epoch, Mapping[Key, str] | None, None]:
    """Train the runs of all keys from scratch; an Epoch after every epoch.

    `options` are complete (see `options_with`). Whoever consumes the epochs may end runs by
    `send({key: reason})`: they come back as pruned with the next one. A run's seconds are its
    share of the time: a step's, divided by the members that took it. `testing`, `stream`: see
    `run_epochs`.

    Raises:
        BatchingError: the model or the recipe cannot be batched; the text names the layer.
        Paused: somebody asked for the end; the stream has all that goes on.
    """
    device = torch.device(device)
    splits = splits_to(splits, device)

    def begin(keys: Sequence[Key]) -> Batch:
        return Batch(task, splits, make_activation, options, recipe, keys, device, testing)

    if stream is None:
        yield from _trained(begin(keys), Past())
        return
    batch, past = take_up(begin, keys, stream)
    dropped = yield from past.heard_again(keys)
    if batch is None:
        return
    batch.drop({member.key: "ended" for member in batch.members if member.key not in keys})
    past.ended += batch.drop(dropped)
    stream.begin(lambda: batch_state(batch, past))
    try:
        yield from _trained(batch, past, stream)
        stream.end(past.state())
    finally:
        stream.leave()


def _trained(
    batch: Batch, past: Past, stream: Stream | None = None
) -> Generator[Epoch, Mapping[Key, str] | None, None]:
    while batch.members:
        batch.train_epoch(past.ended, stream)
        points, ended = batch.evaluate()
        told = yield past.add(points, ended)
        past.ended += batch.drop(told or {})
    if past.ended:
        yield past.add({})


class Batch:
    """The state of runs that train together."""

    def __init__(
        self,
        task: Task,
        splits: Splits,
        make_activation: MakeActivation,
        options: Mapping[str, Any],
        recipe: Recipe,
        keys: Sequence[Key],
        device: torch.device,
        testing: bool,
    ):
        if recipe.amp == "float16" and device.type == "cuda":
            raise BatchingError("recipe.amp: float16 scales the loss of each run by itself")
        if recipe.accumulate > 1:
            raise BatchingError("recipe.accumulate: each run splits its batches by itself")
        self.task, self.splits, self.recipe, self.device = task, splits, recipe, device
        self.members = [_Member(key) for key in keys]
        self.testing = testing
        self.step, self.steps = 0, count_steps(len(splits.train.targets), recipe)
        self.done = 0  # batches of the epoch under way
        seeds = [seed for _, seed in keys]
        models = {
            seed: initial_model(task, splits, make_activation, options, seed, device)
            for seed in dict.fromkeys(seeds)
        }
        decays = decays_by_name(models[seeds[0]], recipe)
        self.stacked = stack_models([models[seed] for seed in seeds], seeds, device)
        self.losses = losses_of(task, splits, recipe)
        self.precision = precision_of(recipe.amp, device)
        self.batches = MemberBatches(splits.train, recipe, seeds)
        self._try()
        self.optimizer = make_stacked_optimizer(
            self.stacked.stored,
            [decays[name] for name in self.stacked.names],
            recipe,
            [rate for rate, _ in keys],
        )

    def _try(self) -> None:
        """Find out what cannot be batched, and which parameters have no gradient."""
        splits, count = self.splits.train, len(self.members)
        index = torch.arange(min(2, len(splits.targets))).expand(count, -1)
        with naming_layers(self.stacked.model), self.stacked.untouched():
            self.stacked.model.train()
            self.stacked.streams.seed(0)
            losses = self._forward(splits.inputs[index], splits.targets[index])
            self.stacked.leave_out_unused(losses)
            self.stacked.model.eval()
            with torch.no_grad():
                self.stacked(splits.inputs[:2], shared=True)

    # --- training --------------------------------------------------------------------------------

    def train_epoch(self, ended: list[Run], stream: Stream | None = None) -> None:
        """One epoch, or the rest of it; the runs that diverge in it join those that `ended`."""
        self.stacked.model.train()
        if not self.done:
            self.stacked.streams.seed(self.step)
            self.batches.begin()
        pending: list[Tensor] = []
        began = time.perf_counter()
        last = min(self.batches.full, self.steps - self.step + self.done) - 1
        for number in range(self.done, last + 1):
            pending.append(self._update(*self.batches.take(number)))
            self.done = number + 1
            due = stream is not None and stream.due(self.step)
            if number < last and len(pending) < looks_at(self.device) and not due:
                continue
            if gone := self._look(pending):
                began = self._share(began)
                ended += self._leave(gone)
            if not self.members:
                break
            if stream is not None and due:
                self._share(began)
                stream.keep()
                began = time.perf_counter()
        self._share(began)
        self.done = 0

    def _update(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """One step of all members; their losses before it, (K,)."""
        factor = rate_factor(self.recipe, self.step, self.steps)
        losses, weights = self._forward(inputs, targets), self.optimizer.weights
        gradients = self.stacked.gradients(losses, weights)
        if self.recipe.clip_norm is not None:
            gradients = clipped(gradients, weights, self.recipe.clip_norm)
        self.optimizer.step(self.stacked.stored, gradients, factor)
        self.step += 1
        return losses.detach()

    def _forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        with self.precision():
            outputs, terms = self.stacked(inputs)
            losses = self.losses(outputs, targets)
            for term in terms:
                losses = losses + self.recipe.penalty * term
        return losses

    def _look(self, pending: list[Tensor]) -> dict[int, tuple[int, str]]:
        """Move the pending losses to the members; the step and the reason of those with a bad one,
        by place."""
        values = torch.stack(pending)
        first = self.step - len(pending)
        pending.clear()
        for member, losses in zip(self.members, values.T.tolist(), strict=True):
            member.losses += losses
        if bool((values <= self.recipe.loss_bound).all()):  # a NaN is not
            return {}
        gone = {}
        for place, losses in enumerate(values.T.tolist()):
            for step, loss in enumerate(losses, first + 1):
                if problem := loss_problem(loss, self.recipe.loss_bound, step):
                    gone[place] = (step, problem)
                    break
        return gone

    def _share(self, began: float) -> float:
        """Give each member its share of the time since; the time now."""
        now = time.perf_counter()
        for member in self.members:
            member.seconds += (now - began) / len(self.members)
        return now

    def _leave(self, gone: Mapping[int, tuple[int, str]]) -> list[Run]:
        """The runs of some places as diverged; the batch goes on without them."""
        runs = [self.members[k].run("diverged", *told) for k, told in gone.items()]
        self._compact(gone)
        return runs

    def _compact(self, gone: Mapping[int, object]) -> None:
        kept = [place for place in range(len(self.members)) if place not in gone]
        self.members = [self.members[place] for place in kept]
        if gone and kept:
            index = torch.tensor(kept, device=self.device)
            self.stacked.keep(index)
            self.optimizer.keep(index)
            self.batches.keep(index)

    # --- between epochs --------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self) -> tuple[dict[Key, Point], list[Run]]:
        """The members' points, and the runs that end here: diverged, or complete."""
        if not self.members:
            return {}, []
        found = self._means(self.splits.validation)
        points: dict[Key, Point] = {}
        gone: dict[int, tuple[int, str]] = {}
        for place, (member, (loss, score)) in enumerate(zip(self.members, found, strict=True)):
            if not (math.isfinite(loss) and math.isfinite(score)):
                what = f"validation loss is {loss}, {self.task.metric} {score}"
                gone[place] = (self.step, f"step {self.step}: {what}")
                continue
            train_loss = sum(member.losses) / len(member.losses)
            member.losses.clear()
            member.curve.append(Point(self.step, train_loss, loss, score))
            points[member.key] = member.curve[-1]
        ended = self._leave(gone)
        if self.step >= self.steps:
            ended += self._tested() if self.testing and self.members else []
            ended += [member.run("complete", self.step) for member in self.members]
            self.members = []
        return points, ended

    def _means(self, split: Split) -> list[tuple[float, float]]:
        """Mean loss and score of every member on a split."""
        self.stacked.model.eval()
        sums = [MetricSums(self.task) for _ in self.members]
        parts = (part.split(EVALUATION_BATCH) for part in (split.inputs, split.targets))
        for inputs, targets in zip(*parts, strict=True):
            with self.precision():
                outputs, _ = self.stacked(inputs, shared=True)
            outputs = outputs.float() if self.recipe.amp else outputs
            for each, own in zip(sums, outputs, strict=True):
                each.add(own, targets)
        return [each.means(len(split.targets)) for each in sums]

    def _tested(self) -> list[Run]:
        """Look at the test part, once; the runs that have no score on it."""
        gone: dict[int, tuple[int, str]] = {}
        for place, (_, score) in enumerate(self._means(self.splits.test)):
            self.members[place].test = score
            if problem := test_problem(score, self.task, self.step):
                gone[place] = (self.step, problem)
        return self._leave(gone)

    def drop(self, reasons: Mapping[Key, str]) -> list[Run]:
        """End some runs as pruned."""
        gone = {k: reasons[m.key] for k, m in enumerate(self.members) if m.key in reasons}
        runs = [self.members[k].run("pruned", self.step, reason) for k, reason in gone.items()]
        self._compact(gone)
        return runs


# --- losses of all members -----------------------------------------------------------------------

Losses = Callable[[Tensor, Tensor], Tensor]
"""`losses(outputs, targets)`: (K,) from (K, N, …) and (K, N, …)."""


def losses_of(task: Task, splits: Splits, recipe: Recipe) -> Losses:
    """The task's loss of every member.

    Cross-entropy of all rows at once: 0.1 ms for ten members of 16 rows, where one after the other
    takes 0.7. It counts rows, so targets that torch ignores (negative ones) go in turn.
    """
    smoothing = recipe.label_smoothing
    if task.loss is cross_entropy and int(splits.train.targets.min()) >= 0:

        def by_rows(outputs: Tensor, targets: Tensor) -> Tensor:
            logarithms = outputs.log_softmax(-1)
            losses = -logarithms.gather(-1, targets.unsqueeze(-1)).flatten(1).mean(1)
            if not smoothing:
                return losses
            return (1 - smoothing) * losses - smoothing * logarithms.flatten(1).mean(1)

        return by_rows

    def own(outputs: Tensor, targets: Tensor) -> Tensor:
        return task.loss(outputs, targets, smoothing)

    def in_turn(outputs: Tensor, targets: Tensor) -> Tensor:
        """For a loss that vmap refuses: any loss can be taken of one member after the other."""
        return torch.stack([own(*pair) for pair in zip(outputs, targets, strict=True)])

    return in_turn
