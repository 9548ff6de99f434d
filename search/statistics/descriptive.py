"""Numbers only: what a list of runs says about a rate, a pair of activations, a choice.

Standard errors use the sample deviation, `s / sqrt(n)` with ddof=1 (the GoLU paper's heatmaps do,
its README used ddof=0, which is smaller by sqrt(2/3) for three seeds), and do not exist for n = 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from search.records import Run, Trial


@dataclass(frozen=True, slots=True)
class RateSummary:
    """The seeds of one activation at one learning rate."""

    learning_rate: float
    mean: float | None
    """Mean score of the complete runs; None without any. Read it with `diverged`: runs that
    diverged have no score, so a mean beside them is the mean of the survivors."""
    standard_error: float | None
    n: int
    """Complete runs."""
    diverged: int
    pruned: int = 0

    @property
    def runs(self) -> int:
        """All runs at this rate, whatever became of them."""
        return self.n + self.diverged + self.pruned

    @property
    def whole(self) -> bool:
        """Every seed trained to the end: the mean may be compared with other means."""
        return self.n > 0 and self.n == self.runs


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of per-seed differences a - b with its standard error, from `n` shared seeds."""

    mean: float | None
    standard_error: float | None
    n: int


def time_in_activations(trials: Iterable[Trial]) -> tuple[float, float] | None:
    """Median shares of a training step spent in activations: as trained, and composed of torch
    operations; None where no trial has them."""
    pairs = [(t.share, t.composed_share) for t in trials]
    known = [(own, composed) for own, composed in pairs if own is not None and composed is not None]
    if not known:
        return None
    own, composed = np.median(known, axis=0)
    return float(own), float(composed)


def spared_share(trials: Iterable[Trial]) -> float | None:
    """Of the steps that whole runs would have taken, those that rungs spared; None when none."""
    trials = list(trials)
    spared = sum(trial.spared for trial in trials)
    taken = sum(run.steps for trial in trials for run in trial.runs)
    return spared / (spared + taken) if spared else None


def rate_key(rate: float) -> float:
    """A rate rounded to six digits: 0.1 * 3 and 0.3 are the same column of a table."""
    return float(f"{rate:.6g}")


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; None of nothing."""
    return math.fsum(values) / len(values) if values else None


def standard_error(values: Sequence[float]) -> float | None:
    """`s / sqrt(n)` with ddof=1; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    center = math.fsum(values) / n
    variance = math.fsum((value - center) ** 2 for value in values) / (n - 1)
    return math.sqrt(variance / n)


def summarize_rates(runs: Iterable[Run]) -> tuple[RateSummary, ...]:
    """One summary per learning rate, ascending."""
    by_rate: dict[float, list[Run]] = {}
    for run in runs:
        by_rate.setdefault(rate_key(run.learning_rate), []).append(run)
    return tuple(_summarize(rate, by_rate[rate]) for rate in sorted(by_rate))


def _summarize(rate: float, runs: list[Run]) -> RateSummary:
    scores = [r.score for r in runs if r.state == "complete" and r.score is not None]
    return RateSummary(
        learning_rate=rate,
        mean=mean(scores),
        standard_error=standard_error(scores),
        n=len(scores),
        diverged=sum(r.state == "diverged" for r in runs),
        pruned=sum(r.state == "pruned" for r in runs),
    )


def scores_by_seed(runs: Iterable[Run], rate: float) -> dict[int, float]:
    """Score of every complete run at `rate`, by seed."""
    key = rate_key(rate)
    return {
        run.seed: run.score
        for run in runs
        if run.state == "complete" and run.score is not None and rate_key(run.learning_rate) == key
    }


def paired_difference(
    runs_a: Iterable[Run], rate_a: float, runs_b: Iterable[Run], rate_b: float
) -> Difference:
    """Mean of score_a - score_b over the seeds that both completed, each at its own rate."""
    a, b = scores_by_seed(runs_a, rate_a), scores_by_seed(runs_b, rate_b)
    differences = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    return Difference(mean(differences), standard_error(differences), len(differences))


