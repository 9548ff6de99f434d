"""What a repair writes into the database below Optuna, which lets nothing change that has ended."""

from __future__ import annotations

import json
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

from search.database.attributes import record_attribute
from search.database.opening import Database
from search.records import Trial


def write_record(database: Database, trial: Trial) -> str:
    """Write the record of a trial that has none."""
    study = database.baselines if trial.number < 0 else database.search
    number = -1 - trial.number if trial.number < 0 else trial.number
    own = database.storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    statement = text(
        "insert into trial_user_attributes (trial_id, key, value_json) values (:own, :key, :value)"
    )
    value = json.dumps(record_attribute(trial))
    assert database.backend is not None, "a study in memory is not mended"
    with database.backend.engine.begin() as connection:
        connection.execute(statement, {"own": own, "key": "record", "value": value})
    return "its record is written anew from its runs"


def tell_again(
    database: Database, frozen: FrozenTrial, state: TrialState, values: Sequence[float] | None
) -> str:
    """Tell Optuna's tables what the record says: the state, and the values of a complete trial."""
    own = {"own": frozen._trial_id}
    value = text(
        "insert into trial_values (trial_id, objective, value, value_type)"
        " values (:own, :objective, :value, 'FINITE')"
    )
    assert database.backend is not None, "a study in memory is not mended"
    with database.backend.engine.begin() as connection:
        set_state = text("update trials set state = :state where trial_id = :own")
        connection.execute(set_state, own | {"state": state.name})
        if values is not None:
            connection.execute(text("delete from trial_values where trial_id = :own"), own)
            for objective, each in enumerate(values):
                connection.execute(value, own | {"objective": objective, "value": each})
    return "Optuna has what its record says"
