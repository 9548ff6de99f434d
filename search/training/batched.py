"""Many runs in one program: the rates and seeds of a sweep, or of several, an epoch at a time.

    one forward pass, one backward pass and one optimizer step for all members

The members' models are of one architecture: those of one candidate, or of several whose formulas
are one program up to numbers (`search.training.alike`). A member has its own weights, buffers,
rate, order of data, augmentation, dropout stream, clipping and penalties; it follows the trajectory
of its own plain run (`search.training.loop`) up to round-off, and a NaN in one changes no bit of
the others. One that diverges leaves at its step, with the reason that the plain loop gives, and the
batch is compacted; products of another size then move the others by round-off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from search.records import Key, Member, Point, Run
from search.tasks.task import (
    MakeActivation,
    Recipe,
    Split,
    Splits,
    Task,
    splits_to,
)
from search.training.batch_state import Ended, Past, batch_state, take_up
from search.training.checkpoints import Stream
from search.training.compiled import CompileError, Gradients, Recorded, told, traced
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
from search.training.member_losses import losses_of
from search.training.member_state import refusing_shared_state
from search.training.optimizers import decays_by_name
from search.training.schedules import rate_factor
from search.training.stacked import BatchingError, naming_layers, stack_models
from search.training.stacked_optimizers import clipped, make_stacked_optimizer
from search.training.sweep import Epochs, SharedEpochs


@dataclass(slots=True)
class _Member:
    """One run on its way."""

    member: Member
    curve: list[Point] = field(default_factory=list)
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    """Of the epoch's steps."""
    test: float | None = None
    """The score on the test part."""

    @property
    def key(self) -> Key:
        """Its rate and seed."""
        return self.member[1:]

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
) -> Epochs:
    """Train one candidate's runs of all keys from scratch; an Epoch after every epoch.

    As `run_members`, whose only candidate it is.
    """
    members = [(0, *key) for key in keys]
    epochs = run_members(
        task,
        splits,
        (make_activation,),
        options=options,
        recipe=recipe,
        members=members,
        device=device,
        testing=testing,
        stream=stream,
    )
    return of_one(epochs)


def of_one(stream: SharedEpochs) -> Epochs:
    """The epochs of a single candidate."""
    dropped: dict[Member, str] | None = None
    while True:
        try:
            epoch = stream.send(dropped)
        except StopIteration:
            return
        told = yield epoch.of(0)
        dropped = {(0, *key): reason for key, reason in (told or {}).items()}


def run_members(
    task: Task,
    splits: Splits,
    makes: Sequence[MakeActivation],
    *,
    options: Mapping[str, Any],
    recipe: Recipe,
    members: Sequence[Member],
    device: torch.device | str = "cpu",
    testing: bool = False,
    stream: Stream | None = None,
) -> SharedEpochs:
    """Train the runs of several candidates from scratch; a SharedEpoch after every epoch.

    `makes[c]` makes the activation of the members (c, rate, seed), a module that differs from the
    others' in its numbers alone. `options` are complete (see `options_with`). Whoever consumes the
    epochs may end runs by `send({member: reason})`: they come back as pruned with the next one. A
    run's seconds are its share of the time: a step's, divided by the members that took it.
    `testing`, `stream`: see `run_epochs`.

    Raises:
        BatchingError: the model or the recipe cannot be batched; the text names the layer.
        Paused: somebody asked for the end; the stream has all that goes on.
    """
    device = torch.device(device)
    splits = splits_to(splits, device)

    def begin(members: Sequence[Member]) -> Batch:
        return Batch(task, splits, makes, options, recipe, members, device, testing)

    if stream is None:
        yield from _trained(begin(members), Past())
        return
    batch, past = take_up(begin, members, stream)
    dropped = yield from past.heard_again(members)
    if batch is None:
        return
    batch.drop({each.member: "" for each in batch.members if each.member not in members})
    past.ended |= batch.drop(dropped)
    stream.begin(lambda: batch_state(batch, past))
    try:
        yield from _trained(batch, past, stream)
        stream.end(past.state())
    finally:
        stream.leave()


def _trained(batch: Batch, past: Past, stream: Stream | None = None) -> SharedEpochs:
    while batch.members:
        batch.train_epoch(past.ended, stream)
        points, ended = batch.evaluate()
        told = yield past.add(points, ended)
        past.ended |= batch.drop(told or {})
    if past.ended:
        yield past.add({}, {})


