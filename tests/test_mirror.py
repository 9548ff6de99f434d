"""The trials in a driver's memory are those in its database, as Optuna itself reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from search.database.mirror import Mirror, write_attributes
from search.database.rows import add_trials, each_attribute, load_trials
from search.database.storage import Place, connected, disconnect


@dataclass(frozen=True, slots=True)
class Open:
    """A study through a mirror, and what is under it."""

    backend: RDBStorage
    mirror: Mirror
    study: optuna.Study

    def there(self) -> list[FrozenTrial]:
        """The trials as Optuna reads them from the database."""
        return self.backend.get_all_trials(self.study._study_id)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    with connected(Place(tmp_path / "study.db")) as backend:
        mirror = Mirror(backend, heavy="run ")
        study = optuna.create_study(storage=mirror, study_name="one", direction="maximize")
        yield Open(backend, mirror, study)
        disconnect(backend)


def asked(study: optuna.Study, score: float | None = None, **attributes: object) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_categorical("F", ["x * G", "sin(x)", 3, None])
    trial.suggest_float("F/G[1].s", 0.5, 2.0, log=True)
    trial.suggest_int("n", 1, 9)
    for key, value in {"candidate": {"by": "test"}, **attributes}.items():
        trial.set_user_attr(key, value)
    if score is not None:
        study.tell(trial.number, score)
    return trial


def assert_same(here: FrozenTrial, there: FrozenTrial) -> None:
    """All but the moments, which the mirror takes by its own clock."""
    for name in ("number", "state", "params", "distributions", "system_attrs"):
        assert getattr(here, name) == getattr(there, name), name
    assert list(here.params) == list(there.params)
    assert here.values == there.values
    assert repr(here.intermediate_values) == repr(there.intermediate_values)
    for a, b in (
        (here.datetime_start, there.datetime_start),
        (here.datetime_complete, there.datetime_complete),
    ):
        assert (a is None) == (b is None)
        assert a is None or b is None or abs((a - b).total_seconds()) < 60


def various(study: optuna.Study) -> None:
    """Every state and every kind of number."""
    asked(study, 0.5)
    asked(study, math.inf)
    asked(study, -math.inf)
    pruned = asked(study)
    for step, value in enumerate((0.25, math.inf, -math.inf, math.nan, 0.75)):
        pruned.report(value, step)
    study.tell(pruned.number, state=TrialState.PRUNED)
    study.tell(asked(study).number, state=TrialState.FAIL)
    study.enqueue_trial({"F": "sin(x)", "n": 4}, user_attrs={"candidate": {"by": "queue"}})
    asked(study)  # takes that up, and runs
    study.enqueue_trial({"n": 7}, user_attrs={"candidate": {}})


def test_what_is_in_memory_is_what_is_in_the_database(opened: Open):
    various(opened.study)
    here, there = opened.study.get_trials(deepcopy=False), opened.there()
    assert [t.state for t in here] == [t.state for t in there]
    assert {t.state for t in here} == set(TrialState)
    for a, b in zip(here, there, strict=True):
        assert_same(a, b)
        assert a.user_attrs == b.user_attrs


def test_what_is_loaded_is_what_optuna_loads(opened: Open):
    various(opened.study)
    asked(opened.study, 0.1, **{"run 0.1 0": {"score": 0.5}})
    own, there = load_trials(opened.backend, opened.study._study_id), opened.there()
    assert len(own) == len(there) == 7
    for a, b in zip(own, there, strict=True):
        assert_same(a, b)
        assert (a.user_attrs, a._trial_id) == (b.user_attrs, b._trial_id)
        assert (a.datetime_start, a.datetime_complete) == (b.datetime_start, b.datetime_complete)


def test_a_trial_is_written_once_it_is_known_what_it_is(opened: Open):
    first = opened.study.ask()
    first.suggest_float("s", 0, 1)
    assert len(opened.study.get_trials()) == 1 and opened.there() == []
    second = opened.study.ask()
    second.suggest_float("s", 0, 1)
    second.set_user_attr("candidate", {"by": "test"})
    # Numbers count up in the order in which trials are written: the first goes with it.
    assert [t.params for t in opened.there()] == [first.params, second.params]
    assert [t.number for t in opened.there()] == [first.number, second.number] == [0, 1]
    third = opened.study.ask()
    opened.study.tell(third.number, state=TrialState.FAIL)
    assert opened.there()[2].state == TrialState.FAIL


def test_runs_of_what_has_ended_stay_in_the_database_alone(opened: Open):
    trial = asked(opened.study)
    runs = {"run 0.1 0": {"score": 0.5}, "run 0.1 1": {"score": 0.6}}
    write_attributes(opened.mirror, trial._trial_id, runs)
    write_attributes(opened.mirror, trial._trial_id, {"run 0.1 1": {"score": 0.7}})
    (here,), (there,) = opened.study.get_trials(), opened.there()
    assert here.user_attrs == there.user_attrs
    assert here.user_attrs["run 0.1 1"] == {"score": 0.7}
    opened.study.tell(trial.number, 0.65)
    running = asked(opened.study, None, **{"run 0.1 0": {"score": 0.1}})
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        write_attributes(opened.mirror, trial._trial_id, runs)
    again = optuna.load_study(
        storage=Mirror(opened.backend, heavy="run "), study_name="one"
    ).get_trials()
    for found in (opened.study.get_trials(), again):
        assert list(found[0].user_attrs) == ["candidate"]
        assert "run 0.1 0" in found[running.number].user_attrs
    assert "run 0.1 1" in opened.there()[0].user_attrs
    own = opened.study._study_id
    told = {(number, key) for number, key, _ in each_attribute(opened.backend, own)}
    light = {(number, key) for number, key, _ in each_attribute(opened.backend, own, "run ")}
    assert told - light == {(0, "run 0.1 0"), (0, "run 0.1 1"), (1, "run 0.1 0")}


def test_trials_written_in_bulk_are_those_that_optuna_writes(opened: Open):
    various(opened.study)
    ended = [t for t in opened.there() if t.state.is_finished()]
    further = opened.backend.create_new_study(opened.study.directions, "two")
    add_trials(opened.backend, further, ended[:2])
    add_trials(opened.backend, further, ended[2:])
    found = opened.backend.get_all_trials(further)
    assert [t.number for t in found] == list(range(len(ended)))
    for a, b in zip(found, ended, strict=True):
        b.number = a.number
        assert_same(a, b)
        assert a.user_attrs == b.user_attrs


def test_who_has_read_a_trial_sees_it_as_it_was(opened: Open):
    trial = asked(opened.study)
    before = opened.study.get_trials(deepcopy=False)[0]
    trial.set_user_attr("begun", True)
    opened.study.tell(trial.number, 1.0)
    assert (before.state, before.user_attrs) == (TrialState.RUNNING, {"candidate": {"by": "test"}})
    assert opened.mirror.get_trial_id_from_study_id_trial_number(opened.study._study_id, 0) < 0
    with pytest.raises(KeyError, match="no trial 1"):
        opened.mirror.get_trial_id_from_study_id_trial_number(opened.study._study_id, 1)
