"""Who is trained again after the search, with which seeds; and the placebos that enter it.

A finalist is a trial of its own: the activation of a trial of the search at that trial's best rate,
frozen, with seeds that the search has not used, scored on the test split. A placebo is ReLU under
another name with seeds of its own: it is proposed, gated, swept and trained again as candidates
are, so whatever a study finds of it is luck.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice, product
from typing import NamedTuple

from search.records import Run, Trial
from search.space.settings import Finalists
from search.statistics import mean, standard_error

SEEDS = 2**32
"""How many there are."""
APART = 1_000_003
"""Between the seeds of one placebo and those of the next."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A finalist that is to be trained."""

    trial: Trial
    """Of the search; its best rate is frozen."""
    seeds: tuple[int, ...]
    budget: float
    task: str = ""
    """Another than the search's."""
    rates: tuple[float, ...] = ()
    """Those beside the frozen one, for a heatmap."""


class Entered(NamedTuple):
    """What the finalists of one trial are told apart by."""

    of: int
    budget: float
    task: str
    swept: bool = False
    """Whether it is the one at the further rates."""


def fresh_seeds(number: int, searched: Collection[int]) -> tuple[int, ...]:
    """So many seeds behind those of the search, the same for all finalists.

    >>> fresh_seeds(3, searched=(0, 1))
    (2, 3, 4)
    """
    behind = (seed % SEEDS for seed in count(max(searched) + 1))
    return tuple(islice((seed for seed in behind if seed not in searched), number))


def placebo_name(number: int) -> str:
    """Of the placebos 1, 2, …"""
    return f"placebo {number}"


def own_seeds(trial: Trial, seeds: Iterable[int]) -> tuple[int, ...]:
    """The seeds that stand for `seeds` in a trial: others for every placebo, or it would repeat
    ReLU's runs bit by bit."""
    shift = APART * int(trial.name.rpartition(" ")[2]) if trial.origin == "placebo" else 0
    return tuple((seed + shift) % SEEDS for seed in seeds)


def chosen(trials: Iterable[Trial], k: int, maximize: bool) -> list[Trial]:
    """Every baseline, the k best candidates and every placebo, of those that have a score.

    Equal scores go by number, as on the leaderboard.
    """
    sign = -1.0 if maximize else 1.0
    scored = [(sign * t.score, t.number, t) for t in trials if t.score is not None and _usable(t)]
    ordered = [trial for *_, trial in sorted(scored, key=lambda row: row[:2])]
    of = {
        origin: [trial for trial in ordered if trial.origin == origin]
        for origin in ("baseline", "search", "placebo")
    }
    return [*of["baseline"], *of["search"][:k], *of["placebo"]]


def _usable(trial: Trial) -> bool:
    finite = trial.score is not None and math.isfinite(trial.score)
    return finite and trial.state == "complete" and trial.best_rate is not None


def entries(
    trials: Iterable[Trial],
    settings: Finalists,
    searched: Collection[int],
    entered: Mapping[Entered, Collection[int]],
    maximize: bool,
) -> list[Entry]:
    """What is still to be entered.

    Args:
        searched: the seeds of the search.
        entered: the seeds that have been entered.
    """
    wanted = fresh_seeds(settings.seeds, searched)
    again = chosen(trials, settings.k, maximize)
    audited = [trial for trial in again if trial.origin != "placebo"]
    every = [Entry(trial, wanted, settings.budget) for trial in again]
    for task, trial in product(settings.tasks, audited):
        every.append(Entry(trial, wanted, settings.budget, task))
    for trial in audited if settings.sweep else ():
        if rates := other_rates(trial):
            every.append(Entry(trial, wanted, settings.budget, rates=rates))
    missing = (replace(each, seeds=_missing(each, entered)) for each in every)
    return [each for each in missing if each.seeds]


