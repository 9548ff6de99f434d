"""A candidate over a grid of learning rates and seeds, and what its runs are worth.

The learning rate is a nuisance parameter: every candidate and every baseline gets the same grid,
the same seeds and the same rules.

* The value of a rate is the mean of its runs' scores over the seeds.
* A rate is eligible when all its runs are complete: a rate at which one seed diverged is not a
  rate one would use, however good the other seed was. Nothing that diverged enters a mean.
* Best rate: the best value; ties go to the rate nearest the default in log distance, then to the
  smaller one. No eligible rate at all: the whole candidate has diverged.
* Best rate at an edge of the rates tried: one more rate is tried on that side, at most three
  times. A best rate that is still at an edge is flagged (`at_edge`), never reported as found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Any

from search.records import Epoch, Key, Point, Run

EXTENSIONS = 3
"""How many rates may be added to a grid on the side of its best rate."""

Start = Callable[[float, int], Generator[Point, Any, Run]]
"""`start(rate, seed)` begins a run: it yields a point after every epoch and returns the run."""

Together = Callable[[Sequence[Key]], Iterator[Epoch]]
"""`together(keys)` trains the runs of several rates and seeds; it yields what each epoch brought,
and every run once among those that ended."""

OnEpoch = Callable[[int, float, Mapping[Key, Point]], None]
"""`on_epoch(epoch, value, points)`: the epoch's number from 1, the best mean over the rates at it,
and the point of every run that trained through it."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Which runs make up a sweep."""

    rates: tuple[float, ...]
    """Ascending."""
    default: float
    seeds: tuple[int, ...]
    extend: bool = True
    maximize: bool = True


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
    means = mean_scores(runs)
    sign = -1.0 if maximize else 1.0

    def order(rate: float) -> tuple[float, float, float]:
        return (sign * means[rate], abs(math.log(rate / default)), rate)

    return min(means, key=order, default=None)


def at_edge(runs: Iterable[Run], rate: float | None) -> bool:
    """Whether `rate` is the smallest or the largest of several rates tried.

    >>> at_edge([], None)
    False
    """
    rates = {run.learning_rate for run in runs}
    return len(rates) > 1 and rate in (min(rates), max(rates))


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
    for run in runs:
        if run.state == "diverged":
            place = f"{run.learning_rate:g}, seed {run.seed}"
            return f"no learning rate kept every seed finite; {place}: {run.reason}"
    return "no learning rate completed every seed"


def sweep(
    grid: Grid,
    start: Start,
    *,
    finished: Sequence[Run] = (),
    on_run: Callable[[Run], None] = lambda run: None,
    on_epoch: OnEpoch | None = None,
    together: Together | None = None,
) -> tuple[Run, ...]:
    """Train the whole grid, then extend it; every run of the sweep, the `finished` ones included.

    Args:
        start: begins one run.
        finished: runs of this candidate that need not be repeated (an earlier driver was killed).
        on_run: called with every run as soon as it has ended.
        on_epoch: given, the runs of the grid advance together, an epoch at a time, and it is
            called after every epoch; what it raises ends the sweep. All models of the grid are in
            memory at once. Rates that extend the grid come later and are not told.
        together: trains several runs, in place of `start`.
    """
    done = {(run.learning_rate, run.seed): run for run in finished}

    def train(rates: Sequence[float], told: OnEpoch | None) -> list[Run]:
        keys = list(product(rates, grid.seeds))
        missing = [key for key in keys if key not in done]
        if together is not None:
            epochs = together(missing)
        else:
            epochs = in_step(start, missing) if told else one_by_one(start, missing)
        return _follow(grid, keys, epochs, done, on_run, told)

    runs = train(grid.rates, on_epoch)
    rates = list(grid.rates)
    for _ in range(EXTENSIONS if grid.extend else 0):
        rate = next_rate(rates, best_rate(runs, grid.maximize, grid.default))
        if rate is None:
            break
        rates = sorted([*rates, rate])
        runs += train((rate,), None)
    return tuple(runs)


def one_by_one(start: Start, keys: Sequence[Key]) -> Iterator[Epoch]:
    """One run after the other, each to its end."""
    for key in keys:
        yield Epoch({}, (drain(start(*key)),))


def in_step(start: Start, keys: Sequence[Key]) -> Iterator[Epoch]:
    """All runs, an epoch of each at a time."""
    alive = {key: start(*key) for key in keys}
    while alive:
        points, ended = dict[Key, Point](), list[Run]()
        for key, stream in list(alive.items()):
            try:
                points[key] = next(stream)
            except StopIteration as stop:
                del alive[key]
                ended.append(stop.value)
        yield Epoch(points, tuple(ended))


def _follow(
    grid: Grid,
    keys: Sequence[Key],
    epochs: Iterable[Epoch],
    done: Mapping[Key, Run],
    on_run: Callable[[Run], None],
    on_epoch: OnEpoch | None,
) -> list[Run]:
    """The runs of all keys in order, the done ones included; tells the rest on the way."""
    ended = {key: done[key] for key in keys if key in done}
    for epoch, brought in enumerate(epochs, 1):
        for run in brought.ended:
            ended[run.learning_rate, run.seed] = run
            on_run(run)
        if on_epoch is None:
            continue
        points = {k: run.curve[epoch - 1] for k, run in ended.items() if len(run.curve) >= epoch}
        points |= brought.points
        value = value_at(points, grid)
        if value is not None and brought.points:
            on_epoch(epoch, value, points)
    return [ended[key] for key in keys]


def value_at(points: Mapping[Key, Point], grid: Grid) -> float | None:
    """The best mean over the rates at one epoch; a rate that lacks a seed there is left out.

    >>> grid = Grid(rates=(0.1, 1.0), default=0.1, seeds=(0, 1))
    >>> point = Point(step=9, train_loss=0.5, loss=0.6, score=0.7)
    >>> value_at({(0.1, 0): point, (0.1, 1): point, (1.0, 0): point}, grid)
    0.7
    """
    means = [
        fmean(points[rate, seed].score for seed in grid.seeds)
        for rate in grid.rates
        if all((rate, seed) in points for seed in grid.seeds)
    ]
    return (max if grid.maximize else min)(means, default=None)


def drain(stream: Generator[Point, Any, Run]) -> Run:
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(stream)
        except StopIteration as stop:
            return stop.value
