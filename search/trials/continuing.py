"""What becomes of a trial that did not end: it goes on in a new one with the runs it has, or is
given up when it was cut off too often.

Whose fault it was decides how often that is: a killed driver and a lost node are rarely the
candidate's, a dead worker often is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.database.attributes import (
    launched,
    record_attribute,
    record_number,
    recorded,
    run_attributes,
    values_of,
)
from search.database.opening import Database
from search.records import Trial
from search.trials.ladder import is_paused, rung_attributes

ATTEMPTS = 10
"""How often a trial may be cut off without finishing one more run before it is given up."""
DEATHS = 2
"""How often its worker may die without finishing one more run: it is tried again once."""

NOT_ENDED = (TrialState.RUNNING, TrialState.WAITING)

Cause = Literal["asked", "driver", "node", "worker"]
"""Who ended it: a user, a killed driver, a lost machine, or the death of its own worker."""


_CUT = {
    "asked": "driver stopped",
    "driver": "driver stopped",
    "node": "its machine was lost",
    "worker": "its worker died",
}


def next_attempt(attributes: Mapping[str, Any], cause: Cause) -> dict[str, Any] | None:
    """What is to be changed in the `candidate` of a trial that goes on; None: it is given up.

    Only what a worker had begun counts, and a run that has ended since forgives all before it.

    >>> kept = {"attempt": 0, "carried": 0}
    >>> once = next_attempt({"candidate": kept, "begun": True}, "worker")
    >>> once
    {'attempt': 0, 'deaths': 1, 'carried': 0}
    >>> next_attempt({"candidate": kept | once, "begun": True}, "worker")
    """
    kept, runs = attributes["candidate"], run_attributes(attributes)
    stuck, begun = len(runs) == kept["carried"], attributes.get("begun", False)
    attempt = (kept["attempt"] if stuck else 0) + (begun and cause in ("driver", "node"))
    deaths = (kept.get("deaths", 0) if stuck else 0) + (begun and cause == "worker")
    if attempt >= ATTEMPTS or deaths >= DEATHS:
        return None
    return {"attempt": attempt, "deaths": deaths, "carried": len(runs)}


def release(
    database: Database,
    objectives: tuple[str, ...],
    baselines: bool,
    frozen: FrozenTrial,
    cause: Cause,
) -> None:
    """Let go of a trial that Optuna takes for running: it waits as a new one, with its runs.

    One that had ended is told as it was recorded; one that is given up is told as failed.
    """
    study = database.baselines if baselines else database.search
    trial = recorded(frozen)
    if "candidate" not in frozen.user_attrs:  # asked for, never launched
        study.tell(frozen.number, state=TrialState.FAIL)
    elif trial is not None:  # ended, and the driver was killed before it told
        tell(study, trial, frozen.number, objectives)
    else:
        again = next_attempt(frozen.user_attrs, cause)
        reason = f"{_CUT[cause]} {ATTEMPTS} times while it ran, and no run finished meanwhile"
        if again is not None:
            reason = f"{_CUT[cause]}; goes on in a later trial"
            _enqueue(database, study, frozen, again)
        number = record_number(baselines, frozen.number)
        trial = launched(number, frozen.user_attrs["candidate"])
        attribute = record_attribute(replace(trial, state="failed", reason=reason))
        database.storage.set_trial_user_attr(frozen._trial_id, "record", attribute)
        study.tell(frozen.number, state=TrialState.FAIL)


def release_all(database: Database, objectives: tuple[str, ...], cause: Cause) -> None:
    """Let go of all that run but those that wait at a rung."""
    for baselines, study in database.studies:
        for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not is_paused(frozen.user_attrs):
                release(database, objectives, baselines, frozen, cause)


def _enqueue(
    database: Database, study: optuna.Study, frozen: FrozenTrial, again: Mapping[str, Any]
) -> None:
    kept = frozen.user_attrs["candidate"]
    if not continues(study, frozen.number):  # a driver killed right here has done it already
        number = record_number(study is database.baselines, frozen.number)
        where = {"continues": frozen.number, "checkpoints": checkpoints_of(number, kept)}
        changed = kept | again | where
        known = run_attributes(frozen.user_attrs) | rung_attributes(frozen.user_attrs)
        attributes = {"candidate": changed, **known}
        study.enqueue_trial(kept["choices"], user_attrs=attributes)
    database.storage.set_trial_user_attr(frozen._trial_id, "continued", True)


def continues(study: optuna.Study, number: int) -> bool:
    """Whether a later trial goes on with this one already: the driver was killed in between."""
    return any(
        trial.user_attrs.get("candidate", {}).get("continues") == number
        for trial in study.get_trials(deepcopy=False)
    )


def checkpoints_of(number: int, candidate: Mapping[str, Any]) -> str:
    """The folder of a trial's checkpoints: that of the first trial that goes on in it.

    >>> checkpoints_of(7, {}), checkpoints_of(9, {"checkpoints": "trial_7"})
    ('trial_7', 'trial_7')
    """
    return candidate.get("checkpoints", f"trial_{number}")


def going_on(database: Database) -> set[str]:
    """The folders of the checkpoints of all trials that have not ended."""
    return {
        checkpoints_of(record_number(baselines, frozen.number), frozen.user_attrs["candidate"])
        for baselines, study in database.studies
        for frozen in study.get_trials(deepcopy=False, states=NOT_ENDED)
        if "candidate" in frozen.user_attrs
    }


def tell(study: optuna.Study, trial: Trial, number: int, objectives: tuple[str, ...]) -> None:
    """Tell Optuna how a trial ended."""
    if trial.state == "complete":
        study.tell(number, values_of(trial, objectives))
    else:
        state = TrialState.PRUNED if trial.state == "pruned" else TrialState.FAIL
        study.tell(number, state=state)
