"""A batch: runs that train together, how far they are, and how some of them leave."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from search.records import Member
from search.tasks.task import MakeActivation, Recipe, Splits, Task
from search.training.batched.batches import MemberBatches
from search.training.batched.members import Ended, MemberRun
from search.training.batched.refusing import BatchingError
from search.training.batched.update import SharedUpdate
from search.training.checkpoints import Checkpoint
from search.training.epochs import count_steps, looks_at, loss_problem
from search.training.loop import initial_model


class Batch:
    """The state of runs that train together.

    Raises:
        BatchingError: the model or the recipe cannot be batched.
    """

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
        _refuse(recipe, device)
        self.task, self.splits, self.recipe, self.device = task, splits, recipe, device
        self.members = [MemberRun(member) for member in members]
        self.testing = testing
        self.step, self.steps = 0, count_steps(len(splits.train.targets), recipe)
        self.done = 0  # batches of the epoch under way
        models = {
            (c, seed): initial_model(task, splits, makes[c], options, seed, device)
            for c, seed in dict.fromkeys((c, seed) for c, _, seed in members)
        }
        own = [models[c, seed] for c, _, seed in members]
        self.batches = self._data()
        self.update = SharedUpdate(task, splits, recipe, own, members, self.steps, device)
        if recipe.compile == "inductor":
            self.update.compile(*self._example())
        self.update.record()

    def _data(self) -> MemberBatches:
        seeds = [seed for _, _, seed in (each.member for each in self.members)]
        return MemberBatches(self.splits, self.recipe, seeds, self.device)

    def _example(self) -> tuple[Tensor, Tensor]:
        """A first batch, of generators of its own."""
        data = self._data()
        data.begin()
        return data.take(0)

    def train_epoch(self, ended: Ended, checkpoint: Checkpoint | None = None) -> None:
        """One epoch, or the rest of it; the runs that diverge in it join those that `ended`."""
        self.update.stacked.model.train()
        if not self.done:
            self.update.stacked.streams.seed(self.step)
            self.batches.begin()
        pending: list[Tensor] = []
        began = time.perf_counter()
        last = min(self.batches.full, self.steps - self.step + self.done) - 1
        for number in range(self.done, last + 1):
            pending.append(self._take(number))
            self.done = number + 1
            due = checkpoint is not None and checkpoint.due(self.step)
            if number < last and len(pending) < looks_at(self.device) and not due:
                continue
            if gone := self._look(pending):
                began = self._share(began)
                ended |= self.leave(gone)
            if not self.members:
                break
            if checkpoint is not None and due:
                self._share(began)
                checkpoint.keep()
                began = time.perf_counter()
        self._share(began)
        self.done = 0

    def _take(self, number: int) -> Tensor:
        """One step of all members; their losses before it, (K,)."""
        losses = self.update(self.step, *self.batches.take(number))
        self.step += 1
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

    # --- who leaves ------------------------------------------------------------------------------

    def leave(self, gone: Mapping[int, tuple[int, str]]) -> Ended:
        """The runs of some places as diverged, each after a step for a reason; the batch goes on
        without them."""
        leaving = [(self.members[k], told) for k, told in gone.items()]
        runs = {each.member: each.run("diverged", *told) for each, told in leaving}
        self._compact(gone)
        return runs

    def drop(self, reasons: Mapping[Member, str]) -> Ended:
        """End some runs as pruned."""
        gone = {k: each for k, each in enumerate(self.members) if each.member in reasons}
        runs = {
            each.member: each.run("pruned", self.step, reasons[each.member])
            for each in gone.values()
        }
        self._compact(gone)
        return runs

    def complete(self) -> Ended:
        """End all runs that are left as complete."""
        runs = {each.member: each.run("complete", self.step) for each in self.members}
        self.members = []
        return runs

    def _compact(self, gone: Mapping[int, object]) -> None:
        kept = [place for place in range(len(self.members)) if place not in gone]
        self.members = [self.members[place] for place in kept]
        if gone and kept:
            index = torch.tensor(kept, device=self.device)
            self.update.keep(index)
            self.batches.keep(index)


def _refuse(recipe: Recipe, device: torch.device) -> None:
    """Raises BatchingError for what each run would do by itself."""
    if recipe.amp == "float16" and device.type == "cuda":
        raise BatchingError(
            "recipe.amp: float16 scales the loss of each run by itself; expected bfloat16"
        )
    if recipe.accumulate > 1:
        raise BatchingError("recipe.accumulate: each run splits its batches by itself")
