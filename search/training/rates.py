"""The learning rates of a sweep: which are tried, what each is worth, and which is the best.

The learning rate is a nuisance parameter: every candidate and every baseline gets the same grid,
the same seeds and the same rules.

* The value of a rate is the mean of its runs' scores over the seeds.
* A rate is eligible when all its runs are complete: a rate at which one seed diverged is not a
  rate one would use, however good the other seed was. Nothing that diverged enters a mean.
* Best rate: the best value; ties go to the rate nearest the default in log distance, then to the
  smaller one. No eligible rate at all: the whole candidate has diverged.
* Best rate at an edge of the rates tried: one more rate is tried on that side, at most three
  times. A best rate that is still at an edge is flagged by the report, never told as found.
* A rate that left at a rung (`search.training.rungs`) was tried, and is not eligible; nor has it
  diverged. Rates that extend the grid are trained to their end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from search.records import Key, Point, Run
from search.space.settings import Halving

EXTENSIONS = 3
"""How many rates may be added to a grid on the side of its best rate."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Which runs make up a sweep."""

    rates: tuple[float, ...]
    """Ascending."""
    default: float
    seeds: tuple[int, ...]
    extend: bool = True
    maximize: bool = True
    halving: Halving | None = None
    """When the worst rates leave; None: never."""


def mean_scores(runs: Iterable[Run]) -> dict[float, float]:
    """The mean score of every eligible rate, by rate ascending.

    Eligible: every run complete, and as many of them as any other rate has.
    """
    scores: dict[float, list[float]] = {}
    counts: dict[float, int] = {}
    for run in sorted(runs, key=lambda run: run.learning_rate):
        counts[run.learning_rate] = counts.get(run.learning_rate, 0) + 1
        if run.state == "complete" and run.score is not None:
            scores.setdefault(run.learning_rate, []).append(run.score)
    most = max(counts.values(), default=0)
    return {rate: fmean(found) for rate, found in scores.items() if len(found) == most}


def best_rate(runs: Iterable[Run], maximize: bool, default: float) -> float | None:
    """The eligible rate with the best mean; None when no rate is eligible.

    Ties go to the rate nearest `default` in log distance, then to the smaller one.
    """
    return next(iter(best_first(mean_scores(runs), maximize, default)), None)


def best_first(values: Mapping[float, float], maximize: bool, default: float) -> list[float]:
    """Rates by their values.

    >>> best_first({0.001: 0.7, 0.01: 0.8, 0.1: 0.8}, maximize=True, default=0.01)
    [0.01, 0.1, 0.001]
    """
    sign = -1.0 if maximize else 1.0
    return sorted(values, key=lambda r: (sign * values[r], abs(math.log(r / default)), r))


def next_rate(rates: Sequence[float], best: float | None) -> float | None:
    """The rate to add beside `best` when it is at an edge of the ascending `rates`.

    One step of the grid's mean ratio further, as a round number where one is within 6 %:

    >>> next_rate((0.001, 0.003, 0.01, 0.03, 0.1), 0.1)
    0.3
    >>> next_rate((0.001, 0.003, 0.01, 0.03, 0.1), 0.001)
    0.0003
    >>> next_rate((0.001, 0.003, 0.01, 0.03, 0.1), 0.01)
    """
    if len(rates) < 2 or best not in (rates[0], rates[-1]):
        return None
    ratio = (rates[-1] / rates[0]) ** (1 / (len(rates) - 1))
    step = ratio if best == rates[-1] else 1 / ratio
    for digits in (1, 3):
        rounded = float(f"{best * step:.{digits - 1}e}")
        # Not rounded back onto its own edge, as on a very fine grid.
        beyond = math.log(rounded / best) / math.log(step) > 0.5
        if beyond and abs(rounded / (best * step) - 1) < 0.06:
            return rounded
    return best * step


def why_diverged(runs: Iterable[Run]) -> str:
    """The reason of a sweep without an eligible rate, with one run's own reason.

    >>> why_diverged([Run(0.1, 0, "diverged", "step 3: loss is nan")])
    'no learning rate kept every seed finite; 0.1, seed 0: step 3: loss is nan'
    """
    runs = list(runs)
    for run in runs:
        if run.state == "diverged":
            place = f"{run.learning_rate:g}, seed {run.seed}"
            left = {run.learning_rate for run in runs if run.state == "pruned"}
            tried = {run.learning_rate for run in runs}
            others = f" ({len(left)} of {len(tried)} rates had left at a rung)" if left else ""
            return f"no learning rate kept every seed finite{others}; {place}: {run.reason}"
    return "no learning rate completed every seed"


def values_at(points: Mapping[Key, Point], grid: Grid) -> dict[float, float]:
    """The mean over the seeds of every rate at one epoch; a rate that lacks a seed there is left
    out."""
    return {
        rate: fmean(points[rate, seed].score for seed in grid.seeds)
        for rate in grid.rates
        if all((rate, seed) in points for seed in grid.seeds)
    }


def value_at(points: Mapping[Key, Point], grid: Grid) -> float | None:
    """The best of `values_at`; None where every rate lacks a seed.

    >>> grid = Grid(rates=(0.1, 1.0), default=0.1, seeds=(0, 1))
    >>> point = Point(step=9, train_loss=0.5, loss=0.6, score=0.7)
    >>> value_at({(0.1, 0): point, (0.1, 1): point, (1.0, 0): point}, grid)
    0.7
    """
    return (max if grid.maximize else min)(values_at(points, grid).values(), default=None)