def tolerant_range(
    summaries: Sequence[RateSummary], best_rate: float, maximize: bool, share: float = 0.01
) -> tuple[float, float] | None:
    """Lowest and highest rate of the unbroken range around the best within `share` of its mean.

    A rate where a seed diverged breaks the range. None when the best rate has no mean.
    """
    usable = [s.whole for s in summaries]
    keys = [s.learning_rate for s in summaries]
    if rate_key(best_rate) not in keys:
        return None
    best = keys.index(rate_key(best_rate))
    top = summaries[best].mean
    if top is None:
        return None

    def near(index: int) -> bool:
        value = summaries[index].mean
        if value is None or not usable[index]:
            return False
        return (top - value if maximize else value - top) <= share * abs(top)

    low = high = best
    while low > 0 and near(low - 1):
        low -= 1
    while high + 1 < len(keys) and near(high + 1):
        high += 1
    return keys[low], keys[high]


def correlation_ratio(groups: Sequence[object], values: Sequence[float]) -> float:
    """η² = between-group sum of squares / total: the share of variance that the groups explain.

    Chance alone gives (k - 1) / (n - 1) for k groups of n values. 0 when all values are equal.
    """
    members: dict[object, list[float]] = {}
    for group, value in zip(groups, values, strict=True):
        members.setdefault(group, []).append(value)
    center = math.fsum(values) / len(values)
    total = math.fsum((value - center) ** 2 for value in values)
    between = math.fsum(len(m) * (math.fsum(m) / len(m) - center) ** 2 for m in members.values())
    return min(1.0, between / total) if total > 0 else 0.0


def squared_rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's ρ², ties at their mean rank; 0 if constant. Chance alone gives 1 / (n - 1)."""
    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    spread = float((a @ a) * (b @ b))
    return min(1.0, float(a @ b) ** 2 / spread) if spread > 0 else 0.0


def expected_maximum(n: int) -> float:
    """Expected largest of `n` standard normal draws (Blom's approximation): luck of the best of n.

    2.5 for 100, 3.2 for 1,000: how far the winner of n *equal* candidates stands out, in standard
    errors of a score.

    >>> round(expected_maximum(100), 1)
    2.5
    """
    return float(ndtri((n - 0.375) / (n + 0.25))) if n > 1 else 0.0


def pooled_error(summaries: Iterable[RateSummary]) -> float | None:
    """Root mean square of the standard errors that exist: steadier than one of two seeds."""
    errors = [s.standard_error for s in summaries if s.standard_error is not None]
    return math.sqrt(math.fsum(e * e for e in errors) / len(errors)) if errors else None


def non_dominated(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points (a, b) are on the Pareto front when both coordinates are minimised.

    A point is dominated when another is no worse in both and better in one; equal points stay.
    """
    front = [False] * len(points)
    order = sorted(range(len(points)), key=lambda index: points[index])
    lowest_before = math.inf
    for _, column in groupby(order, key=lambda index: points[index][0]):
        members = list(column)
        lowest = points[members[0]][1]
        if lowest < lowest_before:
            lowest_before = lowest
            for index in members:
                front[index] = points[index][1] == lowest
    return front


def robust_range(
    values: Sequence[float], maximize: bool, reach: float = 2.0
) -> tuple[float, float]:
    """Limits that show the good end: from the best value to `reach` × (best - median) past the
    median, never past the data. A hopeless column does not flatten the others.

    >>> robust_range([1, 1, 95, 96, 97, 98, 98], maximize=True)
    (92.0, 98.0)
    """
    data = np.asarray(values, float) * (1.0 if maximize else -1.0)
    best, middle = float(data.max()), float(np.median(data))
    worst = max(float(data.min()), middle - reach * (best - middle))
    return (worst, best) if maximize else (-best, -worst)
