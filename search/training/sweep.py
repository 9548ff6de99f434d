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
* A rate that left at a rung (`search.training.rungs`) was tried, and is not eligible; nor has it
  diverged. Rates that extend the grid are trained to their end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Any

from search.records import Epoch, Key, Member, Point, Run, SharedEpoch
from search.space.settings import Halving
from search.training.rungs import leaving, rungs_of

EXTENSIONS = 3
"""How many rates may be added to a grid on the side of its best rate."""

Start = Callable[[float, int], Generator[Point, Any, Run]]
"""`start(rate, seed)` begins a run: it yields a point after every epoch and returns the run."""

Epochs = Generator[Epoch, Mapping[Key, str] | None, None]
"""What each epoch of several runs brings, every run once among those that ended; `send({key:
reason})` ends some of them as pruned."""

Together = Callable[[Sequence[Key]], Epochs]
"""`together(keys)` trains the runs of several rates and seeds."""

SharedEpochs = Generator[SharedEpoch, Mapping[Member, str] | None, None]
"""The same for the runs of several candidates."""

AllTogether = Callable[[Sequence[Member]], SharedEpochs]
"""`together(members)` trains the runs of several candidates, rates and seeds."""

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
    runs = list(runs)
    for run in runs:
        if run.state == "diverged":
            place = f"{run.learning_rate:g}, seed {run.seed}"
            left = {run.learning_rate for run in runs if run.state == "pruned"}
            tried = {run.learning_rate for run in runs}
            others = f" ({len(left)} of {len(tried)} rates had left at a rung)" if left else ""
            return f"no learning rate kept every seed finite{others}; {place}: {run.reason}"
    return "no learning rate completed every seed"


def sweep(
    grid: Grid,
    start: Start,
    *,
    finished: Sequence[Run] = (),
    on_run: Callable[[Run], None] = lambda run: None,
    on_epoch: OnEpoch | None = None,
    together: Together | None = None,
    epochs: int = 0,
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
        epochs: of a run, with `grid.halving`, for which the runs advance together too.
    """
    course = Course(grid, finished=finished, on_run=on_run, on_epoch=on_epoch, epochs=epochs)
    while (keys := course.next_round()) is not None:
        if together is not None:
            stream = together(keys)
        else:
            stream = in_step(start, keys) if course.in_step else one_by_one(start, keys)
        _follow(course, stream)
    return tuple(course.runs)


def _follow(course: Course, stream: Epochs) -> None:
    """Let the course hear all epochs, and end the runs that it drops."""
    dropped: dict[Key, str] | None = None  # a generator that has not begun takes None
    while True:
        try:
            epoch = stream.send(dropped)
        except StopIteration:
            return
        dropped = course.hear(epoch)


def sweep_abreast(courses: Sequence[Course], together: AllTogether) -> None:
    """Train the sweeps of several candidates: all grids, then all rates that extend them.

    together: trains runs of several candidates, named by their places among the courses.
    """
    while True:
        asked = [course.next_round() for course in courses]
        if all(keys is None for keys in asked):
            return
        members = [(place, *key) for place, keys in enumerate(asked) for key in keys or ()]
        _follow_all(courses, together(members))


def _follow_all(courses: Sequence[Course], stream: SharedEpochs) -> None:
    dropped: dict[Member, str] | None = None
    while True:
        try:
            epoch = stream.send(dropped)
        except StopIteration:
            return
        dropped = {
            (place, *key): reason
            for place, course in enumerate(courses)
            for key, reason in course.hear(epoch.of(place)).items()
        }


class Course:
    """A candidate's sweep on its way: round by round, what is to be trained and what came of it.

    A round is the grid, then each rate that extends it.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        finished: Sequence[Run] = (),
        on_run: Callable[[Run], None] = lambda run: None,
        on_epoch: OnEpoch | None = None,
        epochs: int = 0,
    ):
        self.grid, self.on_run, self.on_epoch = grid, on_run, on_epoch
        self.rungs = rungs_of(grid.halving, epochs, len(grid.rates))
        self.runs: list[Run] = []
        """Of the rounds that have ended, in order."""
        self._done = {(run.learning_rate, run.seed): run for run in finished}
        self._rates: list[float] = []
        self._keys: list[Key] = []
        self._ended: dict[Key, Run] = {}
        self._epoch = 0

    @property
    def in_step(self) -> bool:
        """Whether the runs of the round must advance together."""
        return self._in_grid and (self.on_epoch is not None or bool(self.rungs))

    @property
    def _in_grid(self) -> bool:
        return len(self._rates) == len(self.grid.rates)

    def next_round(self) -> list[Key] | None:
        """The runs that are to be trained next, less those that are finished; None at the end."""
        self.runs += [self._ended[key] for key in self._keys]
        added = self._next_rates()
        self._rates = sorted([*self._rates, *added])
        self._keys = list(product(added, self.grid.seeds))
        self._ended = {key: self._done[key] for key in self._keys if key in self._done}
        self._epoch = 0
        return [key for key in self._keys if key not in self._ended] if added else None

    def _next_rates(self) -> tuple[float, ...]:
        if not self._rates:
            return self.grid.rates
        most = len(self.grid.rates) + (EXTENSIONS if self.grid.extend else 0)
        if not self._keys or len(self._rates) >= most:
            return ()
        best = best_rate(self.runs, self.grid.maximize, self.grid.default)
        rate = next_rate(self._rates, best)
        return () if rate is None else (rate,)

    def hear(self, brought: Epoch) -> dict[Key, str]:
        """Take in what an epoch of the round's runs brought; the runs that leave, and why."""
        self._epoch += 1
        for run in brought.ended:
            self._ended[run.learning_rate, run.seed] = run
            self.on_run(run)
        if not self.in_step or not brought.points:
            return {}
        epoch, ended = self._epoch, self._ended
        points = {k: r.curve[epoch - 1] for k, r in ended.items() if len(r.curve) >= epoch}
        points |= brought.points
        value = value_at(points, self.grid)
        if value is not None and self.on_epoch is not None:
            self.on_epoch(epoch, value, points)
        return self._leaving(points)

    def _leaving(self, points: Mapping[Key, Point]) -> dict[Key, str]:
        if self._epoch not in self.rungs:
            return {}
        go_on, runs = self.rungs[self._epoch], self._ended.values()
        reasons = leaving(
            self._epoch,
            go_on,
            points,
            runs,
            rates=self.grid.rates,
            seeds=self.grid.seeds,
            default=self.grid.default,
            maximize=self.grid.maximize,
        )
        alive = [key for key in self._keys if key not in self._ended]
        return {key: reasons[key[0]] for key in alive if key[0] in reasons}


def one_by_one(start: Start, keys: Sequence[Key]) -> Epochs:
    """One run after the other, each to its end."""
    for key in keys:
        yield Epoch({}, (drain(start(*key)),))


def in_step(start: Start, keys: Sequence[Key]) -> Epochs:
    """All runs, an epoch of each at a time; those that are dropped end with the next one."""
    alive = {key: start(*key) for key in keys}
    dropped: Mapping[Key, str] = {}
    while alive:
        points, ended = dict[Key, Point](), list[Run]()
        for key, stream in list(alive.items()):
            try:
                points[key] = stream.send(dropped.get(key))
            except StopIteration as stop:
                del alive[key]
                ended.append(stop.value)
        dropped = (yield Epoch(points, tuple(ended))) or {}


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
