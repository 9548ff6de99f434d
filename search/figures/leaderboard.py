"""The leaderboard: everything that was trained, best first, with its errors and its doubts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from search.figures.settings import ReportSettings
from search.finalists import Final, final_of, latest_budget
from search.language.catalog import CATALOG
from search.records import Trial
from search.statistics import (
    Difference,
    RateSummary,
    paired_difference,
    rate_key,
    summarize_rates,
    tolerant_range,
)

UNTRAINED = ("rejected", "duplicate")


@dataclass(frozen=True, slots=True)
class Row:
    """One trial on the leaderboard. `rank` is None below the ranked ones."""

    rank: int | None
    trial: Trial
    summaries: tuple[RateSummary, ...]
    best: RateSummary | None
    """At the best rate."""
    at_default: RateSummary | None
    """At the default rate, if it was trained there."""
    edge: str
    """`lowest` or `highest` when the best rate is the last one tried on that side."""
    tolerant: tuple[float, float] | None
    """The rates around the best that stay within 1 % of its score."""
    difference: Difference | None = None
    """Score minus the best baseline's; None for that baseline itself, or without one."""
    final: Final | None = None
    """On fresh seeds and the test split; None for what was not trained again."""

    @property
    def fresh(self) -> float | None:
        """Mean over the fresh seeds on the test split."""
        return self.final.score if self.final else None

    @property
    def shrinkage(self) -> float | None:
        """Search score minus fresh score."""
        known = self.score is not None and self.fresh is not None
        return _finite(self.score) - _finite(self.fresh) if known else None

    @property
    def label(self) -> str:
        """A baseline's name in print, a candidate's number."""
        return title_of(self.trial)

    @property
    def score(self) -> float | None:
        """Mean over seeds at the best rate."""
        return self.trial.score

    @property
    def runs(self) -> int:
        """Trainings started."""
        return len(self.trial.runs)

    @property
    def diverged(self) -> int:
        """Trainings that ended in NaN, ±inf or above the loss bound."""
        return sum(run.state == "diverged" for run in self.trial.runs)

    @property
    def standard_error(self) -> float | None:
        """Of the score; None with one seed."""
        return self.best.standard_error if self.best else None

    @property
    def n(self) -> int:
        """Seeds behind the score."""
        return self.best.n if self.best else 0


@dataclass(frozen=True, slots=True)
class LeaderboardInfo:
    """All trials of a study in the order of a leaderboard."""

    ranked: tuple[Row, ...]
    unranked: tuple[Row, ...]
    """Trained, or meant to be, without a score that may be compared."""
    untrained: tuple[Trial, ...]
    """Rejected before training, or duplicates."""
    best_baseline: Row | None
    best_candidate: Row | None
    best_at_default: Row | None
    maximize: bool

    def candidates(self) -> tuple[Row, ...]:
        """The ranked rows that the search found."""
        return tuple(row for row in self.ranked if row.trial.origin == "search")

    def baselines(self) -> tuple[Row, ...]:
        """The ranked rows of published activations."""
        return tuple(row for row in self.ranked if row.trial.origin == "baseline")

    def rows(self) -> tuple[Row, ...]:
        """All that was trained."""
        return (*self.ranked, *self.unranked)

    def by_search(self) -> list[Row]:
        """The ranked rows by search score."""
        sign = -1.0 if self.maximize else 1.0
        return sorted(self.ranked, key=lambda r: (sign * _finite(r.score), r.trial.number))

    @property
    def retested(self) -> bool:
        """Whether anything was trained again."""
        return any(row.final for row in self.rows())

    def states(self) -> Counter[str]:
        """How many trials are in each state."""
        trained = [row.trial.state for row in (*self.ranked, *self.unranked)]
        return Counter([*trained, *(trial.state for trial in self.untrained)])


def title_of(trial: Trial) -> str:
    """`GoLU` for the baseline golu, `#12` for a candidate."""
    if trial.name in CATALOG:
        return CATALOG[trial.name].title
    return trial.name or f"#{trial.number}"


