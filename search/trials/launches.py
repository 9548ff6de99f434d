"""What goes into training, and what is on its way there: plain values of a study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import optuna

from search.database.attributes import checked
from search.language.fingerprint import fingerprint
from search.records import Origin, Run, Trial
from search.space.grammar import Candidate, Grammar


@dataclass(frozen=True, slots=True)
class Launch:
    """A candidate that is to be trained now."""

    number: int
    """Of its record; see `record_number`."""
    expression: str
    origin: Origin
    name: str = ""
    runs: tuple[Run, ...] = ()
    """Runs that an earlier driver saw the end of."""
    seeds: tuple[int, ...] = ()
    """In place of the search's: of a placebo or a finalist."""
    rate: float | None = None
    """Of a finalist, frozen."""
    budget: float = 1.0
    """Of a finalist."""
    task: str = ""
    """Of a finalist: another than the search's."""
    rates: tuple[float, ...] = ()
    """Of a finalist: those beside the frozen one, in its place."""
    alone: bool = False
    """Whether its worker died the last time: its runs train one by one, to lose one at most."""
    checkpoints: str = ""
    """The folder where those of an earlier trial lie that it goes on from, and its own will."""
    promoted: int = 0
    """The epoch of the last rung that it has passed."""
    told: int = 0
    """The epoch up to which the study has its points."""
    seconds: float = 0.0
    """What it took until it waited at a rung."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a sampler proposed, with its handle in Optuna; it is to be launched or refused."""

    asked: optuna.Trial
    candidate: Candidate
    fingerprint: str
    by: str


def proposed(grammar: Grammar, asked: optuna.Trial, by: str) -> Proposal:
    """What the choices of a trial derive, drawn by its study's sampler where they are not given."""
    candidate = grammar.sample(asked)
    return Proposal(asked, candidate, fingerprint(candidate.expression), by)


def launch_of(trial: Trial, kept: Mapping[str, Any], checkpoints: str, promoted: int) -> Launch:
    """The launch of a trial, with the runs that it has.

    Args:
        kept: its `candidate` attribute.
        checkpoints: their folder.
        promoted: the epoch of the last rung that it has passed.
    """
    return Launch(
        number=trial.number,
        expression=trial.expression,
        origin=trial.origin,
        name=trial.name,
        runs=trial.runs,
        seeds=trial.seeds,
        rate=trial.best_rate,
        budget=trial.budget,
        task=trial.task,
        rates=trial.rates,
        alone=kept.get("deaths", 0) > 0,
        checkpoints=checkpoints,
        promoted=promoted,
    )


def first_of_each(trials: Iterable[Trial]) -> dict[str, int]:
    """The first trial of every function among candidates and baselines, by fingerprint."""
    numbers: dict[str, int] = {}
    for trial in trials:
        if trial.state != "duplicate" and trial.origin in ("search", "baseline"):
            numbers.setdefault(trial.fingerprint, trial.number)
    return numbers


def ended_as(
    trials: Mapping[int, Trial], number: int, outcome: Mapping[str, Any], objectives: Sequence[str]
) -> Trial:
    """The record of a trial that ends so; a finalist's has what the search knows of it already."""
    trial = replace(trials[number], **outcome)
    if trial.of is not None:
        search = trials[trial.of]
        rate = trial.best_rate if trial.task else search.best_rate
        trial = replace(trial, best_rate=rate, cost=search.cost)
    return checked(trial, objectives)
