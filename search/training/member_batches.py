"""The data of runs that train together: each in its own seed's order, with its own augmentation.

Runs of one seed see the same samples, which are gathered and augmented once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from search.tasks.task import Recipe, Split
from search.training.augment import augment_groups
from search.training.streams import AUGMENTATION, ORDER, generator


class MemberBatches:
    """Batches (K, N, …), those of the K plain runs with these seeds."""

    def __init__(self, split: Split, recipe: Recipe, seeds: Sequence[int]):
        self.split, self.recipe = split, recipe
        self.order = {seed: generator(seed, ORDER) for seed in seeds}
        self.draws = {seed: generator(seed, AUGMENTATION) for seed in seeds}
        self.numbers = torch.empty(0)
        self._choose(seeds)

    def _choose(self, seeds: Sequence[int]) -> None:
        self.seeds = list(seeds)
        groups = list(dict.fromkeys(seeds))
        device = self.split.targets.device
        self.group = torch.tensor([groups.index(seed) for seed in seeds], device=device)
        self.all_groups = groups
        self.alone = groups == self.seeds

    @property
    def full(self) -> int:
        """Batches of an epoch."""
        return max(1, len(self.split.targets) // self.recipe.batch_size)

    def begin(self) -> None:
        """A fresh order for an epoch: `numbers` (groups, samples)."""
        count, device = len(self.split.targets), self.split.targets.device
        drawn = [torch.randperm(count, generator=self.order[seed]) for seed in self.all_groups]
        self.numbers = torch.stack(drawn).to(device)

    def take(self, batch: int) -> tuple[Tensor, Tensor]:
        """The epoch's batch of that number: inputs (K, N, …) and targets (K, N, …)."""
        size = self.recipe.batch_size
        chosen = self.numbers[:, batch * size : (batch + 1) * size]
        if not self.recipe.augmentation:
            chosen = chosen if self.alone else chosen[self.group]
            return self.split.inputs[chosen], self.split.targets[chosen]
        generators = [self.draws[seed] for seed in self.all_groups]
        images = augment_groups(self.split.inputs[chosen], self.recipe.augmentation, generators)
        targets = self.split.targets[chosen]
        return (images, targets) if self.alone else (images[self.group], targets[self.group])

    def keep(self, index: Tensor) -> None:
        """Go on with some members, within the epoch."""
        before = self.all_groups
        self._choose([self.seeds[k] for k in index.tolist()])
        rows = [before.index(seed) for seed in self.all_groups]
        self.numbers = self.numbers[torch.tensor(rows, device=self.numbers.device)]
