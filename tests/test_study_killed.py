"""A driver that was killed at any moment: what it left goes on, once and with its runs."""

from __future__ import annotations

from optuna.trial import TrialState

from search.samplers import build_sampler
from search.study import Launch
from search.trials.continuing import ATTEMPTS
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


# A driver is killed by forgetting its Study: nothing is closed, told or released.
def test_what_was_cut_off_goes_on_once_with_its_runs(make_space: MakeSpace):
    space = make_space()
    study = opened(space)
    baselines_trained(study)
    done, cut = launched(study), launched(study)
    trained(study, done)
    study.add_run(cut.number, run(rate=0.01))

    for _ in range(3):  # opened and killed again before it went on
        study = opened(space)
    assert [t.state for t in reread(study)].count("running") == 0
    again = study.next_waiting()
    assert again is not None and study.next_waiting() is None
    assert (again.expression, again.runs) == (cut.expression, (run(rate=0.01),))
    assert optunas(study)[cut.number].state == TrialState.FAIL
    trained(study, again)
    trials = reread(study)
    assert [t.number for t in trials if t.expression == cut.expression] == [again.number]
    assert next(t for t in trials if t.number == again.number).runs == (run(rate=0.01), run())
    assert next(t for t in trials if t.number == done.number).score == 0.9
    assert study.trained() == 2


def test_a_cut_off_baseline_goes_on_under_its_name(make_space: MakeSpace):
    space = make_space()
    study = opened(space)
    for _ in range(2):
        launch = study.next_waiting()
        assert launch is not None
        study.add_run(launch.number, run())
    study = opened(space)
    names = []
    while launch := study.next_waiting():
        assert launch.runs == (run(),)
        names.append(launch.name)
    assert sorted(names) == ["relu", "silu"]


def test_a_trial_recorded_but_not_told_is_told_as_recorded(make_space: MakeSpace):
    space = make_space()
    study = opened(space)
    baselines_trained(study)
    launch = launched(study)
    study._tell = lambda *_: None  # type: ignore[method-assign]  # killed right here
    trial = trained(study, launch)
    study = opened(space)
    frozen = optunas(study)[launch.number]
    assert (frozen.state, frozen.value) == (TrialState.COMPLETE, 0.9)
    assert study.next_waiting() is None and trial in reread(study)


def test_killed_between_asking_and_launching_nothing_is_left(make_space: MakeSpace):
    space = make_space()
    study = opened(space)
    baselines_trained(study)
    study.propose(build_sampler("random", 0, 0, 6), "random")
    study = opened(space)
    assert study.next_waiting() is None
    assert [t.state for t in reread(study)] == ["complete", "complete"]


def test_killed_while_it_was_arranged_that_a_trial_goes_on(make_space: MakeSpace):
    space = make_space()
    study = opened(space)
    baselines_trained(study)
    cut = launched(study)
    frozen = optunas(study)[cut.number]
    kept = frozen.user_attrs["candidate"] | {"continues": cut.number}
    study._database.search.enqueue_trial(kept["choices"], user_attrs={"candidate": kept})
    study = opened(space)
    assert study.next_waiting() is not None
    assert study.next_waiting() is None


def test_a_candidate_that_kills_the_driver_is_given_up(make_space: MakeSpace):
    space = make_space()
    study = opened(space)
    baselines_trained(study)
    launch: Launch | None = launched(study)
    for _ in range(ATTEMPTS):
        assert launch is not None
        study.begin(launch.number)
        study = opened(space)
        launch = study.next_waiting()
    assert launch is None
    (failed,) = [t for t in reread(study) if t.origin == "search"]
    assert failed.state == "failed" and "no run finished" in failed.reason
    assert study.trained() == 1


def test_one_that_no_worker_had_begun_is_not_given_up(make_space: MakeSpace):
    space = make_space()
    study = opened(space)
    baselines_trained(study)
    launched(study)
    for _ in range(2 * ATTEMPTS):
        study = opened(space)
        assert study.next_waiting() is not None


def test_one_that_makes_progress_is_not_given_up(make_space: MakeSpace):
    space = make_space()
    study = opened(space)
    baselines_trained(study)
    launch: Launch | None = launched(study)
    for seed in range(2 * ATTEMPTS):
        assert launch is not None
        study.begin(launch.number)
        study.add_run(launch.number, run(seed=seed))
        study = opened(space)
        launch = study.next_waiting()
    assert launch is not None and len(launch.runs) == 2 * ATTEMPTS


def test_a_stop_that_was_asked_for_is_no_attempt(make_space: MakeSpace):
    space = make_space()
    study = opened(space)
    baselines_trained(study)
    launched(study)
    for _ in range(2 * ATTEMPTS):
        study.release()
        study.close()
        study = opened(space)
        assert study.next_waiting() is not None