class Batch:
    """The state of runs that train together."""

    def __init__(
        self,
        task: Task,
        splits: Splits,
        makes: Sequence[MakeActivation],
        options: Mapping[str, Any],
        recipe: Recipe,
        members: Sequence[Member],
        device: torch.device,
        testing: bool,
    ):
        if recipe.amp == "float16" and device.type == "cuda":
            raise BatchingError(
                "recipe.amp: float16 scales the loss of each run by itself; expected bfloat16"
            )
        if recipe.accumulate > 1:
            raise BatchingError("recipe.accumulate: each run splits its batches by itself")
        self.task, self.splits, self.recipe, self.device = task, splits, recipe, device
        self.members = [_Member(member) for member in members]
        self.testing = testing
        self.step, self.steps = 0, count_steps(len(splits.train.targets), recipe)
        self.done = 0  # batches of the epoch under way
        seeds = [seed for _, _, seed in members]
        models = {
            (c, seed): initial_model(task, splits, makes[c], options, seed, device)
            for c, seed in dict.fromkeys((c, seed) for c, _, seed in members)
        }
        own = [models[c, seed] for c, _, seed in members]
        decays = decays_by_name(own[0], recipe)
        self.stacked = stack_models(own, seeds, device)
        self.losses = losses_of(task, splits, recipe)
        self.precision = precision_of(recipe.amp, device)
        self.batches = MemberBatches(splits, recipe, seeds, device)
        self._try()
        self.optimizer = make_stacked_optimizer(
            self.stacked.stored,
            [decays[name] for name in self.stacked.names],
            recipe,
            [rate for _, rate, _ in members],
        )
        self.gradients: Gradients = self._gradients
        self.recorded: Recorded | None = None
        if recipe.compile == "inductor":
            self._compile()
        self._record()

    def _try(self) -> None:
        """Find out what cannot be batched, and which parameters have no gradient."""
        splits, count = self.splits.train, len(self.members)
        index = torch.arange(min(2, len(splits.targets))).expand(count, -1)
        model, shared = self.stacked.model, refusing_shared_state
        with naming_layers(model), shared(model, self.task.loss), self.stacked.untouched():
            self.stacked.model.train()
            self.stacked.streams.seed(0)
            data = splits.inputs[index].to(self.device), splits.targets[index].to(self.device)
            losses = self._forward(*data)
            self.stacked.leave_out_unused(losses)
            self.stacked.model.eval()
            with torch.no_grad():
                self.stacked(splits.inputs[:2].to(self.device), shared=True)

    def _compile(self) -> None:
        """Compile the step for the batch's size; once members have left, it runs as it is."""
        data = MemberBatches(self.splits, self.recipe, self.batches.seeds, self.device)
        data.begin()
        self.stacked.model.train()
        try:
            example = *data.take(0), self.optimizer.weights
            self.gradients = traced(self.stacked, self._gradients, example)
        except CompileError as error:
            told(error)

    def _record(self) -> None:
        """Steps from here on as one CUDA graph, where the recipe wants that."""
        if self.recipe.compile == "cudagraphs" and self.device.type == "cuda":
            self.recorded = Recorded(self._step, self.stacked.streams.generators)

    # --- training --------------------------------------------------------------------------------

    def train_epoch(self, ended: Ended, stream: Stream | None = None) -> None:
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
                ended |= self._leave(gone)
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
        self.step += 1
        return (self.recorded or self._step)(inputs, targets, factor)

    def _step(self, inputs: Tensor, targets: Tensor, factor: float | Tensor) -> Tensor:
        losses, gradients = self.gradients(inputs, targets, self.optimizer.weights)
        self.optimizer.step(self.stacked.stored, gradients, factor)
        return losses

    def _gradients(
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

    def _leave(self, gone: Mapping[int, tuple[int, str]]) -> Ended:
        """The runs of some places as diverged; the batch goes on without them."""
        leaving = [(self.members[k], told) for k, told in gone.items()]
        runs = {each.member: each.run("diverged", *told) for each, told in leaving}
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
            self.gradients = self._gradients  # what is compiled is for another size
            self._record()

    # --- between epochs --------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self) -> tuple[dict[Member, Point], Ended]:
        """The members' points, and the runs that end here: diverged, or complete."""
        if not self.members:
            return {}, {}
        found = self._means(self.splits.validation)
        points: dict[Member, Point] = {}
        gone: dict[int, tuple[int, str]] = {}
        for place, (member, (loss, score)) in enumerate(zip(self.members, found, strict=True)):
            if not (math.isfinite(loss) and math.isfinite(score)):
                what = f"validation loss is {loss}, {self.task.metric} {score}"
                gone[place] = (self.step, f"step {self.step}: {what}")
                continue
            train_loss = sum(member.losses) / len(member.losses)
            member.losses.clear()
            member.curve.append(Point(self.step, train_loss, loss, score))
            points[member.member] = member.curve[-1]
        ended = self._leave(gone)
        if self.step >= self.steps:
            ended |= self._tested() if self.testing and self.members else {}
            ended |= {each.member: each.run("complete", self.step) for each in self.members}
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

    def _tested(self) -> Ended:
        """Look at the test part, once; the runs that have no score on it."""
        gone: dict[int, tuple[int, str]] = {}
        for place, (_, score) in enumerate(self._means(self.splits.test)):
            self.members[place].test = score
            if problem := test_problem(score, self.task, self.step):
                gone[place] = (self.step, problem)
        return self._leave(gone)

    def drop(self, reasons: Mapping[Member, str]) -> Ended:
        """End some runs as pruned."""
        gone = {k: each for k, each in enumerate(self.members) if each.member in reasons}
        runs = {
            each.member: each.run("pruned", self.step, reasons[each.member])
            for each in gone.values()
        }
        self._compact(gone)
        return runs
