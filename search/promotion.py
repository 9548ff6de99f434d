"""Successive halving over candidates, by promotion: who goes on after a rung.

    rung k stands at first · eta^k of a run's epochs; of n that reached it, the best ⌊n / eta⌋ go on

Every candidate is trained to the first rung and waits there with a checkpoint, so that its worker
is free. Whoever is among the best that have reached a rung goes on from its checkpoint: nobody
waits for a rung to fill (asynchronous successive halving, Li et al. 2020, arXiv 1810.05934), and
nobody is stopped for having come first. All follow the schedule of the whole run, so what is
compared was trained alike. Numbers only: `search.trials.ladder` keeps them in the study.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from search.records import Trial
from search.space.settings import Promotion

UNPROMOTED = "not promoted at epoch"
"""How the reason of a candidate begins that nobody promoted."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trial stands among those that reached a rung."""

    number: int
    rung: int
    """0 is the lowest."""
    rank: int
    """1 is the best; of equals the one with the smaller number is before the other."""
    of: int


def rung_epochs(promotion: Promotion | None, epochs: int) -> tuple[int, ...]:
    """The epochs after which candidates are compared, ascending; none at a run's end.

    >>> rung_epochs(Promotion(first=0.125, eta=2), epochs=20)
    (3, 5, 10)
    >>> rung_epochs(Promotion(first=0.5, eta=3), epochs=1), rung_epochs(None, epochs=9)
    ((), ())
    """
    found: list[int] = []
    share = promotion.first if promotion else 1.0
    while promotion is not None and share < 1:
        epoch = math.ceil(share * epochs - 1e-9)  # a hair less, for 0.1 · 30 is 3.0000000000000004
        if epoch < epochs and epoch not in found:
            found.append(epoch)
        share *= promotion.eta
    return tuple(found)


def places(values: Mapping[int, float], rung: int, maximize: bool) -> list[Place]:
    """Those who reached a rung, the best first; a value that is not finite is the worst.

    values: by trial.
    """

    def order(number: int) -> tuple[bool, float, int]:
        value = values[number]
        return not math.isfinite(value), -value if maximize else value, number

    ordered = sorted(values, key=order)
    return [Place(number, rung, rank, len(values)) for rank, number in enumerate(ordered, 1)]


def promotable(
    reached: Sequence[Mapping[int, float]],
    promoted: Sequence[Collection[int]],
    eta: float,
    maximize: bool,
) -> list[Place]:
    """Who may go on: those at the highest rung first, the best first.

    Args:
        reached: for each rung from the lowest, the values there of all that reached it.
        promoted: for each rung, those that went on; baselines always do.

    >>> values = {1: 0.9, 2: 0.7, 3: 0.8, 4: 0.6}
    >>> [place.number for place in promotable([values], [[]], eta=2, maximize=True)]
    [1, 3]
    >>> promotable([values], [[1, 3]], eta=2, maximize=True)
    []
    """
    found: list[Place] = []
    for rung in reversed(range(len(reached))):
        ordered = places(reached[rung], rung, maximize)
        best = ordered[: math.floor(len(ordered) / eta)]
        found += [
            place
            for place in best
            if place.number not in promoted[rung] and math.isfinite(reached[rung][place.number])
        ]
    return found


def spared_by_promotion(trials: Iterable[Trial]) -> float | None:
    """The share of the steps that was not trained because candidates were not promoted; None where
    all were.

    Of what those trials and the complete ones would have taken, as long as the longest run.
    """
    ended = [t for t in trials if t.state == "complete" or t.reason.startswith(UNPROMOTED)]
    left = [trial for trial in ended if trial.state == "pruned"]
    whole = max((run.steps for trial in ended for run in trial.runs), default=0)
    spared = sum(whole - run.steps for trial in left for run in trial.runs if run.state == "pruned")
    taken = sum(run.steps for trial in ended for run in trial.runs)
    return spared / (spared + taken) if spared else None
