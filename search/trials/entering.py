"""What waits in a study without a sampler's asking: baselines, placebos, finalists.

Each is entered once, whatever was killed or raised in between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import optuna

from search.database.attributes import candidate_attribute, launched
from search.database.opening import Database
from search.database.reading import all_runs
from search.finalists import Entered, Entry, chosen, entries, own_seeds, placebo_name
from search.language.expression import Expression
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.records import Origin, Trial
from search.space.settings import Space


def enter_baselines(space: Space, database: Database) -> None:
    """Let every baseline wait that is not in the study yet."""
    known = {kept["name"] for _, study in database.studies for kept in _of(study, "baseline")}
    for name in space.baselines:
        if name not in known:
            expression = space.baseline(name)
            found = None if space.grammar is None else space.grammar.find(expression)
            enter_baseline(name, expression, found, database)


def enter_baseline(
    name: str, expression: Expression, found: Mapping[str, Any] | None, database: Database
) -> None:
    """Let a baseline wait; `found` are the choices that derive it, None where none do."""
    study, choices = database.studies[found is None][1], dict(found or {})
    text, own = str(expression), fingerprint(expression)
    kept = candidate_attribute("baseline", name, text, own, "baseline", choices)
    study.enqueue_trial(choices, user_attrs={"candidate": kept})


def enter_placebos(space: Space, database: Database) -> None:
    """Let every placebo wait that is not in the study yet."""
    known = {kept["name"] for kept in _of(database.baselines, "placebo")}
    expression = parse("relu(x)")
    text, own = str(expression), fingerprint(expression)
    for number in range(1, space.placebos + 1):
        if (name := placebo_name(number)) not in known:
            kept = candidate_attribute("placebo", name, text, own, "placebo", {})
            seeds = own_seeds(launched(0, kept), space.seeds)
            attributes = {"candidate": kept | {"seeds": seeds}}
            database.baselines.enqueue_trial({}, user_attrs=attributes)


def enter_finalist(entry: Entry, database: Database) -> None:
    """Let a finalist wait."""
    trial = entry.trial
    kept = candidate_attribute(
        "finalist", trial.name, trial.expression, trial.fingerprint, "finalists", {}
    )
    kept |= {"of": trial.number, "rate": None if entry.task else trial.best_rate}
    kept |= {"seeds": entry.seeds, "budget": entry.budget, "task": entry.task}
    kept |= {"rates": entry.rates}
    database.baselines.enqueue_trial({}, user_attrs={"candidate": kept})


def missing_finalists(
    space: Space, database: Database, trials: Collection[Trial], maximize: bool
) -> list[Entry]:
    """The finalists that are chosen by now and were not entered yet."""
    if space.finalists is None:
        return []
    if space.finalists.sweep:  # at the rates of their runs, which a driver does not keep
        again = chosen(trials, space.finalists.k, maximize)
        swept = {t.number: replace(t, runs=all_runs(database, t.number)) for t in again}
        trials = [swept.get(trial.number, trial) for trial in trials]
    return entries(trials, space.finalists, space.seeds, entered_seeds(database), maximize)


def entered_seeds(database: Database) -> dict[Entered, set[int]]:
    """The seeds of all finalists so far."""
    entered: dict[Entered, set[int]] = {}
    for kept in _of(database.baselines, "finalist"):
        key = Entered(kept["of"], kept["budget"], kept["task"], bool(kept.get("rates")))
        entered.setdefault(key, set()).update(kept["seeds"])
    return entered


def _of(study: optuna.Study, origin: Origin) -> list[dict[str, Any]]:
    """What was launched, or waits, of one origin."""
    every = (t.user_attrs.get("candidate", {}) for t in study.get_trials(deepcopy=False))
    return [kept for kept in every if kept.get("origin") == origin]
