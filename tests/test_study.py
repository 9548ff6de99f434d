"""The study on a real SQLite file: what Optuna is told, what a killed driver leaves, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.continuing import ATTEMPTS
from search.errors import StudyError
from search.failures import ALIKE
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.proposals import HOPELESS, PATIENCE, Proposals
from search.protocol import Rejection
from search.records import Point, Run, Trial
from search.samplers import SAMPLERS, build_sampler, scrambled_van_der_corput
from search.space.settings import Space
from search.space.space import load_space
from search.study import Launch, Study, open_study, read_trials

TOY = Path(__file__).parent / "toy_task.py"

YAML = """
name: toy
task: {task}
activation:
  F:
    - x * G
    - x * G + 0.1 * x
    - sin(x)
  G:
    - sigmoid(ARG)
    - gompertz(ARG)
  ARG:
    - x
    - {scaled}
depth: 3
baselines: [relu, silu]
learning_rate: {{grid: [0.01, 0.1, 1.0], default: 0.1}}
search: {{sampler: {sampler}, trials: {trials}, seed: 3{more}}}
"""
RANGE, CHOICE = "s * x where s in log[0.5, 2]", "s * x where s in {0.5, 2}"

MakeSpace = Callable[..., Space]

PATIENT = math.inf
"""Seconds that a proposal may take: no test depends on the machine's speed."""


@pytest.fixture
def make_space(tmp_path: Path) -> MakeSpace:
    def make(
        scaled: str = RANGE, sampler: str = "random", trials: int = 6, more: str = ""
    ) -> Space:
        path = tmp_path / "space.yaml"
        values = {"scaled": scaled, "sampler": sampler, "trials": trials, "more": more}
        path.write_text(YAML.format(task=TOY, **values), encoding="utf-8")
        return load_space(path)

    return make


def opened(space: Space) -> Study:
    folder = space.source.parent / "results"
    folder.mkdir(exist_ok=True)
    return open_study(folder, space, maximize=True)


def reread(study: Study) -> list[Trial]:
    """The trials as another process finds them."""
    return read_trials(study.space.source.parent / "results")


def run(rate: float = 0.1, seed: int = 0, score: float = 0.9) -> Run:
    point = Point(step=8, train_loss=0.5, loss=0.4, score=score)
    return Run(rate, seed, "complete", score=score, loss=0.4, curve=(point,), steps=8, seconds=0.5)


def trained(study: Study, launch: Launch, score: float = 0.9, **more: object) -> Trial:
    study.add_run(launch.number, run(score=score))
    outcome = {"state": "complete", "score": score, "best_rate": 0.1, "cost": 1.5, **more}
    return study.finish(launch.number, **outcome)


def baselines_trained(study: Study) -> None:
    while launch := study.next_waiting():
        trained(study, launch, 0.8)


def launched(study: Study, text: str = "") -> Launch:
    """A fresh candidate; with the formula `text` if given."""
    proposals = Proposals(study, None, PATIENT)
    if not text:
        launch = proposals.next()
        assert launch is not None
        return launch
    assert study.space.grammar is not None
    choices = study.space.grammar.find(parse(text))
    assert choices is not None, text
    return study.launch(study.propose_choices(choices, "test"))


def optunas(study: Study) -> list[optuna.trial.FrozenTrial]:
    return study._database.search.get_trials()


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


# --- a killed driver -----------------------------------------------------------------------------
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
    assert study.next_waiting() is None and study.trials[launch.number] == trial


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


# --- proposals -----------------------------------------------------------------------------------


def test_the_budget_counts_what_was_trained(make_space: MakeSpace):
    study = opened(make_space(trials=3))
    baselines_trained(study)
    proposals = Proposals(study, None, PATIENT)
    launches = [proposals.next() for _ in range(4)]
    assert launches[3] is None and not proposals.ended  # three run: wait
    assert launches[0] and launches[1] and launches[2]
    study.finish(launches[0].number, state="rejected", reason="training: no")
    fourth = proposals.next()
    assert fourth is not None
    for launch in (launches[1], launches[2], fourth):
        trained(study, launch)
    assert proposals.next() is None and proposals.ended == "all 3 trials are done"
    assert study.is_complete()
    more = opened(make_space(trials=4))
    assert not more.is_complete()
    assert Proposals(more, None, PATIENT).next() is not None


