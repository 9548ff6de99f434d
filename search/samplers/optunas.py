"""Optuna's own samplers, set up for the choices of a grammar.

A grammar's choices are flat and conditional: a path exists only where the choices above it lead.
Most samplers see such a space as several small ones; what each makes of it is said below.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.samplers.asking import Asking, startup
from search.samplers.quasi_random import QuasiRandomStart


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


def tpe(asking: Asking) -> BaseSampler:
    """The multivariate tree-structured Parzen estimator."""
    # constant_liar: running trials repel, or parallel workers are sent to the same place.
    # 4 candidates instead of Optuna's 24: with few alternatives the best of 24 draws is nearly
    # always the same. In 100 simulated searches of gated.yaml by 100 trials, 16 % instead of 52 %
    # of the proposals were duplicates, and the best was nearer to a hidden target: 0.022 ± 0.002
    # away instead of 0.030 (random: 0.032). `group` brought nothing (0.023) for 2.5 times the time.
    model = TPESampler(
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
