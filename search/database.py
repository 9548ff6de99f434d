"""The database of a study: how it is opened, and what is written in it.

`study.db` holds two Optuna studies. `<name>-<hash of the definition>` has the candidates, and the
baselines that the grammar can express, as points that the sampler learns from. `…/baselines` has
the other baselines: without parameters, they would empty the search space that samplers infer
from what all finished trials share. The placebos and the finalists are there too, as no sampler may
learn from them.

Each trial is one of Optuna's, with user attributes:

    candidate           what was launched: origin, name, expression, fingerprint, who proposed it;
                        of a finalist the trial, rate, budget, task, seeds and further rates,
                        of a placebo its seeds
    run <rate> <seed>   the record of a run, written when the run ends
    record              the trial's own record, written just before Optuna is told its end
    continued           set when the trial goes on in a later one
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optuna
import yaml
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL, event
from sqlalchemy.exc import SQLAlchemyError

from search.errors import StudyError
from search.finalists import with_finals
from search.records import Run, Trial, run_from_json, to_json, trial_from_json
from search.space.settings import Space

DATABASE = "study.db"
SUFFIX = "/baselines"

Direction = Literal["minimize", "maximize"]


class Database(NamedTuple):
    """An open database and its two Optuna studies."""

    path: Path
    storage: BaseStorage
    backend: RDBStorage
    search: optuna.Study
    baselines: optuna.Study

    @property
    def studies(self) -> tuple[tuple[bool, optuna.Study], ...]:
        """Each study, after whether it is the baselines'."""
        return (False, self.search), (True, self.baselines)

    def close(self) -> None:
        """Write the log back into the one file."""
        self.backend.remove_session()
        self.backend.engine.dispose()


def open_database(folder: Path, space: Space, maximize: bool) -> Database:
    """The database of `space` in `folder`, begun if there is none.

    Raises:
        StudyError: the folder has another study, or the file cannot be used.
    """
    path = folder / DATABASE
    with storage_errors(path):
        storage, backend = _connect(path)
        name, wanted = study_name(space), directions(space.search.objectives, maximize)
        _refuse_another(folder, space, storage)
        pair = [
            optuna.create_study(
                storage=storage, study_name=each, directions=wanted, load_if_exists=True
            )
            for each in (name, name + SUFFIX)
        ]
        for study in pair:
            found = [direction.name.lower() for direction in study.directions]
            if found != wanted:
                raise StudyError(f"{path}: begun with directions {found}; expected {wanted}")
        if "definition" not in pair[0].user_attrs:
            pair[0].set_user_attr("definition", space.definition())
        return Database(path, storage, backend, *pair)


def read_trials(folder: Path) -> list[Trial]:
    """All trials of the study in `folder`, by number: baselines outside the grammar come first.

    Finalists are found with the trials whose activations they train again. A trial that goes on in
    a later one is left out, as its runs are in that one; so is what was proposed but not launched.

    Raises:
        StudyError: there is no study, or it cannot be read.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise StudyError(f"{path}: no such file; expected the results of a study")
    with storage_errors(path):
        storage, backend = _connect(path)
        names = optuna.get_all_study_names(storage)
        found = [name for name in names if name + SUFFIX in names]
        if len(found) != 1:
            raise StudyError(f"{path}: holds {len(found)} studies; expected one")
        pair = [
            optuna.load_study(study_name=name, storage=storage)
            for name in (found[0], found[0] + SUFFIX)
        ]
        database = Database(path, storage, backend, *pair)
        trials = records(database)
        database.close()
    return with_finals(trials)


def records(database: Database) -> list[Trial]:
    """What `read_trials` reads, of an open database; finalists are trials like the others."""
    found = [
        _record(baselines, frozen)
        for baselines, study in database.studies
        for frozen in study.get_trials(deepcopy=False)
        if "candidate" in frozen.user_attrs
        and "continued" not in frozen.user_attrs
        and frozen.state != TrialState.WAITING
    ]
    return sorted(found, key=lambda trial: trial.number)


def _record(baselines: bool, frozen: FrozenTrial) -> Trial:
    kept = frozen.user_attrs["candidate"]
    trial = recorded(frozen) or launched(record_number(baselines, frozen.number), kept)
    return replace(trial, choices=kept["choices"], runs=runs_of(frozen.user_attrs))


def recorded(frozen: FrozenTrial) -> Trial | None:
    """The record of a trial that has ended, without its runs and choices."""
    record = frozen.user_attrs.get("record")
    return None if record is None else trial_from_json({**record, "runs": [], "choices": {}})


def record_attribute(trial: Trial) -> dict[str, Any]:
    """A trial's record as its attribute; runs and choices are on the Optuna trial already."""
    return {k: v for k, v in to_json(trial).items() if k not in ("runs", "choices", "finals")}


def candidate_attribute(
    origin: str,
    name: str,
    expression: str,
    fingerprint: str,
    by: str,
    choices: Mapping[str, Any],
) -> dict[str, Any]:
    """What is known of a trial before it runs.

    `by` is who proposed it; `attempt` and `carried` count how often a killed driver cut it off
    since its last finished run, and how many runs it has from those.
    """
    return {
        "origin": origin,
        "name": name,
        "expression": expression,
        "fingerprint": fingerprint,
        "by": by,
        "choices": dict(choices),
        "attempt": 0,
        "carried": 0,
    }


