"""A candidate's sweep on its way: what is to be trained next, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

from search.records import Epoch, Key, Point, Run
from search.training.rates import EXTENSIONS, Grid, best_rate, next_rate, value_at
from search.training.rungs import leaving, rungs_of

OnEpoch = Callable[[int, float, Mapping[Key, Point]], None]
"""`on_epoch(epoch, value, points)`: the epoch's number from 1, the best mean over the rates at it,
and the point of every run that trained through it."""


class Course:
    """A sweep round by round.

    A round is the grid, then each rate that extends it.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        finished: Sequence[Run] = (),
        on_run: Callable[[Run], None] = lambda run: None,
        on_all: Callable[[], None] = lambda: None,
        on_epoch: OnEpoch | None = None,
        epochs: int = 0,
    ):
        self.grid, self.on_run, self.on_all, self.on_epoch = grid, on_run, on_all, on_epoch
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
        if brought.ended:
            self.on_all()
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
        reasons = leaving(self._epoch, go_on, points, runs, self.grid)
        alive = [key for key in self._keys if key not in self._ended]
        return {key: reasons[key[0]] for key in alive if key[0] in reasons}
