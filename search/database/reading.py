"""What a database says of its trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.database.attributes import launched, record_number, recorded, runs_of
from search.database.opening import Database, existing_database
from search.database.rows import all_stays
from search.finalists import with_finals
from search.records import Run, Trial


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


def all_runs(database: Database, number: int) -> tuple[Run, ...]:
    """The runs of a trial that has ended, which a driver does not keep in memory."""
    study, own = database.search, record_number(number < 0, number)
    if number < 0:
        study = database.baselines
    storage = database.backend or database.storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, own)
    return runs_of(storage.get_trial(trial_id).user_attrs)


def count_waiting(study: optuna.Study) -> int:
    """Trials that are enqueued and not yet launched."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
