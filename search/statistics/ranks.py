"""Many methods over many tasks by their ranks: Friedman, Wilcoxon–Holm, what cannot be told apart.

After Demšar 2006 (JMLR 7) with pairwise Wilcoxon tests in place of Nemenyi's (Benavoli et al. 2016,
JMLR 17): Nemenyi's verdict on two methods depends on the others that are in the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from search.statistics.inference import LEVEL, fewest_seeds, holm, sign_flip_test

FEWEST_TASKS = 8

Results = Mapping[str, Mapping[str, float | None]]
"""Mean score by method and task; None where the method diverged."""


@dataclass(frozen=True, slots=True)
class Friedman:
    """Friedman's χ², corrected for ties, with its p: do all methods rank alike?"""

    statistic: float
    p: float
    tasks: int
    methods: int


@dataclass(frozen=True, slots=True)
class PairTest:
    """The Wilcoxon signed-rank test of two methods over tasks."""

    first: str
    second: str
    p: float
    adjusted_p: float
    """After Holm over all pairs."""
    differ: bool
    """Adjusted p at most the level, and Friedman's test does not find all methods alike."""


@dataclass(frozen=True, slots=True)
class RankComparison:
    """Average ranks, and from 8 tasks up which methods cannot be told apart."""

    tasks: tuple[str, ...]
    left_out: tuple[str, ...]
    """Tasks that some method was not trained on."""
    ranks: tuple[tuple[str, float], ...]
    """Method and average rank, best first; 1 is best, ties share their mean rank."""
    friedman: Friedman | None
    """None for fewer than three methods or two tasks."""
    pairs: tuple[PairTest, ...]
    """Empty when `reason` says why."""
    cliques: tuple[tuple[str, ...], ...]
    """Largest groups in which no two methods differ, best first; single methods are not listed."""
    reason: str
    """Why nothing is tested pair by pair; empty when it is."""


def compare_ranks(results: Results, maximize: bool = True, level: float = LEVEL) -> RankComparison:
    """Ranks of the methods on the tasks that all were trained on, and their tests if earned.

    A method that diverged on a task ranks last there, all that did alike.
    """
    every = list(dict.fromkeys(task for row in results.values() for task in row))
    tasks = [task for task in every if all(task in row for row in results.values())]
    scores = _table(results, tasks, maximize)
    average = stats.rankdata(-scores, axis=1).mean(axis=0) if scores.size else ()
    names = list(results)
    order = sorted(range(len(average)), key=lambda index: average[index])
    friedman = friedman_test(scores)
    reason = _not_earned(len(tasks), len(names), level)
    alike = friedman is not None and friedman.p > level
    pairs = () if reason else _pair_tests(names, scores, order, 0.0 if alike else level)
    return RankComparison(
        tasks=tuple(tasks),
        left_out=tuple(task for task in every if task not in tasks),
        ranks=tuple((names[index], float(average[index])) for index in order),
        friedman=friedman,
        pairs=pairs,
        cliques=() if reason else cliques([names[index] for index in order], pairs),
        reason=reason,
    )


def _table(results: Results, tasks: Sequence[str], maximize: bool) -> NDArray[np.float64]:
    """[tasks, methods], the better the higher, -inf where a method diverged."""
    sign = 1.0 if maximize else -1.0
    values = [[row[task] for row in results.values()] for task in tasks]
    cells = [
        [-math.inf if v is None or not math.isfinite(v) else sign * v for v in r] for r in values
    ]
    return np.array(cells, float).reshape(len(tasks), len(results))


def friedman_test(scores: NDArray[np.float64]) -> Friedman | None:
    """Friedman's test of `scores` [tasks, methods]; None below two tasks or three methods.

    p is that of χ² with methods - 1 degrees of freedom, which is conservative for few tasks.
    """
    tasks, methods = scores.shape
    if tasks < 2 or methods < 3:
        return None
    if (scores == scores[:, :1]).all():  # SciPy divides by the ranks' spread
        return Friedman(0.0, 1.0, tasks, methods)
    found = stats.friedmanchisquare(*scores.T)
    return Friedman(float(found.statistic), float(found.pvalue), tasks, methods)


def _not_earned(tasks: int, methods: int, level: float) -> str:
    """Why pairs are not tested; the least Wilcoxon p of n tasks is 2 / 2^n."""
    if methods < 2:
        return "fewer than two methods: nothing to compare"
    if tasks == 0:
        return "no task that all methods were trained on"
    count = methods * (methods - 1) // 2
    needed = max(FEWEST_TASKS, fewest_seeds(count, level))
    if tasks >= needed:
        return ""
    many = f"{methods} methods ({count} {'pair' if count == 1 else 'pairs'})"
    ranked = f"ranks over {tasks} {'task' if tasks == 1 else 'tasks'} are shown without a test"
    return f"{ranked}: {needed} tasks are the least for {many}"


def _pair_tests(
    names: Sequence[str], scores: NDArray[np.float64], order: Sequence[int], level: float
) -> tuple[PairTest, ...]:
    chosen = list(combinations(order, 2))
    raw = [wilcoxon_p(scores[:, a], scores[:, b]) for a, b in chosen]
    adjusted = holm(raw)
    return tuple(
        PairTest(names[a], names[b], p, after, after <= level)
        for (a, b), p, after in zip(chosen, raw, adjusted, strict=True)
        if after is not None
    )


def wilcoxon_p(a: NDArray[np.float64], b: NDArray[np.float64], seed: int = 0) -> float:
    """Two-sided p of the Wilcoxon signed-rank test, exact up to 20 differing tasks, ties or not.

    It is the sign-flip test of the signed ranks. SciPy's exact p needs data without ties and zeros,
    and its choice in their presence changed between versions. Zeros are ranked, then dropped
    (Pratt 1959). Two diverged methods are equal; one alone lost by the largest difference.
    """
    with np.errstate(invalid="ignore"):
        differences = np.where(a == b, 0.0, a - b)
    # Differences of decimal scores are equal in exact arithmetic and not in binary.
    sizes = np.array([float(f"{size:.9g}") for size in np.abs(differences)])
    signed = np.sign(differences) * stats.rankdata(sizes)
    return sign_flip_test([float(rank) for rank in signed], seed).p


def cliques(order: Sequence[str], pairs: Sequence[PairTest]) -> tuple[tuple[str, ...], ...]:
    """The largest groups in which no pair differs, each in the given order, of two or more.

    A group need not be neighbours in rank: two far apart may be harder to tell apart than two near.
    Bron–Kerbosch; with no pair that differs it is one group of all.
    """
    apart = {frozenset((pair.first, pair.second)) for pair in pairs if pair.differ}
    alike = {a: {b for b in order if b != a and frozenset((a, b)) not in apart} for a in order}
    found: list[frozenset[str]] = []

    def grow(group: frozenset[str], open_: set[str], done: set[str]) -> None:
        if not open_ and not done:
            found.append(group)
        for name in [name for name in order if name in open_]:
            grow(group | {name}, open_ & alike[name], done & alike[name])
            open_ = open_ - {name}
            done = done | {name}

    grow(frozenset(), set(order), set())
    place = {name: index for index, name in enumerate(order)}
    groups = [tuple(sorted(group, key=place.__getitem__)) for group in found if len(group) > 1]
    return tuple(sorted(groups, key=lambda group: [place[name] for name in group]))
