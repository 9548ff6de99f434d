"""The database of a study: how it is opened, and what is written in it.

`study.db`, or a server (see `search.storage`), holds two Optuna studies. `<name>-<hash of the
definition>` has the candidates, and the baselines that the grammar can express, as points that the
sampler learns from. `…/baselines` has the other baselines: without parameters, they would empty
the search space that samplers infer
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
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from search.errors import StudyError
from search.finalists import with_finals
from search.integrity.sealing import sealed
from search.mirror import Mirror
from search.records import Run, Trial, run_from_json, to_json, trial_from_json
from search.rows import all_stays
from search.space.settings import Space
from search.storage import (
    Place,
    claim,
    connected,
    disconnect,
    found_place,
    place_of,
    point,
    pointed_name,
)

SUFFIX = "/baselines"
RUN = "run "
"""How the keys of runs begin."""

Direction = Literal["minimize", "maximize"]


class Database(NamedTuple):
    """An open database and its two Optuna studies."""

    place: Place
    storage: BaseStorage
    backend: RDBStorage | None
    """None in memory."""
    search: optuna.Study
    baselines: optuna.Study
    claimed: Connection | None = None
    """Holds a server's study for this driver."""

    @property
    def studies(self) -> tuple[tuple[bool, optuna.Study], ...]:
        """Each study, after whether it is the baselines'."""
        return (False, self.search), (True, self.baselines)

    def close(self) -> None:
        """Write a file's log back into it, let go of a server."""
        if self.claimed is not None:
            self.claimed.close()
        if self.backend is not None:
            disconnect(self.backend)


def open_database(folder: Path, space: Space, maximize: bool, fresh: bool = False) -> Database:
    """The database of `space`, whose results are in `folder`; begun if there is none.

    fresh: begin anew on a server that has such a study already. (A file was set aside.)

    Raises:
        StudyError: the folder has another study, or the database cannot be used.
    """
    place = place_of(folder, space.storage)
    with connected(place) as backend:
        storage, wanted = Mirror(backend, RUN), directions(space.search.objectives, maximize)
        name = _name_there(folder, place, space, storage, fresh)
        claimed = claim(backend, place, name)
        search, baselines = (
            optuna.create_study(
                storage=storage, study_name=each, directions=wanted, load_if_exists=True
            )
            for each in (name, name + SUFFIX)
        )
        for study in (search, baselines):
            found = directions_of(study)
            if found != wanted:
                raise StudyError(f"{place}: begun with directions {found}; expected {wanted}")
        if "definition" not in search.user_attrs:
            search.set_user_attr("definition", space.definition())
        point(folder, place, name)
        return Database(place, storage, backend, search, baselines, claimed)


def open_in_memory(space: Space, maximize: bool) -> Database:
    """A database that is gone with the process, for searches that train nothing."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage, wanted = InMemoryStorage(), directions(space.search.objectives, maximize)
    name = study_name(space)
    search, baselines = (
        optuna.create_study(storage=storage, study_name=each, directions=wanted)
        for each in (name, name + SUFFIX)
    )
    return Database(Place(written="sqlite://"), storage, None, search, baselines)


def read_trials(folder: Path) -> list[Trial]:
    """All trials of the study in `folder`, by number: baselines outside the grammar come first.

    Finalists are found with the trials whose activations they train again. A trial that goes on in
    a later one is left out, as its runs are in that one; so is what was proposed but not launched.

    Raises:
        StudyError: there is no study, or it cannot be read.
    """
    with existing_database(folder) as database, all_stays():
        trials = records(database)
    return with_finals(trials)


@contextmanager
def existing_database(folder: Path) -> Iterator[Database]:
    """The database of the study in `folder`, to be read, whether a driver writes to it or not.

    Raises:
        StudyError: there is no study, or it cannot be read.
    """
    place, name = found_place(folder)
    with connected(place) as backend:
        storage = Mirror(backend)
        names = optuna.get_all_study_names(storage)
        found = [each for each in names if each + SUFFIX in names and name in ("", each)]
        if len(found) != 1:
            which = f"no study {name}" if name else f"{len(found)} studies; expected one"
            raise StudyError(f"{place}: holds {which}")
        search, baselines = (
            optuna.load_study(study_name=each, storage=storage)
            for each in (found[0], found[0] + SUFFIX)
        )
        database = Database(place, storage, backend, search, baselines)
        try:
            yield database
        finally:
            database.close()


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
    kept = to_json(trial).items()
    told = {k: v for k, v in kept if k not in ("runs", "choices", "finals")}
    # How many they are, so that a lost one is missed.
    return sealed(told | ({"runs": len(trial.runs)} if trial.state == "complete" else {}))


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
        sources=tuple(candidate.get("sources", ())),
    )


def run_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The runs among a trial's attributes."""
    return {key: value for key, value in attributes.items() if key.startswith(RUN)}


