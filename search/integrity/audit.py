"""Whether a study is what it claims to be: `python -m search.run --check results/gated`.

Each function below looks for one kind of problem among the trials as Optuna has them. A problem
may know how it is mended; nothing that was trained is ever removed for that.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial, TrialState

from search.database.attributes import (
    RUN,
    launched,
    record_number,
    recorded,
    run_attributes,
    run_key,
    runs_of,
    values_of,
)
from search.database.opening import Database, existing_database
from search.database.rows import each_attribute
from search.database.storage import reading
from search.integrity.mending import tell_again, write_record
from search.integrity.sealing import intact
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.records import Trial, run_from_json
from search.space.settings import defining
from search.training.rates import best_rate, mean_scores
from search.trials.continuing import next_attempt, release
from search.trials.ladder import is_paused

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
"""What Optuna is told of a record's state; FAIL of all others."""
CLOSE = 1e-12
"""Relative: a mean over the same scores, summed in another order."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be."""

    told: str
    """One line: where, and what."""
    mend: Callable[[], str] | None = None
    """Mends it and says how; None where that cannot be done without inventing something."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A trial as Optuna has it."""

    database: Database
    baselines: bool
    frozen: FrozenTrial

    @property
    def number(self) -> int:
        """Of its record."""
        return record_number(self.baselines, self.frozen.number)

    @property
    def attributes(self) -> dict[str, Any]:
        """What is written on it."""
        return self.frozen.user_attrs

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the study maximizes or minimizes."""
        definition = self.database.search.user_attrs.get("definition", {})
        return tuple(definition.get("search", {}).get("objectives", ("score",)))

    def problem(self, told: str, mend: Callable[[], str] | None = None) -> Problem:
        """A problem of this trial."""
        return Problem(f"trial {self.number}: {told}", mend)


def entries_of(database: Database) -> list[Entry]:
    """Every trial of both of Optuna's studies."""
    return [
        Entry(database, baselines, frozen)
        for baselines, study in database.studies
        for frozen in study.get_trials(deepcopy=False)
    ]


def problems(database: Database, driven: bool) -> Iterator[Problem]:
    """All problems of a study.

    Args:
        driven: whether a driver has it open; then trials may run.
    """
    yield from _definition(database)
    entries = entries_of(database)
    for entry in entries:
        checks = (_numbers, _candidate, _runs, _lost, _record, _told)
        for check in checks if driven else (_orphan, *checks):
            yield from check(entry)
    yield from _duplicates(entries)
    yield from _continued(entries)


def altered(database: Database, runs: bool = True) -> Iterator[str]:
    """Each record that is not what was written; a report reads it as it is."""
    assert database.backend is not None, "what is in memory alone cannot be damaged"
    for baselines, study in database.studies:
        without = "" if runs else RUN
        for number, key, record in each_attribute(database.backend, study._study_id, without):
            if (key.startswith(RUN) or key == "record") and intact(record) is False:
                yield f"trial {record_number(baselines, number)}: {key}"


def altered_line(folder: Path, runs: bool = True) -> str:
    """One line about the records of a study that are not what was written; empty where all are.

    runs: whether to look at those of runs too, which takes 1 s for 1,000 trials.

    Raises:
        StudyError: there is no study, or it cannot be read.
    """
    with existing_database(folder) as database, reading(database.place):
        found = list(altered(database, runs))
    if not found:
        return ""
    more = f" and {len(found) - 1} more records are" if len(found) > 1 else " is"
    mend = f"python -m search.run --check {folder} names them"
    return f"{folder}: damaged: {found[0]}{more} not what was written; {mend}"


def unhashed(entries: list[Entry]) -> int:
    """Records from before there were hashes."""
    return sum(intact(each) is None for entry in entries for _, each in _records(entry))


def _records(entry: Entry) -> Iterator[tuple[str, Any]]:
    yield from run_attributes(entry.attributes).items()
    if "record" in entry.attributes:
        yield "record", entry.attributes["record"]


# --- one trial -----------------------------------------------------------------------------------


def _definition(database: Database) -> Iterator[Problem]:
    """Another definition than that of the study's name; it may be read from its space.yaml."""
    if not _names(database, database.search.user_attrs.get("definition")):
        told = f"the definition of {database.search.study_name} is not the one in its name"
        found = _beside(database)
        if found is not None and _names(database, found):
            yield Problem(told, partial(_define, database, found))
        else:
            yield Problem(told)


