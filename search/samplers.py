"""Optuna samplers by name, set up for the choices of a grammar.

A grammar's choices are flat and conditional: a path exists only where the choices above it lead.
Most samplers see such a space as several small ones; what each makes of it is said below.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

TELLING = (TrialState.COMPLETE, TrialState.PRUNED)
"""States with a value that a sampler learns from."""


def build_sampler(name: str, seed: int, existing: int, trials: int) -> BaseSampler:
    """The sampler called `name`.

    Args:
        seed: of the search.
        existing: trials in the study; together with `seed` it makes the sampler's own seed, so
            that a search that goes on does not draw the same numbers again.
        trials: the budget, which sizes the quasi-random start and NSGA-II's population.
    """
    own = np.random.SeedSequence([seed, existing]).generate_state(1).item()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return SAMPLERS[name](own, seed, trials)


def startup(trials: int) -> int:
    """How many finished trials the model-based samplers want before their model is asked.

    >>> startup(40), startup(1000), startup(4)
    (10, 10, 2)
    """
    return max(2, min(10, trials // 4))


class QuasiRandomSampler(BaseSampler):
    """Each choice spreads evenly over the trials: a scrambled van der Corput sequence per name.

    The k-th trial takes the k-th point of a sequence that is scrambled by (seed, name). So any
    stretch of 2^m trials visits the alternatives of the start rule, and every range, evenly, and
    parallel trials never cluster. Optuna's QMCSampler fixes its space by the first trial and
    draws every conditional choice at random.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        u = scrambled_van_der_corput(trial.number, self.seed, param_name)
        match param_distribution:
            case CategoricalDistribution(choices=choices):
                return choices[int(u * len(choices))]
            case FloatDistribution(low=low, high=high, log=True):
                return min(high, max(low, float(low * (high / low) ** u)))
            case FloatDistribution(low=low, high=high):
                return min(high, low + u * (high - low))
        raise TypeError(f"{param_name}: no rule to draw from {param_distribution}")


def scrambled_van_der_corput(index: int, seed: int, name: str) -> float:
    """The point `index` of a base-2 sequence in [0, 1), shuffled and scrambled by (seed, name).

    Every stretch of 2^m points from a multiple of 2^m has one point in every interval of length
    2^-m, in an order of its own: without the shuffle two choices of four alternatives would
    always be drawn in the same pairs. After Burley 2020, Practical hash-based Owen scrambling.
    """
    key = f"{seed} {name}"
    shuffled = _scrambled(index % 2**_BITS, f"{key} order")
    digits = int(f"{shuffled:0{_BITS}b}"[::-1], 2)
    return _scrambled(digits, f"{key} value") / 2**_BITS


_BITS = 32


def _scrambled(value: int, key: str) -> int:
    """Every bit flipped or not by a hash of the key and the bits above it (Owen 1995)."""
    flips = 0
    for bit in reversed(range(_BITS)):
        above = value >> (bit + 1)
        digest = blake2b(f"{key} {bit} {above}".encode(), digest_size=1).digest()
        flips |= (digest[0] & 1) << bit
    return value ^ flips


class QuasiRandomStart(BaseSampler):
    """Quasi-random until `start` trials have told a value, then another sampler.

    Optuna counts its random start by the same trials but draws them independently; with several
    workers it draws more than it asks for, as those that still run do not count.
    """

    def __init__(self, seed: int, start: int, then: BaseSampler):
        self.quasi_random = QuasiRandomSampler(seed)
        self.start = start
        self.then = then
        self.now: BaseSampler = self.quasi_random

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Decide, once for all choices of the trial."""
        told = study.get_trials(deepcopy=False, states=TELLING)
        self.now = self.then if len(told) >= self.start else self.quasi_random
        self.then.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.now.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.now.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self.now.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self.then.after_trial(study, trial, state, values)


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


def _tpe(own: int, seed: int, trials: int) -> BaseSampler:
    # constant_liar: running trials repel, or parallel workers are sent to the same place.
    # 4 candidates instead of Optuna's 24: with few alternatives the best of 24 draws is nearly
    # always the same. In 100 simulated searches of gated.yaml by 100 trials, 16 % instead of 52 %
    # of the proposals were duplicates, and the best was nearer to a hidden target: 0.022 ± 0.002
    # away instead of 0.030 (random: 0.032). `group` brought nothing (0.023) for 2.5 times the time.
    tpe = TPESampler(
        n_startup_trials=0, multivariate=True, constant_liar=True, n_ei_candidates=4, seed=own
    )
    return QuasiRandomStart(seed, startup(trials), tpe)


def _gp(own: int, seed: int, trials: int) -> BaseSampler:
    # The Gaussian process models the choices that every trial has made; the rest is random.
    gp = GPSampler(
        n_startup_trials=0, seed=own, warn_independent_sampling=False, deterministic_objective=False
    )
    return QuasiRandomStart(seed, startup(trials), gp)


def _cmaes(own: int, seed: int, trials: int) -> BaseSampler:
    cma = CmaEsSampler(n_startup_trials=1, seed=own, warn_independent_sampling=False)
    return QuasiRandomStart(seed, startup(trials), cma)


def _nsgaii(own: int, seed: int, trials: int) -> BaseSampler:
    # Optuna's population of 50 never leaves its random first generation in a budget of 40.
    population = max(4, min(50, trials // 5))
    return NSGAIISampler(population_size=population, seed=own)


SAMPLERS: dict[str, Callable[[int, int, int], BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda own, seed, trials: RandomSampler(seed=own),
    "qmc": lambda own, seed, trials: QuasiRandomSampler(seed),
    "gp": _gp,
    "cmaes": _cmaes,
    "nsgaii": _nsgaii,
    "bruteforce": lambda own, seed, trials: AskedBruteForceSampler(seed=own),
}
"""By name: `build(own seed, seed of the search, budget)`."""
