"""One search on a table: a sampler proposes, and every training is looked up.

It is the search's own driver: `Proposals` on a `Study`, with duplicates and gates, in memory. The
sampler sees what a search would see: the mean over a few of the table's seeds, one draw of them for
the whole search, at the best rate by those. What is counted is the truth: the mean over all seeds.

A study trains its baselines before it asks a sampler, and so does a replay where the table has
them: the trials of those that the grammar can express are then in the sampler's study, with their
choices, the others beside it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.benchmarks.ranking import best_rates, top_count, values
from search.benchmarks.table import Row, Table
from search.database.opening import open_in_memory
from search.language.expression import Expression
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.proposals import Proposals
from search.space.settings import LearningRates, SearchSettings, Space
from search.study import Study
from search.trials.entering import enter_baseline

IN_TRAINING = "training: "
"""How the reason of the gate begins that is a short training: no gate before training."""


class Refusal(NamedTuple):
    """What a gate before training said."""

    gate: str
    reason: str


@dataclass(frozen=True, slots=True)
class Conditions:
    """What every replay of a comparison has in common."""

    trials: int
    """Budget: candidates that are trained."""
    parallel: int = 1
    """Trials that run at a time: so many results a proposal does not know."""
    seen: int = 2
    """Seeds of the table that a search trains with."""
    finalists: int = 3
    """So many of the best by what was seen are compared by the other seeds, as a study's are."""
    baselines: bool = False
    """Whether the table's baselines are trained first, beyond the budget."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One sampler's search with one seed."""

    reached: float
    """Number of the trial, from 1, that first trained one of the top; inf when none did. Baselines
    are not counted."""
    regrets: tuple[float, ...]
    """By trial: how far the true value of what a search would name is from the best: of its
    finalists, the best by seeds that it did not see. (The best by two seeds alone is the luckiest
    of many good ones, and gets worse with every trial that a good sampler spends near the best.)"""
    refused: int
    """Proposals that were duplicates, or rejected by a gate."""
    seconds: float
    """Spent on proposals; a lookup takes none."""


