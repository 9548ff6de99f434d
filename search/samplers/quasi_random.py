"""Quasi-random draws: every choice spreads evenly over the trials, and a start for what learns."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

TELLING = (TrialState.COMPLETE, TrialState.PRUNED)
"""States with a value that a sampler learns from."""


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