def test_duplicates_are_caught_before_launch_baselines_included(make_space: MakeSpace):
    study = opened(make_space(scaled=CHOICE, trials=30))
    baselines_trained(study)
    silu = next(t for t in study.trials.values() if t.name == "silu")
    proposals = Proposals(study, None, PATIENT)
    found: list[Launch] = []
    while launch := proposals.next():
        found.append(launch)
        trained(study, launch)
    seen = [fingerprint(parse(launch.expression)) for launch in found]
    assert len(set(seen)) == len(seen)
    # 2 gates × 3 arguments × 2 forms + sin, less SiLU: every one of them, though the budget is 30
    assert len(found) == 2 * 3 * 2 + 1 - 1
    assert proposals.ended == "none of the space's 13 candidates is left untried"
    twice = [t for t in reread(study) if t.state == "duplicate"]
    assert twice and all(t.reason == f"the same function as trial {t.duplicate_of}" for t in twice)
    numbers = {t.duplicate_of for t in twice if t.fingerprint == silu.fingerprint}
    assert numbers <= {silu.number}
    assert all(optunas(study)[t.number].state == TrialState.FAIL for t in twice)


def test_an_exhausted_space_stays_complete(make_space: MakeSpace):
    space = make_space(scaled=CHOICE, trials=30)
    study = opened(space)
    proposals = Proposals(study, None, PATIENT)
    while launch := proposals.next():
        trained(study, launch)
    study = opened(space)
    assert study.is_complete() and "left untried" in study.exhausted


def test_a_sampler_that_repeats_itself_gets_candidates_from_elsewhere(make_space: MakeSpace):
    study = opened(make_space(scaled=CHOICE, trials=30))
    baselines_trained(study)
    proposals = Proposals(study, None, PATIENT)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        proposals.sampler = optuna.samplers.PartialFixedSampler(
            {"F": "sin(x)"}, optuna.samplers.RandomSampler(seed=0)
        )
    found = []
    while launch := proposals.next():
        found.append(launch.expression)
        trained(study, launch)
    assert found[0] == "sin(x)" and len(found) == 12
    twice = [t for t in study.trials.values() if t.state == "duplicate"]
    assert len(twice) == PATIENCE * 12
    by = {t.user_attrs["candidate"]["by"] for t in optunas(study)}
    assert by == {"baseline", "random", "enumeration"}


def test_rejections_are_counted_and_do_not_count(make_space: MakeSpace):
    study = opened(make_space(trials=4))
    baselines_trained(study)

    def gate(expression: object) -> Rejection | None:
        return Rejection("shape", "it has a gompertz") if "gompertz" in str(expression) else None

    proposals = Proposals(study, gate, PATIENT)
    while launch := proposals.next():
        trained(study, launch)
    counts = study.counts()
    assert counts["complete"] == 4 and counts["rejected"] > 0
    rejected = [t for t in reread(study) if t.state == "rejected"]
    assert {t.reason for t in rejected} == {"shape: it has a gompertz"}


def test_a_search_in_which_nothing_passes_ends(make_space: MakeSpace):
    study = opened(make_space(trials=4))
    baselines_trained(study)
    proposals = Proposals(study, lambda _: Rejection("shape", "no"), PATIENT)
    assert proposals.next() is None
    assert str(HOPELESS) in proposals.ended
    assert study.trained() == 0


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


# --- samplers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_searches_the_grammar(make_space: MakeSpace, name: str):
    space = make_space(scaled=CHOICE, sampler=name if name != "cmaes" else "tpe", trials=8)
    study = opened(space)
    proposals = Proposals(study, None, PATIENT)
    proposals.sampler = build_sampler(name, 0, 0, 8, space.grammar)
    while launch := proposals.next():
        trained(study, launch, 0.5 + 0.1 * ("gompertz" in launch.expression))
    assert study.trained() == 8


def test_a_search_that_goes_on_does_not_draw_the_same_again(make_space: MakeSpace):
    def drawn(sampler: optuna.samplers.BaseSampler) -> list[float]:
        study = optuna.create_study(sampler=sampler)
        return [study.ask().suggest_float("s", 0, 1) for _ in range(3)]

    assert drawn(build_sampler("random", 0, 0, 8)) == drawn(build_sampler("random", 0, 0, 8))
    assert drawn(build_sampler("random", 0, 0, 8)) != drawn(build_sampler("random", 0, 3, 8))


@pytest.mark.parametrize("seed", [0, 1])
def test_quasi_random_points_are_even_alone_and_together(seed: int):
    points = [
        [scrambled_van_der_corput(i, seed, name) for i in range(256)] for name in ("F", "F/G")
    ]
    for column in points:
        for m in (2, 4, 8):
            for start in range(0, 256, 2**m):
                cells = {int(u * 2**m) for u in column[start : start + 2**m]}
                assert len(cells) == 2**m
    pairs = [(int(4 * a), int(4 * b)) for a, b in zip(*points, strict=True)]
    counts = [pairs.count(pair) for pair in set(pairs)]
    assert len(counts) == 16 and max(counts) <= 2.5 * min(counts)
