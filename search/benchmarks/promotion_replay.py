"""What promotion would have spared, and what it would have cost: replayed on curves that are known.

    values[c, e]: the objective of candidate c after epoch e + 1 of the whole schedule

A search of `trials` candidates in random order is played with workers that all train equally fast.
`quality` compares what it ends with: among the complete ones the best value at the last epoch,
against the best that there was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.promotion import promotable, rung_epochs
from search.space.settings import Promotion


@dataclass(frozen=True, slots=True)
class Replayed:
    """One search."""

    epochs: int
    """That were trained."""
    whole: int
    """That training everything to its end takes."""
    complete: tuple[int, ...]
    """The candidates that were trained to their end, in that order."""

    @property
    def spared(self) -> float:
        """The share of the epochs that was not trained."""
        return 1 - self.epochs / self.whole


def replay_promotion(
    values: NDArray[np.float64],
    promotion: Promotion,
    order: Sequence[int],
    workers: int = 1,
    maximize: bool = True,
) -> Replayed:
    """A search of the candidates in `order`, as `search.study` would play it.

    Args:
        values: (candidates, epochs); not finite where one diverged: it ends there, unpromoted.
    """
    last = values.shape[1]
    rungs = rung_epochs(promotion, last)
    reached: list[dict[int, float]] = [{} for _ in rungs]
    promoted: list[set[int]] = [set() for _ in rungs]
    fresh, busy = list(reversed(order)), list[tuple[int, int, int]]()  # when, who, at which rung
    clock, epochs, complete = 0, 0, list[int]()
    while True:
        while len(busy) < workers:
            going = promotable(reached, promoted, promotion.eta, maximize)
            if going:
                who, rung = going[0].number, going[0].rung + 1
                promoted[rung - 1].add(who)
            elif fresh:
                who, rung = fresh.pop(), 0
            else:
                break
            begin = rungs[rung - 1] if rung else 0
            end = rungs[rung] if rung < len(rungs) else last
            bad = np.flatnonzero(~np.isfinite(values[who, begin:end]))
            taken = int(bad[0]) + 1 if len(bad) else end - begin
            epochs += taken
            busy.append((clock + taken, who, -1 if len(bad) else rung))
        if not busy:
            return Replayed(epochs, last * len(order), tuple(complete))
        busy.sort(reverse=True)
        clock, who, rung = busy.pop()
        if rung == len(rungs):
            complete.append(who)
        elif rung >= 0:
            reached[rung][who] = float(values[who, rungs[rung] - 1])


def quality_lost(
    values: NDArray[np.float64],
    found: Replayed,
    order: Sequence[int],
    maximize: bool = True,
) -> float:
    """By how much the best complete candidate is behind the best of all, in the objective's unit;
    infinite when none was completed.

    >>> values = np.array([[0.5, 0.9], [0.6, 0.8]])
    >>> quality_lost(values, Replayed(2, 4, (1,)), [0, 1])
    0.09999999999999998
    """
    sign = 1.0 if maximize else -1.0
    finals = np.nan_to_num(sign * values[:, -1], nan=-np.inf, posinf=-np.inf)
    best = finals[list(order)].max()
    return float(best - max((finals[c] for c in found.complete), default=-np.inf))