def run_key(run: Run) -> str:
    """The attribute of a run.

    >>> run_key(Run(0.01, 0, "complete"))
    'run 0.01 0'
    """
    return f"{RUN}{run.learning_rate!r} {run.seed}"


def runs_of(attributes: Mapping[str, Any]) -> tuple[Run, ...]:
    """The runs of a trial by rate and seed."""
    runs = map(run_from_json, run_attributes(attributes).values())
    return tuple(sorted(runs, key=lambda run: (run.learning_rate, run.seed)))


def all_runs(database: Database, number: int) -> tuple[Run, ...]:
    """The runs of a trial that has ended, which a driver does not keep in memory."""
    study, own = database.search, record_number(number < 0, number)
    if number < 0:
        study = database.baselines
    storage = database.backend or database.storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, own)
    return runs_of(storage.get_trial(trial_id).user_attrs)


def record_number(baselines: bool, number: int) -> int:
    """One number for both Optuna studies: their own in the search, -1, -2, … in the baselines.

    >>> record_number(False, 3), record_number(True, 0)
    (3, -1)
    """
    return -1 - number if baselines else number


def study_name(space: Space) -> str:
    """The name and a hash of what identifies the study."""
    return definition_name(space.definition())


def definition_name(definition: Mapping[str, Any]) -> str:
    """`study_name` of the space with this definition."""
    text = json.dumps(definition, sort_keys=True)
    return f"{definition['name']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def directions(objectives: tuple[str, ...], maximize: bool) -> list[Direction]:
    """Optuna's directions of the objectives.

    >>> directions(("score", "cost"), maximize=True)
    ['maximize', 'minimize']
    """
    return ["maximize" if each == "score" and maximize else "minimize" for each in objectives]


def directions_of(study: optuna.Study) -> list[Direction]:
    """Optuna's directions of a study that there is."""
    return ["maximize" if each.name == "MAXIMIZE" else "minimize" for each in study.directions]


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


def differences(
    here: Mapping[str, Any], there: Mapping[str, Any], within: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Every key with two values, in the order of the first: the deepest that holds a value.

    >>> list(differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}))
    [('b.c', 2, 3)]
    """
    for key in dict.fromkeys([*here, *there]):
        a, b = here.get(key), there.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, f"{within}{key}.")
        elif a != b:
            yield f"{within}{key}", a, b


def _name_there(folder: Path, place: Place, space: Space, storage: BaseStorage, fresh: bool) -> str:
    """The name of the space's study in its database.

    A file has the one study of its folder. A server has many, of other people too: the folder's
    own is the one that was begun from it; a folder without one goes on with the latest of the
    space, `<name>-<hash>`, `<name>-<hash>.2`, …, and `fresh` begins the next of those.

    Raises:
        StudyError: the folder's study has another definition, or is not on this server.
    """
    name, names = study_name(space), optuna.get_all_study_names(storage)
    if place.file is not None:
        others = [each for each in names if not each.endswith(SUFFIX)]
        if name not in names and others:
            _refuse_another(folder, space, storage, others[0])
        return name
    series = [name, *(f"{name}.{number}" for number in range(2, len(names) + 3))]
    begun = [each for each in series if each in names]
    if fresh:
        return next(each for each in series if each not in names)
    kept = pointed_name(folder)
    if kept and kept not in names:
        raise StudyError(
            f"{place}: holds no study {kept}, which was begun from {folder}; expected the database"
            " that has it, or --fresh, which begins anew"
        )
    if kept and kept not in series:
        _refuse_another(folder, space, storage, kept)
    return kept or (begun[-1] if begun else name)


def _refuse_another(folder: Path, space: Space, storage: BaseStorage, name: str) -> None:
    """Raises StudyError with the difference to the definition of the study that is there."""
    kept = optuna.load_study(study_name=name, storage=storage).user_attrs.get("definition", {})
    raise StudyError(
        f"{space.source}: the space has changed since the study in {folder} was begun:",
        *difference(kept, space.definition()),
        "expected the space as it was; or another name in it; or --fresh, which sets the results"
        " aside and begins anew",
    )


# --- trials that wait ----------------------------------------------------------------------------


def count_waiting(study: optuna.Study) -> int:
    """Trials that are enqueued and not yet launched."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