class Ground:
    """A table made ready for replays."""

    def __init__(self, table: Table):
        self.table = table
        self.header = table.header
        self.grammar = table.header.grammar
        self.rows = {row.fingerprint: row for row in table.rows}
        self.places = {row.fingerprint: k for k, row in enumerate(table.trained)}
        self.scores = table.curves[..., -1]
        self.truth = losses_from_best(self.scores, table)
        self.baselines = table.baselines
        self.top = self._top()

    def _top(self) -> frozenset[int]:
        """The places of the best 1 %; not of baselines, which nobody searches for."""
        known = {self.places.get(row.fingerprint) for row in self.baselines.values()}
        order = [k for k in np.argsort(self.truth, kind="stable").tolist() if k not in known]
        return frozenset(order[: top_count(len(self.truth))])

    def seen(self, conditions: Conditions, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """What a search with this seed sees: value and best rate by row; NaN where it diverges."""
        return self._seen(self.scores, conditions, seed)

    def seen_of(self, name: str, conditions: Conditions, seed: int) -> tuple[float, int]:
        """What such a search sees of a baseline: value and best rate."""
        row = self.baselines[name]
        if not row.scores.size:
            return math.nan, -1
        curves = row.losses if self.header.space["by_loss"] else row.scores
        found = self._seen(curves[None, ..., -1], conditions, seed)
        return float(found[0][0]), int(found[1][0])

    def _seen(
        self, scores: NDArray[np.float64], conditions: Conditions, seed: int
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        part = scores[:, :, self._seeds(seed)[: conditions.seen]]
        return values(part, self.header), best_rates(part.mean(-1), self.header)

    def draw(self, conditions: Conditions, seed: int) -> tuple[int, ...]:
        """Which of the table's seeds such a search sees, in order."""
        return tuple(sorted(self._seeds(seed)[: conditions.seen].tolist()))

    def seen_curves(self, conditions: Conditions, seed: int) -> NDArray[np.float64]:
        """(functions, checkpoints): what such a search sees after each of them, at the best rate
        there."""
        part = self.table.curves[:, :, self._seeds(seed)[: conditions.seen]]
        columns = [values(part[..., k], self.header) for k in range(part.shape[-1])]
        return np.stack(columns, axis=-1)

    def fresh(self, conditions: Conditions, seed: int) -> NDArray[Any]:
        """(functions,): the mean over the seeds that such a search does not see, at the rate that
        is best by those it sees; NaN where it diverges there. What is seen, where it sees all."""
        observed, rates = self.seen(conditions, seed)
        others = self.scores[:, :, self._seeds(seed)[conditions.seen :]]
        if not others.shape[-1]:
            return observed
        frozen = others[np.arange(len(others)), np.maximum(rates, 0)].mean(-1)
        return np.where(rates < 0, np.nan, frozen)

    def _seeds(self, seed: int) -> NDArray[np.intp]:
        return np.random.default_rng([seed, 2]).permutation(len(self.header.seeds))


def losses_from_best(scores: NDArray[np.float64], table: Table) -> NDArray[np.float64]:
    """(functions,): by how much the true value is worse than the best one; that of the worst for a
    function without an eligible rate over all seeds."""
    truth = values(scores, table.header)
    truth = -truth if table.header.larger_is_better else truth
    truth = truth - np.nanmin(truth)
    return np.where(np.isnan(truth), np.nanmax(truth), truth)


def replay(ground: Ground, sampler: str, seed: int, conditions: Conditions) -> Trace:
    """One search by `sampler` on a table."""
    study = _study(ground, sampler, seed, conditions)
    # No limit on the time to look for a candidate: the same seed gives the same search.
    proposals = Proposals(study, lambda e: _gate(ground, e), seconds=math.inf)
    observed, rates = ground.seen(conditions, seed)
    running: deque[int] = deque()
    log = _Log(ground, observed, ground.fresh(conditions, seed), conditions.finalists)
    while True:
        began = time.perf_counter()
        while len(running) < conditions.parallel and (launch := proposals.next()) is not None:
            running.append(launch.number)
        log.seconds += time.perf_counter() - began
        if not running:
            break
        trial = study.trials[running.popleft()]
        if trial.origin == "baseline":
            found = ground.seen_of(trial.name, conditions, seed)
            study.finish(trial.number, **_outcome(ground, ground.baselines[trial.name], *found))
            continue
        row, place = ground.rows[trial.fingerprint], ground.places.get(trial.fingerprint)
        found = (math.nan, -1) if place is None else (observed[place], rates[place])
        study.finish(trial.number, **_outcome(ground, row, *found))
        log.add(row, place)
    counts = study.counts()
    return log.trace(counts["duplicate"] + counts["rejected"], conditions.trials)


def _study(ground: Ground, sampler: str, seed: int, conditions: Conditions) -> Study:
    header = ground.header
    objective = "loss" if header.space["by_loss"] else "score"
    settings = SearchSettings(sampler, conditions.trials, seed, (objective,))
    told = ground.baselines if conditions.baselines else {}
    formulas = {name: row.expression for name, row in told.items()}
    space = Space(
        name=header.name,
        task="table",
        learning_rate=LearningRates(header.rates, header.default_rate, extend=False),
        grammar=ground.grammar,
        baselines=tuple(told),
        formulas=formulas,
        seeds=tuple(range(conditions.seen)),
        search=settings,
        source=Path(f"{header.name}.yaml"),
    )
    database = open_in_memory(space, header.maximize)
    for name, text in formulas.items():  # what the study would do, but find each in 0.1 s
        derived = ground.rows.get(header.baselines[name])
        enter_baseline(name, parse(text), derived and derived.choices, database)
    return Study(space, database, header.larger_is_better)


def _gate(ground: Ground, expression: Expression) -> Refusal | None:
    """What the gates before training said when the table was made."""
    row = ground.rows[fingerprint(expression)]
    if row.state != "rejected" or row.reason.startswith(IN_TRAINING):
        return None
    gate, _, reason = row.reason.partition(": ")
    return Refusal(gate, reason)


def _outcome(ground: Ground, row: Row, value: float, rate: int) -> dict[str, Any]:
    """How the trial of a function ends, in a search that sees a few of the seeds: with this value
    at this one of the rates."""
    if row.state != "complete":
        return {"state": row.state, "reason": row.reason}
    if math.isnan(value):
        return {"state": "diverged", "reason": "no learning rate kept every seed finite"}
    return {
        "state": "complete",
        "score": float(value),
        "best_rate": ground.header.rates[rate],
        "cost": row.cost,
        "share": row.share,
        "parameters": row.parameters,
        "seconds": row.seconds,
    }


class _Log:
    """What a replay has trained so far."""

    def __init__(self, ground: Ground, observed: NDArray[Any], fresh: NDArray[Any], finalists: int):
        self.ground = ground
        sign = -1.0 if ground.header.larger_is_better else 1.0
        self.observed, self.fresh = sign * observed, np.nan_to_num(sign * fresh, nan=math.inf)
        self.most = finalists
        self.finalists: list[int] = []
        self.regrets: list[float] = []
        self.reached = math.inf
        self.seconds = 0.0

    def add(self, row: Row, place: int | None) -> None:
        """A trial ended; one that a gate refused after some steps is no trial of the budget."""
        if row.state == "rejected":
            return
        if place is not None and not math.isnan(self.observed[place]):
            known = sorted([*self.finalists, place], key=lambda k: self.observed[k])
            self.finalists = known[: self.most]
        self.regrets.append(self._regret())
        if place in self.ground.top:
            self.reached = min(self.reached, float(len(self.regrets)))

    def _regret(self) -> float:
        truth = self.ground.truth
        if not self.finalists:
            return float(truth.max())
        return float(truth[min(self.finalists, key=lambda k: self.fresh[k])])

    def trace(self, refused: int, trials: int) -> Trace:
        """The whole search; after the last function of the space nothing changes."""
        regrets = self.regrets + self.regrets[-1:] * (trials - len(self.regrets))
        return Trace(self.reached, tuple(regrets), refused, self.seconds)
