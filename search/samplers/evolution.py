"""Regularised evolution on derivations (Real et al. 2019, arXiv 1802.01548).

The population is the last trials that told a value, so that the oldest dies whatever its score. A
tournament among some of them chooses a parent; its child differs in a choice or two, or has a
subtree of a second parent. Baselines that the grammar can express are trials of the study, and
thereby the first parents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.samplers import BaseSampler

from search.language.fingerprint import fingerprint
from search.samplers.asking import Asking, startup
from search.samplers.derivations import crossed, drawn, mutated
from search.samplers.history import History, Past, utilities
from search.samplers.whole import Proposed, WholeSampler
from search.space.grammar import Candidate, Grammar

CROSSOVER = 0.25
"""Share of the children with two parents."""
ANOTHER = 0.3
"""Chance that one more choice of a child is changed, and after it another: children that differ in
one choice alone lose the alternatives that a first population lacks (58 instead of 39 trials to
the top of a table of 457 functions trained on digits, medians of 30 searches by 100 trials)."""
TRIES = 40
"""Children that may turn out to be known before a random derivation is proposed."""
MORE = 8
"""After so many known children in a row, one more choice is changed in each."""


def evolution_sampler(asking: Asking) -> BaseSampler:
    """For a budget of 60 trials a population of all of them and tournaments of 10.

    With half of them and a quarter of those, searches by 60 trials took 40, 26 and 20 to the top of
    digits, fashion and extrapolation; with this 38, 16 and 23 (medians of 24). A search that is
    shorter than a population is old has no use for ageing.
    """
    population = max(8, min(100, asking.trials))
    evolution = Evolution(asking.rules, asking.seed, population, startup(asking.trials))
    return WholeSampler(evolution, History(asking.rules), asking.seed)


@dataclass(frozen=True, slots=True)
class Evolution:
    """Proposes children; what it decides follows from seed, trial number and past."""

    grammar: Grammar
    seed: int
    population: int
    start: int
    """Trials with a value before the first child."""

    @property
    def tournament(self) -> int:
        """A quarter of the population, as in the paper, and 10 at most."""
        return max(2, min(10, self.population // 4))

    def propose(self, number: int, past: Sequence[Past]) -> Proposed | None:
        """A child that no trial has had, or None while there is no population."""
        told = [trial for trial in past if trial.outcome == "value"]
        if len(told) < self.start:
            return None
        rng = np.random.default_rng([self.seed, number, 2])
        alive = told[-self.population :]
        fitness = utilities(alive, rng)
        known = {trial.fingerprint for trial in past}
        for tried in range(TRIES):
            changes = int(rng.geometric(1 - ANOTHER)) + tried // MORE
            child, parents = self._child(alive, fitness, changes, rng)
            if fingerprint(child.expression) not in known:
                why = {"by": "evolution", "parents": parents, "tries": tried + 1}
                return Proposed(child.choices, why)
        return Proposed(drawn(self.grammar, rng).choices, {"by": "random", "tries": TRIES})

    def _child(
        self, alive: Sequence[Past], fitness: np.ndarray, changes: int, rng: np.random.Generator
    ) -> tuple[Candidate, list[int]]:
        parent = self._winner(alive, fitness, rng)
        if rng.random() < CROSSOVER:
            other = self._winner(alive, fitness, rng)
            child = crossed(self.grammar, parent.choices, other.choices, rng)
            if child is not None:
                return child, [parent.number, other.number]
        child = mutated(self.grammar, parent.choices, rng)
        for _ in range(changes - 1):
            child = mutated(self.grammar, child.choices, rng)
        return child, [parent.number]

    def _winner(self, alive: Sequence[Past], fitness: np.ndarray, rng: np.random.Generator) -> Past:
        size = min(self.tournament, len(alive))
        entered = rng.choice(len(alive), size=size, replace=False)
        return alive[int(entered[np.argmax(fitness[entered])])]