def _names(database: Database, definition: object) -> bool:
    text = json.dumps(definition, sort_keys=True, default=str)
    own = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"-{own}" in database.search.study_name


def _beside(database: Database) -> dict[str, Any] | None:
    """What the space.yaml beside a database defines; None where there is none that can be read."""
    if database.place.file is None:
        return None
    try:
        text = (database.place.file.parent / "space.yaml").read_text(encoding="utf-8")
        return defining(yaml.safe_load(text))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
        return None


def _define(database: Database, definition: dict[str, Any]) -> str:
    database.search.set_user_attr("definition", definition)
    return "it is that of space.yaml"


def _orphan(entry: Entry) -> Iterator[Problem]:
    """RUNNING without a driver, unless it waits at a rung; waiting without a candidate."""
    if entry.frozen.state == TrialState.RUNNING and not is_paused(entry.attributes):
        mend = partial(_release, entry)
        yield entry.problem("runs, and no driver does", mend)
    if entry.frozen.state == TrialState.WAITING and "candidate" not in entry.attributes:
        yield entry.problem("waits without a candidate", partial(_dismiss, entry))


def _release(entry: Entry) -> str:
    goes_on = "candidate" in entry.attributes and recorded(entry.frozen) is None
    given_up = goes_on and next_attempt(entry.attributes, "driver") is None
    release(entry.database, entry.objectives, entry.baselines, entry.frozen, "driver")
    return "waits to go on" if goes_on and not given_up else "told as ended"


def _dismiss(entry: Entry) -> str:
    storage, own = entry.database.storage, entry.frozen._trial_id
    storage.set_trial_state_values(own, TrialState.RUNNING)
    storage.set_trial_state_values(own, TrialState.FAIL)
    return "dismissed"


def _numbers(entry: Entry) -> Iterator[Problem]:
    """Records under a wrong number or key."""
    record = entry.attributes.get("record")
    if record is not None and record.get("number") != entry.number:
        yield entry.problem(f"its record is of trial {record.get('number')}")
    for key, run in run_attributes(entry.attributes).items():
        try:
            right = run_key(run_from_json(run)) == key
        except (TypeError, ValueError, KeyError) as error:
            yield entry.problem(f"{key}: cannot be read: {error!r}")
            continue
        if not right:
            yield entry.problem(f"{key}: is another run's: {run_key(run_from_json(run))}")


def _candidate(entry: Entry) -> Iterator[Problem]:
    """A formula that is not its fingerprint's, or not its record's."""
    kept, record = entry.attributes.get("candidate"), entry.attributes.get("record", {})
    if kept is None:
        return
    try:
        own = fingerprint(parse(kept["expression"]))
    except Exception as error:
        yield entry.problem(f"its formula cannot be read: {' '.join(str(error).split())}")
        return
    if own != kept["fingerprint"]:
        yield entry.problem(f"its fingerprint is not that of {kept['expression']}")
    for key in ("origin", "name", "expression", "fingerprint"):
        if key in record and record[key] != kept[key]:
            yield entry.problem(f"its {key} is {kept[key]}, and in its record {record[key]}")


def _runs(entry: Entry) -> Iterator[Problem]:
    """Records that are no longer what was written."""
    for key, record in _records(entry):
        if intact(record) is False:
            yield entry.problem(f"{key}: is not what was written: its hash differs")


def _record(entry: Entry) -> Iterator[Problem]:
    """An end without a record; a score that the runs do not give."""
    trial, finished = recorded(entry.frozen), entry.frozen.state.is_finished()
    if "candidate" not in entry.attributes:
        return
    if trial is None and finished:
        rebuilt = _rebuilt(entry)
        mend = None if rebuilt is None else partial(write_record, entry.database, rebuilt)
        yield entry.problem(f"is {entry.frozen.state.name} and has no record", mend)
    elif trial is not None and trial.state == "complete" and trial.origin != "finalist":
        found = mean_scores(runs_of(entry.attributes)).get(trial.best_rate or math.nan)
        if found is None or trial.score is None:
            yield entry.problem(f"has no complete runs at its best rate {trial.best_rate}")
        elif not math.isclose(found, trial.score, rel_tol=CLOSE):
            yield entry.problem(f"its score is {trial.score!r}, and its runs give {found!r}")