def _missing(entry: Entry, entered: Mapping[Entered, Collection[int]]) -> tuple[int, ...]:
    key = Entered(entry.trial.number, entry.budget, entry.task, bool(entry.rates))
    known = entered.get(key, ())
    return tuple(seed for seed in own_seeds(entry.trial, entry.seeds) if seed not in known)


def other_rates(trial: Trial) -> tuple[float, ...]:
    """The rates that the search tried beside the best, ascending."""
    return tuple(sorted({run.learning_rate for run in trial.runs} - {trial.best_rate}))


def with_finals(trials: Sequence[Trial]) -> list[Trial]:
    """The trials of the search, each with its finalists."""
    finals: dict[int, list[Trial]] = {}
    for trial in trials:
        if trial.of is not None:
            finals.setdefault(trial.of, []).append(trial)
    return [
        replace(trial, finals=tuple(finals.get(trial.number, ())))
        for trial in trials
        if trial.origin != "finalist"
    ]


# --- what they found -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Final:
    """What an activation's runs on fresh seeds found on the test split."""

    outcomes: Mapping[int, float | None]
    """Test score by seed; None where the run diverged. A placebo's seeds are named as those of the
    others that they stand for."""
    budget: float
    running: bool = False
    failure: str = ""
    """Why runs are missing, where the training failed."""

    @property
    def diverged(self) -> int:
        """Seeds that diverged."""
        return sum(score is None for score in self.outcomes.values())

    @property
    def scores(self) -> list[float]:
        """Of the seeds that did not."""
        return [score for score in self.outcomes.values() if score is not None]

    @property
    def n(self) -> int:
        """Seeds behind the score."""
        return len(self.scores)

    @property
    def score(self) -> float | None:
        """Mean over the seeds; None when one diverged, as a mean of survivors is no score."""
        return None if self.diverged else mean(self.scores)

    @property
    def standard_error(self) -> float | None:
        """Of the score."""
        return None if self.diverged else standard_error(self.scores)


def latest_budget(trials: Iterable[Trial]) -> float:
    """The budget of the finalists that were entered last: others are not compared with them."""
    finals = [final for trial in trials for final in trial.finals]
    return min(finals, key=lambda final: final.number).budget if finals else 1.0


def final_of(trial: Trial, budget: float, task: str = "") -> Final | None:
    """The runs on fresh seeds of one length on one task; None when there is no such finalist."""
    finals = _finals(trial, budget, task, swept=False)
    if not finals:
        return None
    shift = own_seeds(trial, [0])[0]
    runs = {(run.seed - shift) % SEEDS: run for final in finals for run in _fresh_runs(final)}
    failed = [final.reason for final in finals if final.state == "failed"]
    return Final(
        outcomes={seed: _tested(runs[seed]) for seed in sorted(runs)},
        budget=budget,
        running=any(final.state == "running" for final in finals),
        failure=failed[0] if failed else "",
    )


def fresh_runs(trial: Trial, budget: float) -> tuple[Run, ...]:
    """The runs on fresh seeds at every rate, scored on the test split; none where it was not swept.

    What a heatmap shows: the claims are made of the frozen rate alone.
    """
    swept = _finals(trial, budget, "", swept=True)
    if not swept:
        return ()
    finals = [*_finals(trial, budget, "", swept=False), *swept]
    return tuple(replace(run, score=run.test) for final in finals for run in _fresh_runs(final))


def _finals(trial: Trial, budget: float, task: str, swept: bool) -> list[Trial]:
    wanted = (budget, task, swept)
    return [f for f in trial.finals if (f.budget, f.task, bool(f.rates)) == wanted]


def _fresh_runs(final: Trial) -> list[Run]:
    """Without the sweep that found the rate on another task."""
    return [run for run in final.runs if run.seed in final.seeds]


def _tested(run: Run) -> float | None:
    usable = run.state == "complete" and run.test is not None and math.isfinite(run.test)
    return run.test if usable else None
