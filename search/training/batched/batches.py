"""The data of runs that train together: each in its own seed's order, with its own augmentation.

Runs of one seed see the same samples, which are gathered and augmented once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from search.tasks.task import Recipe, Splits
from search.training.augment import augment_groups
from search.training.epochs import full_batches
from search.training.streaming import streamed
from search.training.streams import AUGMENTATION, ORDER, generator


class MemberBatches:
    """Batches (K, N, …), those of the K plain runs with these seeds, in the order of `take`."""

    def __init__(self, splits: Splits, recipe: Recipe, seeds: Sequence[int], device: torch.device):
        self.split, self.recipe, self.device = splits.train, recipe, device
        self.stream = bool(splits.stream)
        self.order = {seed: generator(seed, ORDER) for seed in seeds}
        self.draws = {seed: generator(seed, AUGMENTATION) for seed in seeds}
        self.numbers = torch.empty(0)
        self.coming: Iterator[tuple[Tensor, Tensor]] = iter(())
        self.rows: Tensor | None = None
        """Of what is coming, the groups that are left."""
        self._choose(seeds)

    def _choose(self, seeds: Sequence[int]) -> None:
        self.seeds = list(seeds)
        groups = list(dict.fromkeys(seeds))
        self.group = torch.tensor([groups.index(seed) for seed in seeds], device=self.device)
        self.all_groups = groups
        self.alone = groups == self.seeds

    @property
    def full(self) -> int:
        """Batches of an epoch."""
        return full_batches(len(self.split.targets), self.recipe)

    def begin(self) -> None:
        """A fresh order for an epoch: `numbers` (groups, samples)."""
        count, device = len(self.split.targets), self.split.targets.device
        drawn = [torch.randperm(count, generator=self.order[seed]) for seed in self.all_groups]
        self.numbers = torch.stack(drawn).to(device)
        if self.stream:
            chosen = self.numbers.split(self.recipe.batch_size, 1)[: self.full]
            self.coming, self.rows = streamed(self.split, chosen, self.device), None

    def take(self, batch: int) -> tuple[Tensor, Tensor]:
        """The epoch's batch of that number: inputs (K, N, …) and targets (K, N, …).

        Each number once and in order, where the data are streamed.
        """
        if not (self.recipe.augmentation or self.stream):
            chosen = self._chosen(batch)
            chosen = chosen if self.alone else chosen[self.group]
            return self.split.inputs[chosen], self.split.targets[chosen]
        images, targets = self._gathered(batch)
        generators = [self.draws[seed] for seed in self.all_groups]
        images = augment_groups(images, self.recipe.augmentation, generators)
        return (images, targets) if self.alone else (images[self.group], targets[self.group])

    def _chosen(self, batch: int) -> Tensor:
        size = self.recipe.batch_size
        return self.numbers[:, batch * size : (batch + 1) * size]

    def _gathered(self, batch: int) -> tuple[Tensor, Tensor]:
        """The samples of every group, (groups, N, …)."""
        if not self.stream:
            chosen = self._chosen(batch)
            return self.split.inputs[chosen], self.split.targets[chosen]
        inputs, targets = next(self.coming)
        return (inputs, targets) if self.rows is None else (inputs[self.rows], targets[self.rows])

    def keep(self, index: Tensor) -> None:
        """Go on with some members, within the epoch."""
        before = self.all_groups
        self._choose([self.seeds[k] for k in index.tolist()])
        left = [before.index(seed) for seed in self.all_groups]
        self.numbers = self.numbers[torch.tensor(left, device=self.numbers.device)]
        rows = torch.tensor(left, device=self.device)
        self.rows = rows if self.rows is None else self.rows[rows]
