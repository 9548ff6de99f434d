"""How far a study's own claims hold: what scores lose on fresh seeds, and what placebos gain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scipy import stats

from search.statistics.descriptive import mean
from search.statistics.inference import LEVEL


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """What one activation's search score lost on fresh seeds."""

    label: str
    search: float
    fresh: float
    loss: float
    """By how much the fresh score is worse, in units of the score; negative if it is better."""


@dataclass(frozen=True, slots=True)
class ShrinkageSummary:
    """Candidates lose the luck that selected them; baselines only what the new split costs."""

    candidates: tuple[Shrinkage, ...]
    baselines: tuple[Shrinkage, ...]
    candidate_loss: float | None
    """Mean over the candidates."""
    baseline_loss: float | None
    curse: float | None
    """The winner's curse: mean loss of the candidates beyond that of the baselines."""
    unknown: tuple[str, ...]
    """Those without both scores, such as all seeds diverged."""


@dataclass(frozen=True, slots=True)
class PlaceboShare:
    """How many renamed ReLUs were declared better than ReLU."""

    declared: int
    placebos: int
    share: float | None
    """None without a placebo."""
    low: float
    high: float
    """Clopper–Pearson limits of the share, 95 %."""
    allowed: int
    """Most declared ones that a share of `level` explains with a chance of 95 %."""
    level: float

    @property
    def within(self) -> bool:
        """The count does not contradict a false-discovery share of `level`."""
        return self.declared <= self.allowed


def shrinkage(
    candidates: Mapping[str, tuple[float | None, float | None]],
    baselines: Mapping[str, tuple[float | None, float | None]],
    maximize: bool = True,
) -> ShrinkageSummary:
    """Losses from (search score, fresh score) by label; the two must be the same metric."""
    found, known = _losses(candidates, maximize), _losses(baselines, maximize)
    loss, usual = mean([row.loss for row in found]), mean([row.loss for row in known])
    listed = {row.label for row in (*found, *known)}
    return ShrinkageSummary(
        candidates=found,
        baselines=known,
        candidate_loss=loss,
        baseline_loss=usual,
        curse=None if loss is None or usual is None else loss - usual,
        unknown=tuple(label for label in (*candidates, *baselines) if label not in listed),
    )


def _losses(
    scores: Mapping[str, tuple[float | None, float | None]], maximize: bool
) -> tuple[Shrinkage, ...]:
    sign = 1.0 if maximize else -1.0
    return tuple(
        Shrinkage(label, search, fresh, sign * (search - fresh))
        for label, (search, fresh) in scores.items()
        if search is not None and fresh is not None and math.isfinite(search + fresh)
    )


def placebo_share(declared: Iterable[bool], level: float = LEVEL) -> PlaceboShare:
    """From one truth value a placebo: whether it was declared better than the ReLU that it is.

    >>> found = placebo_share([False] * 20)
    >>> round(found.high, 3), found.allowed
    (0.168, 3)
    """
    values = list(declared)
    count, n = sum(values), len(values)
    if n == 0:
        return PlaceboShare(0, 0, None, 0.0, 1.0, 0, level)
    limits = stats.binomtest(count, n).proportion_ci(0.95, method="exact")
    allowed = int(stats.binom.ppf(0.95, n, level))
    return PlaceboShare(count, n, count / n, float(limits.low), float(limits.high), allowed, level)
