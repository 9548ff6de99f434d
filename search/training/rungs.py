"""Successive halving of a sweep: at a few rungs the worst learning rates of the grid leave.

    rung i of n stands at keep^(n + 1 - i) of the epochs; ⌈rates · keep^i⌉ rates go on

All rates follow the schedule of the whole run, so that what is compared at a rung was trained
alike (Jamieson and Talwalkar 2016, arXiv 1502.07943). A rate's seeds stay or leave together: what
is compared is a rate, by the mean over its seeds, and survivors' means must be of all of them.

An end of the grid stays as long as the leading rate is its neighbour: whether the grid is extended
is judged by whole runs. What an earlier driver has written stands: a rate with a run that left has
left, and one with a run beyond the rung goes on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from search.records import Key, Point, Run
from search.space.settings import Halving
from search.training.rates import Grid, best_first, values_at


def rungs_of(halving: Halving | None, epochs: int, rates: int) -> dict[int, int]:
    """How many rates go on after each rung, by the rung's epoch; rungs that fall on the first or
    on one epoch count once.

    >>> rungs_of(Halving(keep=0.5, rungs=2), epochs=8, rates=5)
    {2: 3, 4: 2}
    >>> rungs_of(None, epochs=8, rates=5)
    {}
    """
    found: dict[int, int] = {}
    if halving is None:
        return found
    for rung in range(1, halving.rungs + 1):
        epoch = max(1, round(epochs * halving.keep ** (halving.rungs + 1 - rung)))
        if epoch < epochs:  # a hair less, for 9 · (1/3) ** 2 may be a hair above 1
            found.setdefault(epoch, math.ceil(rates * halving.keep**rung - 1e-9))
    return found


def share_of_steps(rungs: Mapping[int, int], epochs: int, rates: int) -> float:
    """Of a grid's steps, those that are taken when so many rates go on after the rungs.

    >>> share_of_steps({2: 3, 4: 2}, epochs=8, rates=5)
    0.6
    """
    taken, alive, before = 0, rates, 0
    for epoch, go_on in sorted(rungs.items()):
        taken += alive * (epoch - before)
        alive, before = min(alive, go_on), epoch
    return (taken + alive * (epochs - before)) / (rates * epochs)


def leaving(
    epoch: int,
    go_on: int,
    points: Mapping[Key, Point],
    ended: Iterable[Run],
    grid: Grid,
) -> dict[float, str]:
    """The rates of a grid that leave after a rung's epoch, each with its reason.

    Args:
        go_on: how many stay, ends of the grid beside the leader aside.
        points: of every run that trained through the epoch.
        ended: the runs that have ended.
    """
    runs = list(ended)
    left = {run.learning_rate for run in runs if run.state == "pruned" and len(run.curve) <= epoch}
    beyond = {run.learning_rate for run in runs if len(run.curve) > epoch}
    order = best_first(values_at(points, grid), grid.maximize, grid.default)
    # Equal places keep their order.
    first = sorted(order, key=lambda rate: 0 if rate in beyond else 2 if rate in left else 1)
    kept = {*first[:go_on], *_ends_beside(order[:1], grid.rates)} - left
    return {
        rate: _reason(epoch, rate, order, kept)
        for rate in grid.rates
        if rate not in kept and rate not in beyond
    }


def _ends_beside(leader: Sequence[float], rates: Sequence[float]) -> set[float]:
    """The ends of the grid that are neighbours of the leading rate."""
    places = {rates.index(rate) for rate in leader}
    return {rates[end] for end in (0, len(rates) - 1) if places & {end - 1, end + 1}}


def _reason(epoch: int, rate: float, order: Sequence[float], kept: Collection[float]) -> str:
    rung = f"rung after epoch {epoch}"
    if rate not in order:
        return f"{rung}: its rate has lost another seed"
    go_on = sum(each in kept for each in order)
    return f"{rung}: place {order.index(rate) + 1} of {len(order)} rates, and {go_on} go on"


def steps_spared(runs: Iterable[Run]) -> int:
    """Steps that runs which left at a rung did not take; a whole run's are the longest's.

    >>> steps_spared([Run(0.1, 0, "complete", steps=8), Run(0.3, 0, "pruned", steps=2)])
    6
    """
    runs = list(runs)
    whole = max((run.steps for run in runs), default=0)
    return sum(whole - run.steps for run in runs if run.state == "pruned")
