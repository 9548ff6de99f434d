"""What a table says is best, and how far it can be believed.

The true value of a function is its mean over all seeds of the table at its own best rate, by the
rules of a sweep (`search.training.rates`): a rate at which a seed diverged is not eligible, ties go
to the rate nearest the default. What a search sees of it is the same of a few seeds.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from search.benchmarks.table import Header, Table

SPLITS = 200
"""Random halves of the seeds."""
TOP = 0.01
"""The share of the functions that a search wants to reach."""


class Reliability(NamedTuple):
    """Spearman's correlation between the rankings by two halves of the seeds; without the
    Spearman–Brown correction, so the ranking by all seeds is better than it says."""

    mean: float
    low: float
    """2.5 % quantile over the splits."""
    high: float
    """97.5 %."""
    half: int
    """Seeds in a half."""
    functions: int
    splits: int


def values(scores: NDArray[np.float64], header: Header) -> NDArray[np.float64]:
    """(functions,): the mean over the seeds of (functions, rates, seeds) at each one's best rate;
    NaN where none is eligible."""
    means = scores.mean(-1)
    best = best_rates(means, header)
    return np.where(best < 0, np.nan, means[np.arange(len(means)), best])


def best_rates(means: NDArray[np.float64], header: Header) -> NDArray[np.intp]:
    """(functions,): the place of each one's best rate in (functions, rates); -1 where all are NaN.

    The nearest to the default comes first, so that it wins a tie.
    """
    rates = header.rates
    order = sorted(
        range(len(rates)), key=lambda i: (abs(math.log(rates[i] / header.default_rate)), rates[i])
    )
    worst = -np.inf if header.larger_is_better else np.inf
    sorted_means = np.where(np.isnan(means), worst, means)[:, order]
    found = (sorted_means.argmax if header.larger_is_better else sorted_means.argmin)(1)
    return np.where(np.isnan(means).all(1), -1, np.asarray(order)[found])


def split_half(
    scores: NDArray[np.float64], header: Header, splits: int = SPLITS, seed: int = 0
) -> Reliability:
    """How far two halves of the seeds rank the functions alike.

    Each half takes its own best rates. Functions without an eligible rate are left out.
    """
    scores = scores[~np.isnan(values(scores, header))]
    half, draw = scores.shape[2] // 2, np.random.default_rng(seed)
    if half < 1 or len(scores) < 3:
        return Reliability(math.nan, math.nan, math.nan, half, len(scores), 0)
    found = []
    for _ in range(splits):
        order = draw.permutation(scores.shape[2])
        pair = order[:half], order[half : 2 * half]
        found.append(spearman(*(values(scores[:, :, part], header) for part in pair)))
    low, high = np.quantile(found, [0.025, 0.975])
    return Reliability(float(np.mean(found)), low, high, half, len(scores), splits)


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation, ties at their mean rank; 0 where one side is all ties."""
    a, b = rankdata(a), rankdata(b)
    spread = a.std() * b.std()
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread else 0.0


def top_count(functions: int, share: float = TOP) -> int:
    """How many functions are the top.

    >>> top_count(583), top_count(20)
    (6, 1)
    """
    return max(1, math.ceil(share * functions))


def describe(table: Table) -> str:
    """The table in words: its size, its best, and how real its ranking is."""
    header, counts = table.header, Counter(row.state for row in table.rows)
    lines = [
        f"functions    {header.distinct:,} distinct, from {header.derivations:,} derivations: "
        + ", ".join(f"{count} {state}" for state, count in counts.most_common()),
        f"runs         {len(header.rates)} learning rates × {len(header.seeds)} seeds,"
        f" {header.checkpoints[-1]} steps, {len(header.checkpoints)} checkpoints",
    ]
    gates = Counter(r.reason.partition(":")[0] for r in table.rows if r.state == "rejected")
    if gates:
        lines.append("rejected by  " + ", ".join(f"{g} {n}" for g, n in gates.most_common()))
    if not table.trained:
        return "\n".join(lines)
    return "\n".join([*lines, *_best(table), _believed(split_half(table.curves[..., -1], header))])


def _best(table: Table) -> list[str]:
    header, scores = table.header, table.curves[..., -1]
    truth = values(scores, header)
    sign = -1.0 if header.larger_is_better else 1.0
    order, count = np.argsort(sign * truth), top_count(len(truth))
    spread = f"median {np.median(truth):.4g}, worst {truth[order[-1]]:.4g}"
    lines = [f"{header.objective:<12} best {truth[order[0]]:.4g}, {spread}; the top {count}:"]
    best = best_rates(scores.mean(-1), header)
    for place in order[:count]:
        own = scores[place, best[place]]
        error = own.std(ddof=1) / math.sqrt(len(own)) if len(own) > 1 else math.nan
        rate = header.rates[best[place]]
        told = f"{truth[place]:.4f} ± {error:.4f} at {rate:g}"
        lines.append(f"             {told}: {table.trained[place].expression}")
    return lines


def _believed(found: Reliability) -> str:
    if not found.splits:
        return "ranking      cannot be judged: expected two seeds and three functions at least"
    return (
        f"ranking      split-half rank correlation {found.mean:.3f} ({found.low:.3f} to"
        f" {found.high:.3f} over {found.splits} splits into halves of {found.half} seeds;"
        f" {found.functions} functions)"
    )
