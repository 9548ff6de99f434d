"""What n seeds can show: an exact test, an interval, Holm's adjustment, the seeds a claim takes.

Numbers only. A result that does not exist is None beside its reason, never NaN.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.05
"""Two-sided level of every test."""
POWER = 0.8
EXACT_UP_TO = 20
"""Pairs whose sign flips are all counted: 2^19 sums in 10 ms."""
FLIPS = 99_999
"""Random flips beyond: p is then known to ± 0.0014 at 0.05."""
RESAMPLES = 9_999
FEWEST_FOR_INTERVAL = 5
"""Values below which resampling them says nothing about values not seen."""
MOST_SEEDS = 10_000
ROUND_OFF = 1e-9
"""Relative size below which a difference of two sums is round-off: differences of scores carry
eps / |difference|, about 1e-13 for a thousandth, and equal sums must count as equal."""


@dataclass(frozen=True, slots=True)
class SignFlip:
    """The sign-flip test of n paired differences."""

    p: float
    """Two-sided: share of the flips whose sum is at least as far from 0 as the one seen."""
    least: float
    """The smallest p these pairs could have given, `2 / 2^n`, n counting the pairs that differ."""
    exact: bool
    """All flips were counted; else a seeded sample of them."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, or why there is none."""

    low: float | None
    high: float | None
    reason: str = ""

    def excludes(self, value: float) -> bool:
        """Whether the interval exists and `value` is outside it."""
        if self.low is None or self.high is None:
            return False
        return value < self.low or value > self.high


def same(values: Sequence[float]) -> bool:
    """Whether all values are equal up to round-off."""
    return max(values) - min(values) <= ROUND_OFF * max(abs(value) for value in values)


def sign_flip_test(differences: Sequence[float], seed: int = 0) -> SignFlip:
    """Fisher's randomization test: is the sum of paired differences further from 0 than chance?

    If the two sides were interchangeable, every difference could as well have had the other sign.
    Sums equal up to round-off count as equal, which can only raise p.

    >>> sign_flip_test([0.3, 0.1, 0.2, 0.5])
    SignFlip(p=0.125, least=0.125, exact=True)
    """
    moved = np.array([value for value in differences if value != 0.0], float)
    threshold = abs(math.fsum(moved)) - ROUND_OFF * float(np.abs(moved).sum())
    if len(moved) <= EXACT_UP_TO:
        p = float(np.mean(np.abs(_all_sums(moved)) >= threshold))
        return SignFlip(p, min(1.0, 2.0 ** (1 - len(moved))), True)
    beyond = int(np.sum(np.abs(_random_sums(moved, seed)) >= threshold))
    return SignFlip((beyond + 1) / (FLIPS + 1), 1 / (FLIPS + 1), False)


def _all_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over every choice of signs, the first kept: the others are their negatives."""
    sums = values[:1] if len(values) else np.zeros(1)
    for value in values[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _random_sums(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Sums over `FLIPS` random choices of signs, one value at a time: memory grows with no n."""
    generator, sums = np.random.default_rng(seed), np.zeros(FLIPS)
    for value in values:
        sums += np.where(generator.random(FLIPS) < 0.5, value, -value)
    return sums


def bca_interval(values: Sequence[float], level: float = 0.95, seed: int = 0) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of the mean (Efron 1987), from SciPy.

    For few values it covers less often than its level says: at 0.95, 0.85 of the time for five
    normal ones, 0.90 for ten, 0.95 for twenty (1,000 draws each). No claim rests on it alone.
    """
    n = len(values)
    if n < FEWEST_FOR_INTERVAL:
        return Interval(None, None, f"no interval from fewer than {FEWEST_FOR_INTERVAL} seeds")
    if same(values):
        return Interval(None, None, f"no interval: all {n} differences are equal")
    found = stats.bootstrap(
        (np.asarray(values, float),), np.mean, confidence_level=level, n_resamples=RESAMPLES,
        method="BCa", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return Interval(None, None, f"no interval: too few of the {n} differences are distinct")
    return Interval(float(found.low), float(found.high))


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Holm's step-down adjustment (1979): controls the chance of any false claim in the family.

    One that could not be tested (None) stays in the family: it was meant to be tested.

    >>> holm([0.01, 0.04, 0.03, 0.005])
    (0.03, 0.06, 0.06, 0.02)
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for place, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(p_values) - place) * p))
        adjusted[index] = largest
    return tuple(adjusted)


def fewest_seeds(comparisons: int = 1, level: float = LEVEL) -> int:
    """Seeds below which no outcome is significant: `comparisons · 2 / 2^n > level`.

    >>> fewest_seeds(), fewest_seeds(comparisons=10)
    (6, 9)
    """
    return 1 + math.ceil(math.log2(max(1, comparisons) / level))


def seeds_needed(
    effect: float, comparisons: int = 1, power: float = POWER, level: float = LEVEL
) -> int | None:
    """Seeds that find an effect of `effect` standard deviations of the paired differences.

    Power of the two-sided paired t-test at `level / comparisons` (the first step of Holm), which
    the sign-flip test comes close to for near-normal differences, and never fewer than
    `fewest_seeds`. None for no effect, or beyond 10,000.

    >>> seeds_needed(0.5)
    34
    """
    fewest = fewest_seeds(comparisons, level)
    tried = range(fewest, MOST_SEEDS + 1)
    share = level / max(1, comparisons)
    index = bisect_left(tried, power, key=lambda n: t_test_power(n, effect, share))
    return tried[index] if index < len(tried) else None


def t_test_power(n: int, effect: float, level: float = LEVEL) -> float:
    """Chance that a two-sided paired t-test of n ≥ 2 pairs finds a standardised `effect`."""
    limit = stats.f.isf(level, 1, n - 1)
    return float(stats.ncf.sf(limit, 1, n - 1, n * effect * effect))