def launched(number: int, candidate: Mapping[str, Any]) -> Trial:
    """The record of a trial that runs."""
    return Trial(
        number=number,
        origin=candidate["origin"],
        name=candidate["name"],
        expression=candidate["expression"],
        fingerprint=candidate["fingerprint"],
        state="running",
        choices=dict(candidate["choices"]),
        best_rate=candidate.get("rate"),
        of=candidate.get("of"),
        budget=candidate.get("budget", 1.0),
        task=candidate.get("task", ""),
        seeds=tuple(candidate.get("seeds", ())),
        rates=tuple(candidate.get("rates", ())),
    )


def run_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The runs among a trial's attributes."""
    return {key: value for key, value in attributes.items() if key.startswith("run ")}


def run_key(run: Run) -> str:
    """The attribute of a run.

    >>> run_key(Run(0.01, 0, "complete"))
    'run 0.01 0'
    """
    return f"run {run.learning_rate!r} {run.seed}"


def runs_of(attributes: Mapping[str, Any]) -> tuple[Run, ...]:
    """The runs of a trial by rate and seed."""
    runs = map(run_from_json, run_attributes(attributes).values())
    return tuple(sorted(runs, key=lambda run: (run.learning_rate, run.seed)))


def record_number(baselines: bool, number: int) -> int:
    """One number for both Optuna studies: their own in the search, -1, -2, … in the baselines.

    >>> record_number(False, 3), record_number(True, 0)
    (3, -1)
    """
    return -1 - number if baselines else number


def study_name(space: Space) -> str:
    """The name and a hash of what identifies the study."""
    text = json.dumps(space.definition(), sort_keys=True)
    return f"{space.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def directions(objectives: tuple[str, ...], maximize: bool) -> list[Direction]:
    """Optuna's directions of the objectives.

    >>> directions(("score", "cost"), maximize=True)
    ['maximize', 'minimize']
    """
    return ["maximize" if each == "score" and maximize else "minimize" for each in objectives]


def checked(trial: Trial, objectives: Sequence[str]) -> Trial:
    """The trial, as failed when it claims to be complete without finite values."""
    if trial.state != "complete" or all(map(math.isfinite, values_of(trial, objectives))):
        return trial
    found = zip(objectives, values_of(trial, objectives), strict=True)
    values = ", ".join(f"{name} is {value}" for name, value in found)
    return replace(trial, state="failed", reason=f"complete, yet {values}")


def values_of(trial: Trial, objectives: Sequence[str]) -> list[float]:
    """The objectives' values; NaN where there is none."""
    found = [trial.cost if objective == "cost" else trial.score for objective in objectives]
    return [math.nan if value is None else float(value) for value in found]


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The lines that differ between two definitions, as YAML, with their neighbours."""
    before, after = (
        yaml.safe_dump(dict(each), sort_keys=False, allow_unicode=True, width=100).splitlines()
        for each in (old, new)
    )
    return list(unified_diff(before, after, "the study", "the space", lineterm="", n=1))


def _refuse_another(folder: Path, space: Space, storage: BaseStorage) -> None:
    """Raises StudyError, with the difference, when the folder has a study of another definition."""
    names = optuna.get_all_study_names(storage)
    others = [each for each in names if not each.endswith(SUFFIX)]
    if study_name(space) in names or not others:
        return
    kept = optuna.load_study(study_name=others[0], storage=storage).user_attrs.get("definition", {})
    raise StudyError(
        f"{space.source}: the space has changed since the study in {folder} was begun:",
        *difference(kept, space.definition()),
        "expected the space as it was; or another name in it; or --fresh, which sets the results"
        " aside and begins anew",
    )


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Tell what the database refuses in one line."""
    try:
        yield
    except (SQLAlchemyError, OptunaError, OSError) as error:
        cause = error.__cause__ or error
        told = " ".join(str(getattr(cause, "orig", None) or cause).split())
        raise StudyError(f"{path}: cannot be used: {told}") from error


def _connect(path: Path) -> tuple[BaseStorage, RDBStorage]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    backend = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 30}})
    # A write-ahead log survives a killed process as the default journal does, and commits without
    # waiting for the disk: a trial with ten runs costs 31 ms of the driver instead of 87. (A power
    # cut may lose the last second, and never what was written before it.)
    event.listen(backend.engine, "connect", _use_write_ahead_log)
    backend.engine.dispose()
    return get_storage(backend), backend


def _use_write_ahead_log(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


# --- trials that wait ----------------------------------------------------------------------------


def count_waiting(study: optuna.Study) -> int:
    """Trials that are enqueued and not yet launched."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def continues(study: optuna.Study, number: int) -> bool:
    """Whether a later trial goes on with this one already: the driver was killed in between."""
    return any(
        trial.user_attrs.get("candidate", {}).get("continues") == number
        for trial in study.get_trials(deepcopy=False)
    )