def _rebuilt(entry: Entry) -> Trial | None:
    """The record that a complete trial must have had; None where its runs do not tell."""
    frozen, definition = entry.frozen, entry.database.search.user_attrs.get("definition", {})
    trial = launched(entry.number, entry.attributes["candidate"])
    if frozen.state != TrialState.COMPLETE or trial.origin == "finalist" or not frozen.values:
        return None
    told = dict(zip(entry.objectives, frozen.values, strict=False))
    score = told.get("score", told.get("loss"))
    runs, rates = runs_of(entry.attributes), definition.get("learning_rate", {})
    maximize = entry.database.search.directions[0].name == "MAXIMIZE"
    rate = best_rate(runs, maximize, rates.get("default", 1.0))
    if rate is None or score is None or not math.isclose(mean_scores(runs)[rate], score):
        return None
    seconds = sum(run.seconds for run in runs)
    return replace(
        trial,
        state="complete",
        score=score,
        best_rate=rate,
        cost=told.get("cost"),
        seconds=seconds,
        runs=runs,
    )


def _lost(entry: Entry) -> Iterator[Problem]:
    """Another number of runs than a complete trial had when it ended."""
    record = entry.attributes.get("record", {})
    found, runs = len(run_attributes(entry.attributes)), record.get("runs")
    if isinstance(runs, int) and found != runs:
        yield entry.problem(f"has {found} runs, and its record {runs}")


def _told(entry: Entry) -> Iterator[Problem]:
    """What Optuna, and so a sampler, takes for the end, against the record."""
    trial = recorded(entry.frozen)
    if trial is None or not entry.frozen.state.is_finished():
        return
    wanted, mend = STATES.get(trial.state, TrialState.FAIL), None
    values = values_of(trial, entry.objectives) if wanted == TrialState.COMPLETE else None
    if intact(entry.attributes["record"]):  # it is right, then, and the other is not
        mend = partial(tell_again, entry.database, entry.frozen, wanted, values)
    if entry.frozen.state != wanted:
        yield entry.problem(f"is {entry.frozen.state.name}, and {trial.state} in its record", mend)
    elif values is not None and values != entry.frozen.values:
        told = f"Optuna has the values {entry.frozen.values}, and its record {values}"
        yield entry.problem(told, mend)


# --- several trials ------------------------------------------------------------------------------


def _duplicates(entries: list[Entry]) -> Iterator[Problem]:
    """The same function trained twice for the search."""
    first: dict[str, int] = {}
    for entry in sorted(entries, key=lambda entry: entry.number):
        trial = recorded(entry.frozen)
        if trial is None or "continued" in entry.attributes:
            continue
        own = trial.origin in ("search", "baseline")
        if own and trial.state in ("complete", "pruned", "diverged", "failed"):
            if trial.fingerprint in first and trial.origin == "search":
                yield entry.problem(f"trains the function of trial {first[trial.fingerprint]}")
            first.setdefault(trial.fingerprint, entry.number)


def _continued(entries: list[Entry]) -> Iterator[Problem]:
    """Trials that go on in no later one, or in two; runs that were lost on the way."""
    after: dict[tuple[bool, int], list[Entry]] = {}
    for entry in entries:
        before = entry.attributes.get("candidate", {}).get("continues")
        if before is not None:
            after.setdefault((entry.baselines, before), []).append(entry)
    for entry in entries:
        later = after.get((entry.baselines, entry.frozen.number), [])
        if "continued" in entry.attributes and not later:
            yield entry.problem("goes on in no later trial", partial(_enqueue, entry))
        if len(later) > 1:
            numbers = ", ".join(str(each.number) for each in later)
            yield entry.problem(f"goes on in {len(later)} trials: {numbers}")
        for each in later:
            lost = set(run_attributes(entry.attributes)) - set(run_attributes(each.attributes))
            for key in sorted(lost):
                yield each.problem(f"lacks {key} of trial {entry.number}, with which it goes on")


def _enqueue(entry: Entry) -> str:
    kept = entry.attributes["candidate"]
    changed = kept | {"continues": entry.frozen.number}
    attributes = {"candidate": changed, **run_attributes(entry.attributes)}
    study = entry.database.baselines if entry.baselines else entry.database.search
    study.enqueue_trial(kept["choices"], user_attrs=attributes)
    return "waits to go on"