def leaderboard_info(trials: Sequence[Trial], settings: ReportSettings) -> LeaderboardInfo:
    """Rank `trials`: those with a score on fresh seeds by that, the others by their search score,
    the better first, equal scores by number; at last those that fresh seeds left without a score.

    The best baseline is that of the search: what it is compared with must not choose it.
    """
    sign = -1.0 if settings.maximize else 1.0
    budget = latest_budget(trials)
    trained = [_row(trial, settings, budget) for trial in trials if trial.state not in UNTRAINED]
    scored = sorted(
        (row for row in trained if _has_score(row.trial)),
        key=lambda row: (sign * _finite(row.score), row.trial.number),
    )
    reference = next((row for row in scored if row.trial.origin == "baseline"), None)
    scored.sort(key=lambda row: _place(row, sign))  # keeps the order where nothing was retested
    ranked = tuple(_placed(rank, row, reference) for rank, row in enumerate(scored, start=1))
    chosen = None if reference is None else reference.trial.number
    return LeaderboardInfo(
        ranked=ranked,
        unranked=tuple(row for row in trained if not _has_score(row.trial)),
        untrained=tuple(trial for trial in trials if trial.state in UNTRAINED),
        best_baseline=_first(ranked, lambda row: row.trial.number == chosen),
        best_candidate=_first(ranked, lambda row: row.trial.origin == "search"),
        best_at_default=_best_at_default(ranked, sign),
        maximize=settings.maximize,
    )


def _place(row: Row, sign: float) -> tuple[int, float]:
    if row.fresh is not None:
        return 0, sign * row.fresh
    lost = row.final is not None and (row.final.diverged > 0 or bool(row.final.failure))
    return (2 if lost else 1), 0.0


def _has_score(trial: Trial) -> bool:
    return trial.state == "complete" and trial.score is not None and math.isfinite(trial.score)


def _finite(score: float | None) -> float:
    return 0.0 if score is None else score


def _first(rows: Sequence[Row], wanted: Callable[[Row], bool]) -> Row | None:
    return next((row for row in rows if wanted(row)), None)


def _best_at_default(ranked: Sequence[Row], sign: float) -> Row | None:
    tried = [row for row in ranked if row.at_default is not None and row.at_default.whole]
    return min(tried, key=lambda row: sign * _default_mean(row), default=None)


def _default_mean(row: Row) -> float:
    return _finite(row.at_default.mean if row.at_default else None)


def summary_at(summaries: Sequence[RateSummary], rate: float | None) -> RateSummary | None:
    """The summary of one rate, if it was trained."""
    if rate is None:
        return None
    key = rate_key(rate)
    return next((s for s in summaries if s.learning_rate == key), None)


def _row(trial: Trial, settings: ReportSettings, budget: float) -> Row:
    summaries = summarize_rates(trial.runs)
    rate = trial.best_rate
    return Row(
        rank=None,
        trial=trial,
        summaries=summaries,
        best=summary_at(summaries, rate),
        at_default=summary_at(summaries, settings.default_rate),
        edge=_edge(summaries, rate),
        tolerant=None if rate is None else tolerant_range(summaries, rate, settings.maximize),
        final=final_of(trial, budget),
    )


def _edge(summaries: Sequence[RateSummary], rate: float | None) -> str:
    """A best rate with no tried rate beyond it is a bound, not an optimum."""
    if rate is None or len(summaries) < 2:
        return ""
    key = rate_key(rate)
    ends = {summaries[0].learning_rate: "lowest", summaries[-1].learning_rate: "highest"}
    return ends.get(key, "")


def _placed(rank: int, row: Row, reference: Row | None) -> Row:
    if reference is None or reference.trial.number == row.trial.number:
        difference = None
    else:
        difference = _difference(row.trial, reference.trial)
    return replace(row, rank=rank, difference=difference)


def _difference(trial: Trial, reference: Trial) -> Difference | None:
    """Over shared seeds; the plain difference of the two scores when they share none."""
    if trial.best_rate is None or reference.best_rate is None:
        return None
    paired = paired_difference(trial.runs, trial.best_rate, reference.runs, reference.best_rate)
    if paired.n:
        return paired
    return Difference(_finite(trial.score) - _finite(reference.score), None, 0)
