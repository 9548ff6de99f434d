"""`bench samplers replay --promotion`: what promotion spares on a table, at what final quality.

A search trains `trials` functions in random order, each at all rates with the seeds that it sees,
and compares them after every rung at each one's best rate there. At the end it names the best
complete one by what it saw; the truth of that, against the truth of what training all to their end
would name, is the quality lost.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from search.benchmarks.promotion_replay import Replayed, replay_promotion
from search.benchmarks.replay import Conditions, Ground
from search.benchmarks.standings import Spared, bootstrap
from search.promotion import rung_epochs
from search.space.settings import Promotion


def spared(ground: Ground, conditions: Conditions, seeds: int, promotion: Promotion) -> Spared:
    """Searches with the seeds 0, 1, …, as `replay` plays them."""
    found = [_search(ground, conditions, seed, promotion) for seed in range(seeds)]
    shares, lost = (np.array([each[k] for each in found]) for k in (0, 1))
    return Spared(
        rung_epochs(promotion, len(ground.header.checkpoints)),
        bootstrap(lambda x: np.mean(x, -1), shares),
        bootstrap(lambda x: np.mean(x, -1), lost),
        float(np.mean([each[2] for each in found])),
        len(ground.header.checkpoints),
        seeds,
    )


def _search(
    ground: Ground, conditions: Conditions, seed: int, promotion: Promotion
) -> tuple[float, float, bool]:
    """The share spared, the regret lost, and whether the same function is named."""
    seen = ground.seen_curves(conditions, seed)
    count = min(conditions.trials, len(seen))
    order = np.random.default_rng([seed, 5]).permutation(len(seen))[:count].tolist()
    larger = ground.header.larger_is_better
    found = replay_promotion(seen, promotion, order, conditions.parallel, larger)
    whole = Replayed(found.whole, found.whole, tuple(order))
    named, best = (_named(seen, each, larger) for each in (found, whole))
    lost = float(ground.truth[named] - ground.truth[best])
    return found.spared, lost, named == best


def _named(seen: NDArray[np.float64], found: Replayed, larger: bool) -> int:
    """The best complete one by what was seen at the end."""
    sign = 1.0 if larger else -1.0
    finals = np.nan_to_num(sign * seen[:, -1], nan=-math.inf)
    return max(found.complete, key=lambda c: finals[c])


def described(found: Spared, objective: str) -> str:
    """One line."""
    if not found.rungs:
        return "promotion: none, a run of the table has too few checkpoints for a rung"
    share, lost, rungs = found.share, found.lost, " and ".join(map(str, found.rungs))
    return (
        f"promotion: rungs after checkpoint {rungs} of {found.checkpoints}, random order: spares"
        f" {share.value:.0%} ({share.low:.0%} to {share.high:.0%}) of the epochs, ends"
        f" {lost.value:+.4f} ({lost.low:+.4f} to {lost.high:+.4f}) in {objective} behind, the same"
        f" function in {found.same:.0%}"
    )
