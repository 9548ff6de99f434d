"""Sweeps of made-up runs, for tests of what happens at a rung."""

from __future__ import annotations

import math
from collections.abc import Generator
from functools import partial
from typing import Any

from search.records import Key, Point, Run
from search.space.settings import Halving
from search.training.rates import Grid
from search.training.sweep import sweep

RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
GRID = Grid(RATES, default=0.01, seeds=(0, 1), halving=Halving(keep=0.5, rungs=2))
EPOCHS = 8  # rungs after 2 and 4
LOST = ((0.01, 1), (0.1, 0))


def point(epoch: int, score: float) -> Point:
    return Point(5 * epoch, 1.0, 1.0, score)


def start(
    rate: float,
    seed: int,
    optimum: float = 0.01,
    lost: tuple[Key, ...] = (),
    begun: list[Key] | None = None,
) -> Generator[Point, str | None, Run]:
    """A run of eight epochs whose score is a parabola in log10(rate); `lost` ones diverge in the
    second epoch."""
    if begun is not None:
        begun.append((rate, seed))
    curve: list[Point] = []
    for epoch in range(1, EPOCHS + 1):
        if (rate, seed) in lost and epoch == 2:
            return Run(rate, seed, "diverged", "step 7: loss is nan", curve=tuple(curve), steps=7)
        score = (0.9 - 0.1 * math.log10(rate / optimum) ** 2 + 0.001 * seed) * epoch / EPOCHS
        curve.append(point(epoch, score))
        if reason := (yield curve[-1]):
            return Run(rate, seed, "pruned", reason, curve=tuple(curve), steps=5 * epoch)
    score = curve[-1].score
    return Run(rate, seed, "complete", score=score, loss=1.0, curve=tuple(curve), steps=40)


def swept(grid: Grid = GRID, finished: tuple[Run, ...] = (), **how: Any) -> tuple[Run, ...]:
    return sweep(grid, partial(start, **how), finished=finished, epochs=EPOCHS)
