"""Scores over tasks × seeds as one number with an interval (Agarwal et al. 2021, arXiv 2108.13264).

Intervals resample seeds within each task (stratified bootstrap, 95 % percentile): they speak of new
seeds on these tasks, not of new tasks. A diverged run counts as worse than every score, so it is
neither dropped nor given a made-up number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from search.statistics.inference import RESAMPLES, Interval

FEWEST_PER_TASK = 3
"""Seeds a task below which resampling them shows next to none of their spread."""

Scores = Mapping[str, Sequence[float | None]]
"""Scores by task, comparable between tasks; None for a diverged run."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One number over tasks × seeds, its interval, or why there is none."""

    value: float | None
    interval: Interval
    tasks: int
    runs: int
    diverged: int
    reason: str = ""


def interquartile_mean(scores: Scores, maximize: bool = True, seed: int = 0) -> Aggregate:
    """Mean of the middle half of all runs of all tasks: `floor(n / 4)` are cut from each end.

    Tasks must have equally many runs, as each would weigh by its runs otherwise.
    """
    samples = _samples(scores, maximize)
    runs, diverged = sum(map(len, samples)), sum(int(np.isinf(s).sum()) for s in samples)
    counts = {len(sample) for sample in samples}
    reason = ""
    if not runs:
        reason = "no run"
    elif len(counts) > 1:
        reason = f"tasks have between {min(counts)} and {max(counts)} runs; equally many are needed"
    elif diverged > runs // 4:
        reason = f"{diverged} of {runs} runs diverged, more than the quarter that is cut"
    if reason:
        return Aggregate(None, Interval(None, None, reason), len(samples), runs, diverged, reason)
    sign = 1.0 if maximize else -1.0
    value = sign * float(_middle_mean(*samples))
    interval = _stratified(samples, _middle_mean, seed)
    if not maximize and interval.low is not None and interval.high is not None:
        interval = Interval(-interval.high, -interval.low)
    return Aggregate(value, interval, len(samples), runs, diverged)


def _samples(scores: Scores, maximize: bool) -> list[NDArray[np.float64]]:
    """One array a task, the better the higher, -inf for a diverged run."""
    sign = 1.0 if maximize else -1.0
    return [
        np.array([-math.inf if s is None or not math.isfinite(s) else sign * s for s in row], float)
        for row in scores.values()
    ]


def _middle_mean(*samples: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    return stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)


def _stratified(samples: Sequence[NDArray[np.float64]], statistic: object, seed: int) -> Interval:
    """Percentile interval; SciPy resamples each sample by itself, which is the stratification."""
    fewest = min(map(len, samples))
    if fewest < FEWEST_PER_TASK:
        word = "run" if fewest == 1 else "runs"
        reason = f"no interval: a task has {fewest} {word}, {FEWEST_PER_TASK} are needed"
        return Interval(None, None, reason)
    with np.errstate(invalid="ignore"):  # the quantiles that SciPy takes of a -inf itself
        drawn = stats.bootstrap(
            samples, statistic, n_resamples=RESAMPLES, method="percentile", batch=1000,
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution  # fmt: skip
    low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
    if not math.isfinite(low):
        return Interval(None, None, "no interval: its worse end depends on how many runs diverge")
    return Interval(float(low), float(high))


def probability_of_improvement(
    candidate: Scores, baseline: Scores, maximize: bool = True, seed: int = 0
) -> Aggregate:
    """Chance that a run of the candidate beats one of the baseline, mean over the shared tasks.

    Per task the Mann–Whitney U / (n · m): ties, also of two diverged runs, count one half.
    """
    shared = [task for task in candidate if task in baseline]
    own = _samples({task: candidate[task] for task in shared}, maximize)
    other = _samples({task: baseline[task] for task in shared}, maximize)
    samples = [*own, *other]
    runs, diverged = sum(map(len, samples)), sum(int(np.isinf(s).sum()) for s in samples)
    if not shared or min(map(len, samples)) == 0:
        reason = "a task without a run" if shared else "no task was trained with both"
        return Aggregate(None, Interval(None, None, reason), len(shared), runs, diverged, reason)
    value = float(_win_share(*samples))
    return Aggregate(value, _stratified(samples, _win_share, seed), len(shared), runs, diverged)


def _win_share(*samples: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """Mean over tasks; the first half of `samples` is the candidate's, samples on the last axis."""
    half = len(samples) // 2
    shares = []
    for own, other in zip(samples[:half], samples[half:], strict=True):
        a, b = np.moveaxis(own, axis, -1)[..., :, None], np.moveaxis(other, axis, -1)[..., None, :]
        shares.append(((a > b) + 0.5 * (a == b)).mean(axis=(-2, -1)))
    return np.mean(shares, axis=0)
