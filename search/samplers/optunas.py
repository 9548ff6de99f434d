"""Optuna's own samplers, set up for the choices of a grammar.

A grammar's choices are flat and conditional: a path exists only where the choices above it lead.
Most samplers see such a space as several small ones; what each makes of it is said below.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from heapq import nlargest
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    TPESampler,
)
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.samplers.asking import Asking, startup
from search.samplers.quasi_random import TELLING, QuasiRandomStart


class AskedBruteForceSampler(BruteForceSampler):
    """Optuna's, for ask and tell: it stops a study that optimizes itself, and ours is asked."""

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        return


MOST, BEST = 1000, 100
"""Trials that TPE's model is made of, and how many of them are the best of all."""


class RecentTPESampler(TPESampler):
    """Optuna's, whose model is made of the best and the latest trials where there are many.

    The good ones are the same 25 at most; those that they are held against, whose weights fall
    with age anyway, are the latest. Of 10,000 trials every choice would take 60 ms, and a
    candidate has five.
    """

    kept: list[FrozenTrial] | None = None
    """Of those that ended, and all that run; None: all."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Take the trials that all choices of this one are made by."""
        super().before_trial(study, trial)
        ended = study.get_trials(deepcopy=False, states=TELLING)
        self.kept = None
        if len(ended) > MOST and len(study.directions) == 1:
            sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
            told = (t for t in ended[: BEST - MOST] if t.state == TrialState.COMPLETE)
            best = nlargest(BEST, told, key=lambda each: sign * each.values[0])
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            kept = [*best, *ended[BEST - MOST :], *running]
            self.kept = sorted(kept, key=lambda each: each.number)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return super().sample_relative(self._seen(study), trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        seen = self._seen(study)
        return super().sample_independent(seen, trial, param_name, param_distribution)

    def _seen(self, study: Study) -> Any:
        return study if self.kept is None else _Seen(study, self.kept)


class _Seen:
    """A study with some of its trials."""

    def __init__(self, study: Study, trials: Sequence[FrozenTrial]):
        self._study = study
        self._kept = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] = (), use_cache: bool = False
    ) -> list[FrozenTrial]:
        """What TPE asks for its trials with."""
        return [trial for trial in self._kept if trial.state in states]


def tpe(asking: Asking) -> BaseSampler:
    """The multivariate tree-structured Parzen estimator."""
    # constant_liar: running trials repel, or parallel workers are sent to the same place.
    # 4 candidates instead of Optuna's 24: with few alternatives the best of 24 draws is nearly
    # always the same. In 100 simulated searches of gated.yaml by 100 trials, 16 % instead of 52 %
    # of the proposals were duplicates, and the best was nearer to a hidden target: 0.022 ± 0.002
    # away instead of 0.030 (random: 0.032). `group` brought nothing (0.023) for 2.5 times the time.
    model = RecentTPESampler(
        n_startup_trials=0,
        multivariate=True,
        constant_liar=True,
        n_ei_candidates=4,
        seed=asking.own,
    )
    return QuasiRandomStart(asking.seed, startup(asking.trials), model)


def gp(asking: Asking) -> BaseSampler:
    """A Gaussian process over choices."""
    # The Gaussian process models the choices that every trial has made; the rest is random.
    model = GPSampler(
        n_startup_trials=0,
        seed=asking.own,
        warn_independent_sampling=False,
        deterministic_objective=False,
    )
    return QuasiRandomStart(asking.seed, startup(asking.trials), model)


def cmaes(asking: Asking) -> BaseSampler:
    """Covariance matrix adaptation: for numbers alone."""
    model = CmaEsSampler(n_startup_trials=1, seed=asking.own, warn_independent_sampling=False)
    return QuasiRandomStart(asking.seed, startup(asking.trials), model)


def nsgaii(asking: Asking) -> BaseSampler:
    """A population on flat choices."""
    # Optuna's population of 50 never leaves its random first generation in a budget of 40.
    population = max(4, min(50, asking.trials // 5))
    return NSGAIISampler(population_size=population, seed=asking.own)
