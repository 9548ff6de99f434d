"""A study's trials in the memory of the driver that writes them.

Optuna's own cache asks the database again, at every question, for all trials that have not ended,
with all that is written on them: 8 ms, six times a proposal. A driver is the only one that writes
its study (see `search.claiming`), so what it has read and written is all there is.

A trial that is asked for is kept back until it is known what it is: then it is written at once,
with its parameters, in one transaction in place of nine.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.database.rows import load_trials, put_attributes


class Mirror(BaseStorage):
    """Reads from memory, writes through to `backend`.

    Args:
        backend: of which nobody else writes the studies that are asked for here.
        heavy: attributes whose keys begin so are not kept of trials that have ended; empty: all
            are.
        known_by: the attribute with which a trial that was asked for is written.
    """

    def __init__(self, backend: RDBStorage, heavy: str = "", known_by: str = "candidate"):
        self.backend = backend
        self.heavy = heavy
        self.known_by = known_by
        self._trials: dict[int, list[FrozenTrial]] = {}
        """By study, in order of their numbers, which are their places where no row was lost."""
        self._places: dict[int, tuple[int, int]] = {}
        """Study and place of a trial, by its id here."""
        self._written: dict[int, int] = {}
        """The id in the database of those with another one here."""
        self._directions: dict[int, list[StudyDirection]] = {}
        self._names: dict[int, str] = {}

    # --- studies ---------------------------------------------------------------------------------

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        return self.backend.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self.backend.delete_study(study_id)
        self._trials.pop(study_id, None)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self.backend.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.backend.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self.backend.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        if study_id not in self._names:
            self._names[study_id] = self.backend.get_study_name_from_id(study_id)
        return self._names[study_id]

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        if study_id not in self._directions:
            self._directions[study_id] = self.backend.get_study_directions(study_id)
        return self._directions[study_id]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self.backend.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self.backend.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[Any]:
        return self.backend.get_all_studies()

    # --- what is written -------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trials = self._of(study_id)
        if template_trial is None:
            trial, own = _asked(len(trials)), -1 - len(self._places)
        else:
            self._write_all(study_id)
            trial = copy.deepcopy(template_trial)
            own = self.backend.create_new_trial(study_id, trial)
        trial.number, trial._trial_id = len(trials), own
        self._places[own] = study_id, trial.number
        trials.append(trial)
        return own

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        if (there := self._there(trial_id)) is not None:
            self.backend.set_trial_param(there, param_name, param_value_internal, distribution)
        value = distribution.to_external_repr(param_value_internal)
        self._change(trial_id, params={param_name: value}, distributions={param_name: distribution})

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        own = self._write(trial_id)
        if not self.backend.set_trial_state_values(own, state, values):
            return False
        now, trial = datetime.now(), copy.copy(self.get_trial(trial_id))
        trial.state = state
        if values is not None:
            trial.values = list(values)
        if state == TrialState.RUNNING:
            trial.datetime_start = now
        if state.is_finished():
            trial.datetime_complete = now
            trial.user_attrs = {k: v for k, v in trial.user_attrs.items() if self._kept(k)}
        self._put(trial)
        return True

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        own = self._write(trial_id)
        self.backend.set_trial_intermediate_value(own, step, intermediate_value)
        self._change(trial_id, intermediate_values={step: intermediate_value})

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if (there := self._there(trial_id)) is not None:
            self.backend.set_trial_user_attr(there, key, value)
        self._change(trial_id, user_attrs={key: value})
        if key == self.known_by:
            self._write(trial_id)

    def set_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Several at once, all or none of them."""
        own = self._write(trial_id)
        self.check_trial_is_updatable(trial_id, self.get_trial(trial_id).state)
        put_attributes(self.backend, own, attributes)
        self._change(trial_id, user_attrs=dict(attributes))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if (there := self._there(trial_id)) is not None:
            self.backend.set_trial_system_attr(there, key, value)
        self._change(trial_id, system_attrs={key: value})

    # --- what is read ----------------------------------------------------------------------------

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if trial_id not in self._places:
            raise KeyError(f"no trial with the id {trial_id} is known")
        study_id, place = self._places[trial_id]
        return self._trials[study_id][place]

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        trials = self._of(study_id)
        here = trials[trial_number : trial_number + 1] if trial_number >= 0 else []
        if not (here and here[0].number == trial_number):  # rows were lost of a damaged study
            here = [trial for trial in trials if trial.number == trial_number]
        if not here:
            raise KeyError(f"study {study_id} has no trial {trial_number}")
        return here[0]._trial_id

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        trials = self._of(study_id)
        found = [t for t in trials if t.state in states] if states is not None else list(trials)
        return copy.deepcopy(found) if deepcopy else found

    def remove_session(self) -> None:
        self.backend.remove_session()

    # --- between the two -------------------------------------------------------------------------

    def _of(self, study_id: int) -> list[FrozenTrial]:
        """The trials of a study, read when it is first asked for."""
        if study_id not in self._trials:
            found = self._trials[study_id] = load_trials(self.backend, study_id, self.heavy)
            for place, trial in enumerate(found):
                self._places[trial._trial_id] = study_id, place
        return self._trials[study_id]

    def _kept(self, key: str) -> bool:
        """Whether an attribute stays in memory when its trial has ended."""
        return not self.heavy or not key.startswith(self.heavy)

    def _there(self, trial_id: int) -> int | None:
        """The trial's id in the database; None where it is kept back."""
        return trial_id if trial_id >= 0 else self._written.get(trial_id)

    def _write(self, trial_id: int) -> int:
        """Write the trial if it was kept back, after those before it; its id in the database."""
        if (there := self._there(trial_id)) is not None:
            return there
        study_id, place = self._places[trial_id]
        self._write_all(study_id, place + 1)
        return self._written[trial_id]

    def _write_all(self, study_id: int, before: int | None = None) -> None:
        """Write what was kept back: numbers are given in the order in which trials are written."""
        trials = self._trials[study_id][:before]
        held = []
        for trial in reversed(trials):
            if self._there(trial._trial_id) is not None:
                break
            held.append(trial)
        for trial in reversed(held):
            self._written[trial._trial_id] = self.backend.create_new_trial(study_id, trial)

    def _change(self, trial_id: int, **added: dict[Any, Any]) -> None:
        """Another trial with more in it: who holds the old one sees no change."""
        trial = copy.copy(self.get_trial(trial_id))
        self.check_trial_is_updatable(trial_id, trial.state)
        for name, more in added.items():
            setattr(trial, name, {**getattr(trial, name), **more})
        self._put(trial)

    def _put(self, trial: FrozenTrial) -> None:
        study_id, place = self._places[trial._trial_id]
        self._trials[study_id][place] = trial


def write_attributes(storage: BaseStorage, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Set a trial's attributes: in one transaction, where the storage is a mirror."""
    if isinstance(storage, Mirror):
        storage.set_trial_user_attrs(trial_id, attributes)
        return
    for key, value in attributes.items():
        storage.set_trial_user_attr(trial_id, key, value)


def _asked(number: int) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        state=TrialState.RUNNING,
        value=None,
        values=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=-1,
    )
