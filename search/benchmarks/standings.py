"""How samplers did on a table: medians, ratios and regrets with bootstrap intervals.

Searches pair by seed, so the bootstrap draws seeds, and the same ones for every sampler. It draws
them in groups: searches that see the same of a table's seeds are no independent evidence, and a
sampler that draws nothing at random repeats itself in them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.benchmarks.ranking import spearman, split_half
from search.benchmarks.replay import Conditions, Ground, Trace

RESAMPLES = 2000
"""Of the bootstrap, whose own seed is fixed."""
LEVEL = 0.95
PEERS = ("random", "tpe")
"""Samplers that the others are set in ratio to."""
Groups = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bootstrap interval over sampler seeds (percentiles, 95 %)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Spared:
    """What promotion does on one table: means over searches, with their intervals."""

    rungs: tuple[int, ...]
    """The checkpoints, from 1, at which candidates wait; none where a run is too short."""
    share: Interval
    """Of the epochs, what was not trained."""
    lost: Interval
    """Regret with promotion less that without: in units of the objective."""
    same: float
    """Of the searches, those that name the same function either way."""
    checkpoints: int
    """Of a whole run."""
    searches: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How one sampler did on one table."""

    table: str
    sampler: str
    reached: tuple[float, ...]
    """By seed: the trial that first trained one of the top 1 %; inf when none did."""
    median: Interval
    """Of `reached`."""
    ratios: Mapping[str, Interval | None]
    """That median against a peer's, by peer."""
    counted: Mapping[str, Interval | None]
    """The same where every baseline that was trained first counts as a trial, for both."""
    regret: tuple[Interval, ...]
    """By trial: mean simple regret, in units of the objective."""
    refused: float
    """Of the proposals, the share that were duplicates or rejected."""
    seconds: float
    """For the proposals of one trial, on average."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Everything that was replayed on one table."""

    table: str
    file: str
    identity: str
    objective: str
    functions: int
    top: int
    reliability: float
    """Split-half rank correlation of the table."""
    reliability_seen: float
    """Rank correlation of what a search sees with the truth, on average over searches."""
    conditions: Conditions
    baselines: tuple[str, ...]
    """Trained before a sampler was asked."""
    seeds: int
    """Searches of every sampler."""
    draws: int
    """How many different seeds of the table they see."""
    standings: tuple[Standing, ...]
    promotion: Spared | None = field(default=None)


def contest(
    file: str, ground: Ground, traces: Mapping[str, Sequence[Trace]], conditions: Conditions
) -> Contest:
    """The standings of samplers from their traces, by seed."""
    header, seeds = ground.header, len(next(iter(traces.values())))
    reached = {s: np.array([t.reached for t in found]) for s, found in traces.items()}
    name = file.removesuffix(".jsonl.gz")
    groups = tuple(ground.draw(conditions, seed) for seed in range(seeds))
    told = tuple(ground.baselines) if conditions.baselines else ()
    return Contest(
        table=name,
        file=file,
        identity=header.identity,
        objective=header.objective,
        functions=len(ground.truth),
        top=len(ground.top),
        reliability=split_half(ground.scores, header).mean,
        reliability_seen=float(np.mean([_seen(ground, conditions, s) for s in range(seeds)])),
        conditions=conditions,
        baselines=told,
        seeds=seeds,
        draws=len(set(groups)),
        standings=tuple(_standing(name, s, traces[s], reached, groups, len(told)) for s in traces),
    )


def _seen(ground: Ground, conditions: Conditions, seed: int) -> float:
    observed, _ = ground.seen(conditions, seed)
    known = ~np.isnan(observed)
    sign = -1.0 if ground.header.larger_is_better else 1.0
    return spearman(sign * observed[known], ground.truth[known])


def _standing(
    table: str,
    sampler: str,
    traces: Sequence[Trace],
    reached: Mapping[str, NDArray[np.float64]],
    groups: Groups,
    told: int,
) -> Standing:
    own = reached[sampler]
    peers = [peer for peer in PEERS if peer in reached and peer != sampler]
    regrets = np.array([trace.regrets for trace in traces])
    refused = sum(trace.refused for trace in traces)
    trained = regrets.size
    return Standing(
        table=table,
        sampler=sampler,
        reached=tuple(own.tolist()),
        median=bootstrap(lambda x: np.median(x, -1), own, groups),
        ratios={p: ratio(own, reached[p], groups) for p in peers},
        counted={p: ratio(own + told, reached[p] + told, groups) for p in peers},
        regret=tuple(bootstrap(lambda x: np.mean(x, -1), column, groups) for column in regrets.T),
        refused=refused / (refused + trained),
        seconds=sum(trace.seconds for trace in traces) / trained,
    )


def bootstrap(
    statistic: Callable[[NDArray[Any]], NDArray[Any]],
    sample: NDArray[np.float64],
    groups: Groups = (),
) -> Interval:
    """The statistic of (n,) with its percentile interval; it takes (…, n) to (…).

    groups: what each belongs to that is drawn together; every one alone where it is empty.
    """
    drawn = statistic(sample[_resamples(groups or tuple(range(len(sample))))])
    return _interval(statistic(sample), drawn)


def ratio(
    own: NDArray[np.float64], peer: NDArray[np.float64], groups: Groups = ()
) -> Interval | None:
    """The ratio of two medians, paired by seed; None where neither was reached.

    A draw in which neither was reached says nothing: it may be anything, and widens the interval
    on both sides.
    """
    if np.isinf(np.median(own)) and np.isinf(np.median(peer)):
        return None
    index = _resamples(groups or tuple(range(len(own))))
    above, below = np.median(own[index], -1), np.median(peer[index], -1)
    unknown = np.isinf(above) & np.isinf(below)
    with np.errstate(invalid="ignore"):
        low, high = (np.where(unknown, end, above / below) for end in (0.0, np.inf))
    value = np.median(own) / np.median(peer)
    return Interval(float(value), _interval(value, low).low, _interval(value, high).high)


@lru_cache(maxsize=2)
def _resamples(groups: Groups) -> NDArray[np.intp]:
    """(RESAMPLES, n): the same draws for every statistic, so that searches stay paired.

    Groups are drawn with replacement, and from them in turn one of theirs.
    """
    rng, n = np.random.default_rng(0), len(groups)
    members = [[k for k in range(n) if groups[k] == each] for each in dict.fromkeys(groups)]
    sizes = np.array([len(each) for each in members])
    padded = np.array([each + [0] * (sizes.max() - len(each)) for each in members])
    drawn = rng.integers(0, len(members), (RESAMPLES, len(members)))[:, np.arange(n) % len(members)]
    return padded[drawn, (rng.random(drawn.shape) * sizes[drawn]).astype(int)]


def _interval(value: Any, drawn: NDArray[Any]) -> Interval:
    # A quantile between a number and inf is inf: `lower` and `higher` take one of the two.
    tail = (1 - LEVEL) / 2
    low = np.quantile(drawn, tail, method="lower")
    high = np.quantile(drawn, 1 - tail, method="higher")
    return Interval(float(value), float(low), float(high))
