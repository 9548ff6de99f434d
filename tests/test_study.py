"""The study on a real SQLite file: what is told, what is kept, what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.errors import StudyError
from search.records import Point
from search.study import read_trials
from search.trials.failures import ALIKE
from tests.study_cases import (
    MakeSpace,
    baselines_trained,
    launched,
    opened,
    optunas,
    reread,
    run,
    trained,
)

# --- baselines -----------------------------------------------------------------------------------


def test_baselines_that_the_grammar_has_are_points_of_the_search(make_space: MakeSpace):
    study = opened(make_space())
    first, second = study.next_waiting(), study.next_waiting()
    assert first and second and study.next_waiting() is None
    assert (first.name, first.origin, first.number) == ("relu", "baseline", -1)
    assert (second.name, second.origin, second.number) == ("silu", "baseline", 0)
    for launch in (first, second):
        trained(study, launch, 0.8)
    (silu,) = optunas(study)
    assert silu.state == TrialState.COMPLETE and silu.values == [0.8]
    assert silu.params["F"] == "x * G" and silu.params["F/G"] == "sigmoid(ARG)"
    # ReLU, with no parameters, would have emptied this:
    space = optuna.search_space.intersection_search_space(study._database.search.get_trials())
    assert "F" in space


def test_baselines_are_entered_once(make_space: MakeSpace):
    space = make_space()
    for _ in range(2):
        opened(space)
    study = opened(space)
    assert len(optunas(study)) == 1
    baselines_trained(study)
    study = opened(space)
    assert study.next_waiting() is None
    assert [t.name for t in reread(study)] == ["relu", "silu"]


# --- what is told --------------------------------------------------------------------------------


def test_every_state_is_told_as_it_was(make_space: MakeSpace):
    study = opened(make_space(trials=9))
    baselines_trained(study)
    told = {
        "complete": trained(study, launched(study)),
        "diverged": study.finish(launched(study).number, state="diverged", reason="nan"),
        "failed": study.finish(launched(study).number, state="failed", reason="ValueError: no"),
        "rejected": study.finish(launched(study).number, state="rejected", reason="training: no"),
    }
    launch = launched(study)
    study.add_epoch(launch.number, 1, 0.6, {(0.1, 0): Point(8, 1.0, 1.0, 0.6)})
    study.add_epoch(launch.number, 2, 0.7, {(0.1, 0): Point(16, 1.0, 1.0, 0.7)})
    told["pruned"] = study.prune(launch.number, 2)
    frozen = {t.number: t for t in optunas(study)}
    states = {name: frozen[trial.number].state.name for name, trial in told.items()}
    assert states == {
        "complete": "COMPLETE",
        "diverged": "FAIL",
        "failed": "FAIL",
        "rejected": "FAIL",
        "pruned": "PRUNED",
    }
    assert frozen[told["pruned"].number].value == 0.7  # the last epoch's: what samplers learn
    assert frozen[told["complete"].number].value == 0.9
    kept = {t.number: t for t in reread(study)}
    assert all(kept[trial.number] == trial for trial in told.values())
    pruned = kept[told["pruned"].number]
    assert [(r.state, r.steps, len(r.curve)) for r in pruned.runs] == [("pruned", 16, 2)]
    assert study.trained() == 4  # not the rejected one


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, None])
def test_what_is_not_finite_never_reaches_a_sampler(make_space: MakeSpace, score: float | None):
    study = opened(make_space())
    baselines_trained(study)
    launch = launched(study)
    trial = study.finish(launch.number, state="complete", score=score, best_rate=0.1)
    told = math.nan if score is None else score
    assert trial.state == "failed" and trial.reason == f"complete, yet score is {told}"
    frozen = optunas(study)[launch.number]
    assert frozen.state == TrialState.FAIL and frozen.values is None


def test_two_objectives_are_told_in_their_order(make_space: MakeSpace):
    study = opened(make_space(more=", objectives: [cost, accuracy]"))
    names = [direction.name for direction in study._database.search.directions]
    assert names == ["MINIMIZE", "MAXIMIZE"]
    baselines_trained(study)
    launch = launched(study)
    trained(study, launch, 0.9)
    assert optunas(study)[launch.number].values == [1.5, 0.9]
    lacking = launched(study)
    assert trained(study, lacking, cost=None).state == "failed"


def test_a_run_is_kept_as_soon_as_it_is_told(make_space: MakeSpace):
    study = opened(make_space())
    launch = study.next_waiting()
    assert launch is not None
    study.add_run(launch.number, run(seed=1))
    study.add_run(launch.number, run(seed=0))
    (found,) = reread(study)
    assert found.state == "running" and found.name == "relu"
    assert found.runs == (run(seed=0), run(seed=1))


# --- failures ------------------------------------------------------------------------------------


def test_failures_before_anything_worked_end_the_search_and_use_up_nothing(make_space: MakeSpace):
    space = make_space()
    study = opened(space)
    reason = "ValueError: my model is wrong (my_task.py:12)"
    launches = [study.next_waiting(), study.next_waiting()]
    launches.append(launched(study))
    for launch in launches[: ALIKE - 1]:
        assert launch is not None
        study.finish(launch.number, state="failed", reason=reason)
    assert launches[-1] is not None
    with pytest.raises(StudyError) as caught:
        study.finish(launches[-1].number, state="failed", reason=reason)
    assert str(caught.value) == f"toy: the first {ALIKE} trials failed alike: {reason}"
    study.release()
    study = opened(space)
    again = [study.next_waiting() for _ in range(4)]
    assert sorted(launch.name for launch in again if launch) == ["", "relu", "silu"]


def test_a_failure_counts_once_something_worked(make_space: MakeSpace):
    study = opened(make_space())
    first, second = study.next_waiting(), study.next_waiting()
    assert first and second
    study.finish(first.number, state="failed", reason="ValueError: no")
    assert study.trials[first.number].state == "running"
    trained(study, second)
    assert study.trials[first.number].state == "failed"
    assert next(t for t in reread(study) if t.number == first.number).reason == "ValueError: no"


# --- refusals ------------------------------------------------------------------------------------


def test_a_changed_space_is_refused_with_the_difference(make_space: MakeSpace):
    opened(make_space()).close()
    opened(make_space(trials=60)).close()  # the budget is no part of the definition
    with pytest.raises(StudyError) as caught:
        opened(make_space(scaled="s * x where s in log[0.5, 3]"))
    lines = caught.value.problems
    assert "space.yaml: the space has changed since the study in" in lines[0]
    assert any(line.startswith("-") and "log[0.5, 2]" in line for line in lines)
    assert any(line.startswith("+") and "log[0.5, 3]" in line for line in lines)
    assert "--fresh" in lines[-1]


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 cut off", b"not a database" * 100])
def test_a_damaged_database_is_refused_in_one_line(make_space: MakeSpace, content: bytes):
    space = make_space()
    opened(space).close()
    path = space.source.parent / "results" / "study.db"
    path.write_bytes(content)
    with pytest.raises(StudyError) as caught:
        read_trials(path.parent)
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_database_is_told(tmp_path: Path):
    with pytest.raises(StudyError, match="no such file; expected the results of a study"):
        read_trials(tmp_path)
    assert list(tmp_path.iterdir()) == []  # and nothing was made
