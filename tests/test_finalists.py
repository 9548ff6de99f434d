"""Finalists and placebos: who is chosen, how they are trained, what a killed driver leaves."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from optuna.trial import TrialState

from search.errors import SpaceError
from search.figures.finals import finals_info
from search.figures.leaderboard import leaderboard_info
from search.figures.settings import ReportSettings
from search.finalists import chosen, entries, final_of, fresh_seeds, own_seeds
from search.orphans import descendants
from search.progress import Goal, line, standing
from search.proposals import Proposals
from search.records import Point, Run, Trial, to_json, trial_from_json
from search.run import main
from search.space.settings import Finalists, Space
from search.space.space import load_space
from search.statistics.calibration import placebo_share
from search.study import Launch, Study, open_study, read_trials
from search.training.candidate import (
    Job,
    Outcome,
    Training,
    task_of,
    train_candidate,
    training_of,
)
from search.training.sweep import Grid

ROOT = Path(__file__).resolve().parent.parent

# The test part is the validation part with the classes exchanged: accuracies add up to 1.
TASK = f"""
import sys
from dataclasses import asdict, replace
sys.path.insert(0, {str(ROOT / "tests")!r})
import toy_task
from search.tasks.task import Split

def load(data_root, **options):
    splits = toy_task.load(data_root, **options)
    inputs, targets = splits.validation.inputs, splits.validation.targets
    return replace(splits, test=Split(inputs[TESTED], 1 - targets[TESTED]))

TASK = replace(toy_task.TASK, load=load)
"""

YAML = """
name: rings
task: task.py
recipe: {epochs: EPOCHS}
activation:
  F:
    - x * G
    - x * G * (1 + g * tanh(std(x)))  where g in [0, 0.3]
  G:
    - sigmoid(ARG)
    - gompertz(ARG)
  ARG:
    - x
    - s * x  where s in log[0.5, 2]
depth: 3
baselines: [relu, silu]
learning_rate: {grid: [0.03, 0.1, 0.3], default: 0.1}
search: {sampler: random, trials: 2, seed: 0}
"""


def write(folder: Path, more: str = "", epochs: int = 2, tested: str = ":") -> Path:
    (folder / "task.py").write_text(TASK.replace("TESTED", tested), encoding="utf-8")
    path = folder / "rings.yaml"
    path.write_text(YAML.replace("EPOCHS", str(epochs)) + more, encoding="utf-8")
    return path


# --- who is chosen -------------------------------------------------------------------------------


def trial(number: int, score: float | None, origin: str = "search", **more: Any) -> Trial:
    values: dict[str, Any] = {
        "number": number,
        "origin": origin,
        "name": "",
        "expression": "x * sigmoid(x)",
        "fingerprint": f"{number:016x}",
        "state": "diverged" if score is None else "complete",
        "score": score,
        "best_rate": None if score is None else 0.1,
    }
    return Trial(**(values | more))


TRIALS = [
    trial(-2, 0.91, "placebo", name="placebo 1"),
    trial(-1, 0.90, "baseline", name="relu"),
    trial(0, 0.95),
    trial(1, 0.99),
    trial(2, 0.97),
    trial(3, 0.97),
    trial(4, None, "baseline", name="elu"),
    trial(5, 0.98, state="pruned"),
    trial(6, float("nan")),
]


def test_fresh_seeds_are_never_those_of_the_search():
    assert fresh_seeds(3, (0, 1)) == (2, 3, 4)
    assert fresh_seeds(3, (7, 2)) == (8, 9, 10)
    assert fresh_seeds(3, (2**32 - 1, 0)) == (1, 2, 3)


def test_the_best_and_every_baseline_and_placebo_with_a_score_are_chosen():
    assert [t.number for t in chosen(TRIALS, 2, True)] == [-1, 1, 2, -2]
    assert [t.number for t in chosen(TRIALS, 2, False)] == [-1, 0, 2, -2]
    assert [t.number for t in chosen(TRIALS, 0, True)] == [-1, -2]
    assert len(chosen(TRIALS, 99, True)) == 6  # fewer than there are places
    assert chosen([], 3, True) == []


def test_placebos_have_seeds_of_their_own():
    placebos = [trial(-n, 0.9, "placebo", name=f"placebo {n}") for n in range(1, 30)]
    seeds = [own_seeds(t, (0, 1, *fresh_seeds(10, (0, 1)))) for t in (*placebos, TRIALS[1])]
    assert len({seed for own in seeds for seed in own}) == 30 * 12
    assert seeds[-1][:3] == (0, 1, 2)


def test_only_what_is_missing_is_entered():
    wanted = Finalists(k=1, seeds=3)
    first = entries(TRIALS, wanted, (0, 1), {}, True)
    assert [(e.trial.number, e.seeds) for e in first[:2]] == [
        (-1, (2, 3, 4)),
        (1, (2, 3, 4)),
    ]
    entered = {(e.trial.number, e.budget, e.task): e.seeds for e in first}
    assert entries(TRIALS, wanted, (0, 1), entered, True) == []
    more = entries(TRIALS, Finalists(k=2, seeds=4), (0, 1), entered, True)
    assert [(e.trial.number, len(e.seeds)) for e in more] == [(-1, 1), (1, 1), (2, 4), (-2, 1)]
    longer = entries(TRIALS, replace(wanted, budget=2.0), (0, 1), entered, True)
    assert [len(e.seeds) for e in longer] == [3, 3, 3]


def test_candidates_and_baselines_are_entered_on_further_tasks():
    found = entries(TRIALS, Finalists(k=1, seeds=2, tasks=("mnist",)), (0, 1), {}, True)
    assert [(e.task, e.trial.number) for e in found] == [
        ("", -1), ("", 1), ("", -2), ("mnist", -1), ("mnist", 1)
    ]  # fmt: skip


def test_a_final_is_the_union_of_its_runs_under_common_seeds():
    placebo = TRIALS[0]
    own = own_seeds(placebo, (1000, 1001, 1002))
    runs = [Run(0.1, seed, "complete", score=0.5, test=0.9) for seed in own[:2]]
    lost = Run(0.1, own[2], "diverged", "nan")
    other = Run(0.1, own[0], "complete", test=0.1)
    parts = [
        trial(-5, 0.9, "finalist", of=-2, seeds=own[:2], runs=tuple(runs)),
        trial(-6, None, "finalist", of=-2, seeds=own[2:], runs=(lost,)),
        trial(-4, 0.1, "finalist", of=-2, seeds=own[:1], budget=2.0, runs=(other,)),
        trial(-7, 0.1, "finalist", of=-2, seeds=own[:1], task="mnist", runs=(other,)),
    ]
    final = final_of(replace(placebo, finals=tuple(parts)), 1.0)
    assert final is not None
    assert final.outcomes == {1000: 0.9, 1001: 0.9, 1002: None}
    assert (final.n, final.diverged, final.score, final.standard_error) == (2, 1, None, None)
    assert final_of(placebo, 1.0) is None
    kept = trial_from_json(to_json(replace(placebo, finals=tuple(parts))))
    assert final_of(kept, 1.0) == final


# --- a finalist's training -----------------------------------------------------------------------


def training(folder: Path, at_once: int, tested: str = ":") -> Training:
    write(folder, tested=tested)
    grid = Grid((0.01, 0.1), 0.1, (0, 1))
    return Training("task.py", folder, {}, {}, None, grid, at_once=at_once)


def again(folder: Path, at_once: int, **more: Any) -> tuple[Outcome, list[Run]]:
    runs: list[Run] = []
    fields: dict[str, Any] = {"seeds": (1000, 1001, 1002), "rate": 0.1} | more
    job = Job("silu(x)", gated=False, **fields)
    return train_candidate(training(folder, at_once), job, runs.append), runs


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_finalist_is_scored_once_on_the_test_part(tmp_path: Path, at_once: int):
    outcome, runs = again(tmp_path, at_once)
    assert {(r.learning_rate, r.seed) for r in runs} == {(0.1, s) for s in (1000, 1001, 1002)}
    for run in runs:
        assert run.score == run.curve[-1].score
        assert run.test == pytest.approx(1 - (run.score or 0), abs=1e-12)
        assert run.test != run.score
    assert outcome.state == "complete" and outcome.best_rate == 0.1
    assert outcome.score == pytest.approx(fmean(run.test or 0 for run in runs))
    assert outcome.cost is None
    searched: list[Run] = []
    train_candidate(training(tmp_path, at_once), Job("silu(x)", False), searched.append)
    assert {run.test for run in searched} == {None}
    assert {run.seed for run in searched} == {0, 1}


def test_both_ways_of_training_find_the_same(tmp_path: Path):
    found = [sorted(again(tmp_path, n)[1], key=lambda run: run.seed) for n in (1, 3)]
    assert [r.test for r in found[0]] == [r.test for r in found[1]]


def test_finished_runs_are_not_repeated_and_count(tmp_path: Path):
    known = Run(0.1, 1001, "complete", score=0.5, test=0.25)
    outcome, runs = again(tmp_path, 1, finished=(known,))
    assert [run.seed for run in runs] == [1000, 1002]
    assert outcome.score == pytest.approx(fmean([0.25, *(run.test or 0 for run in runs)]))


def test_a_budget_is_a_longer_training(tmp_path: Path):
    short, long = again(tmp_path, 1)[1], again(tmp_path, 1, budget=2.0)[1]
    assert [run.steps for run in long] == [2 * run.steps for run in short]
    assert [len(run.curve) for run in long] == [2 * len(run.curve) for run in short]


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_finalist_that_diverges_says_on_how_many_seeds(tmp_path: Path, at_once: int):
    outcome, runs = again(tmp_path, at_once, rate=1e9)
    assert (outcome.state, outcome.score) == ("diverged", None)
    assert outcome.reason.startswith("3 of 3 fresh seeds; seed 1000: step ")
    assert {(run.state, run.test) for run in runs} == {("diverged", None)}


@pytest.mark.parametrize("at_once", [1, 3])
def test_another_task_has_its_own_rate_and_then_fresh_seeds(tmp_path: Path, at_once: int):
    (tmp_path / "other.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\nimport toy_task\n"
        "from dataclasses import replace\n"
        "TASK = replace(toy_task.TASK, metric='loss', maximize=False)\n",
        encoding="utf-8",
    )
    outcome, runs = again(tmp_path, at_once, rate=None, task="other.py")
    tuned = [run for run in runs if run.seed == 0]
    fresh = [run for run in runs if run.seed >= 1000]
    assert len(tuned) + len(fresh) == len(runs)
    assert {run.learning_rate for run in tuned} >= {0.01, 0.1}
    assert {run.test for run in tuned} == {None}
    best = min(tuned, key=lambda run: run.score or 0)  # a loss
    assert {run.learning_rate for run in fresh} == {best.learning_rate} == {outcome.best_rate}
    assert sorted(run.seed for run in fresh) == [1000, 1001, 1002]
    assert outcome.score == pytest.approx(fmean(run.test or 0 for run in fresh))
    assert (outcome.environment["metric"], outcome.environment["maximize"]) == ("loss", False)
    # Killed after the sweep and one seed, it goes on with the rest.
    cut = (*tuned, fresh[0])
    _, rest = again(tmp_path, at_once, rate=None, task="other.py", finished=cut)
    assert {(run.learning_rate, run.seed) for run in rest} == {
        (run.learning_rate, run.seed) for run in fresh[1:]
    }


def test_a_task_without_a_test_part_says_so(tmp_path: Path):
    job = Job("silu(x)", gated=False, seeds=(1000,), rate=0.1)
    outcome = train_candidate(training(tmp_path, 1, tested=":0"), job)
    assert outcome.state == "failed"
    assert outcome.reason == "task toy has no test split to score finalists on"


# --- in the study --------------------------------------------------------------------------------

PATIENT = float("inf")


def opened(space: Space) -> Study:
    folder = space.source.parent / "results"
    folder.mkdir(exist_ok=True)
    return open_study(folder, space, maximize=True)


def small(folder: Path, *settings: str) -> Space:
    wanted = ("finalists={k: 1, seeds: 3}", "batching=off", *settings)
    return load_space(write(folder), wanted)


def trained(study: Study, launch: Launch, score: float = 0.9) -> Trial:
    for seed in launch.seeds or study.space.seeds:
        if seed not in {run.seed for run in launch.runs}:
            study.add_run(launch.number, a_run(seed, score, launch.rate))
    return study.finish(launch.number, state="complete", score=score, best_rate=0.3, cost=1.5)


def a_run(seed: int, score: float, rate: float | None) -> Run:
    curve = (Point(8, 1.0, 1.0, score),)
    test = None if rate is None else score / 2
    return Run(rate or 0.3, seed, "complete", score=score, test=test, curve=curve, steps=8)


def searched(study: Study) -> list[Launch]:
    """All of the study trained; the launches in their order."""
    proposals, launches = Proposals(study, None, PATIENT), []
    while launch := proposals.next():
        launches.append(launch)
        trained(study, launch, 0.8 + 0.01 * len(launches))
    assert proposals.ended == f"all {study.space.search.trials} trials are done"
    return launches


def reread(space: Space) -> list[Trial]:
    return read_trials(space.source.parent / "results")


def test_finalists_follow_the_search_with_its_best_rates(tmp_path: Path):
    study = opened(small(tmp_path))
    launches = searched(study)
    assert [x.origin for x in launches] == ["baseline"] * 2 + ["search"] * 2 + ["finalist"] * 3
    assert {(x.rate, x.seeds, x.budget) for x in launches[4:]} == {(0.3, (2, 3, 4), 1.0)}
    found = reread(study.space)
    finals = {t.number: [r.seed for f in t.finals for r in f.runs] for t in found}
    best = max((t for t in found if t.origin == "search"), key=lambda t: t.score or 0)
    expected = {t.number for t in found if t.origin == "baseline"} | {best.number}
    assert finals == {t.number: [2, 3, 4] * (t.number in expected) for t in found}
    assert all(f.best_rate == 0.3 and f.of == t.number for t in found for f in t.finals)
    assert study.is_complete() and opened(study.space).is_complete()
    # No sampler learns from them.
    assert len(study._database.search.get_trials()) == 3
    assert {t.state for t in study._database.baselines.get_trials()} == {TrialState.COMPLETE}


def test_finalists_wait_until_every_score_is_known(tmp_path: Path):
    study = opened(small(tmp_path))
    proposals = Proposals(study, None, PATIENT)
    launches = [proposals.next() for _ in range(4)]
    for launch in launches[1:]:
        assert launch is not None
        trained(study, launch)
    assert proposals.next() is None and not proposals.ended  # the first one runs
    assert launches[0] is not None
    trained(study, launches[0])
    final = proposals.next()
    assert final is not None and final.origin == "finalist"


def test_finalists_may_be_added_and_raised_in_a_complete_study(tmp_path: Path):
    plain = load_space(write(tmp_path), ())
    searched(opened(plain))
    before = reread(plain)
    assert all(not t.finals for t in before)
    for settings, count in (
        ("finalists={k: 1, seeds: 3}", 3),
        ("finalists={k: 1, seeds: 3}", 0),
        ("finalists={k: 2, seeds: 3}", 1),
        ("finalists={k: 2, seeds: 5}", 4),
        ("finalists={k: 2, seeds: 5, budget: 2}", 4),
    ):
        study = opened(load_space(write(tmp_path), (settings,)))
        assert study.is_complete() == (count == 0)
        launches = searched(study)
        assert [x.origin for x in launches] == ["finalist"] * count
        assert [replace(t, finals=()) for t in reread(plain)] == before
    budgets = Counter(f.budget for t in reread(plain) for f in t.finals)
    assert budgets == {1.0: 8, 2.0: 4}


def test_a_killed_finalist_goes_on_with_its_runs(tmp_path: Path):
    space = small(tmp_path)
    study = opened(space)
    proposals = Proposals(study, None, PATIENT)
    for _ in range(4):
        launch = proposals.next()
        assert launch is not None
        trained(study, launch)
    launch = proposals.next()
    assert launch is not None and launch.rate == 0.3
    study.add_run(launch.number, a_run(2, 0.9, 0.3))
    for _ in range(2):  # killed twice
        study = opened(space)
    assert not study.is_complete()
    rest = searched(study)
    assert [x.origin for x in rest] == ["finalist"] * 3
    assert sorted(len(x.runs) for x in rest) == [0, 0, 1]
    seeds = [[r.seed for f in t.finals for r in f.runs] for t in reread(space) if t.finals]
    assert seeds == [[2, 3, 4]] * 3


def test_placebos_are_candidates_that_only_the_duplicate_check_lets_pass(tmp_path: Path):
    study = opened(small(tmp_path, "placebos=2"))
    launches = searched(study)
    origins = Counter(x.origin for x in launches)
    assert origins == {"baseline": 2, "placebo": 2, "search": 2, "finalist": 5}
    placebos = [x for x in launches if x.origin == "placebo"]
    assert {x.expression for x in placebos} == {"relu(x)"}
    assert len({seed for x in placebos for seed in x.seeds} | {0, 1}) == 6
    assert study.trained() == 2  # the budget is the candidates'
    assert study.seen()[study.trials[placebos[0].number].fingerprint] == -1  # the baseline
    more = opened(small(tmp_path, "placebos=3"))
    assert Counter(x.origin for x in searched(more)) == {"placebo": 1, "finalist": 1}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("finalists={k: -1}", "finalists.k: expected a whole number ≥ 0, got -1"),
        ("finalists={seeds: 0}", "finalists.seeds: expected a whole number ≥ 1, got 0"),
        ("finalists={budget: 0.5}", "finalists.budget: expected a number ≥ 1, got 0.5"),
        ("finalists={seed: 3}", "unknown key 'finalists.seed'; did you mean 'seeds'?"),
        ("finalists=many", "finalists: expected a mapping of keys and values, got 'many'"),
        (
            "finalists={tasks: [mnst]}",
            "task: unknown task 'mnst'; did you mean 'mnist'?; or a path that ends in .py",
        ),
        ("finalists={tasks: task.py}", "finalists.tasks: 'task.py' is the search's own"),
        ("placebos=-1", "placebos: expected a whole number ≥ 0, got -1"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, setting: str, told: str):
    with pytest.raises(SpaceError) as caught:
        load_space(write(tmp_path), (setting,))
    assert caught.value.problems[0].endswith(told)


def test_placebos_need_relu_to_be_compared_with(tmp_path: Path):
    with pytest.raises(SpaceError, match="relu among the baselines"):
        load_space(write(tmp_path), ("placebos=2", "baselines=[silu]"))


def test_neither_is_part_of_what_identifies_a_study(tmp_path: Path):
    plain = load_space(write(tmp_path), ())
    other = load_space(write(tmp_path), ("finalists={k: 9}", "placebos=2"))
    assert other.definition() == plain.definition()
    assert other.finalists == Finalists(9, 10, 1.0) and other.placebos == 2


def test_finalists_are_counted_as_they_are_shown():
    goal = Goal("rings", "accuracy", True, 2, 1, placebos=1, finalists=4)
    ended = [
        *TRIALS[:4],
        trial(-8, 0.955, "finalist", of=1, seconds=3.0),
        trial(-9, 0.95, "finalist", of=1, seconds=3.0),
    ]
    now = standing(ended, goal)
    assert (now.trained, now.baselines, now.placebos, now.finalists) == (2, 1, 1, 1)
    assert goal.trials == 8
    text = line(ended[-1], now, goal)
    assert text.startswith("finalist 1/4  95.00 % on the test split at rate 0.1  x * sigmoid(x)")
    other = replace(ended[-1], task="text", score=1.5, environment={"metric": "loss"})
    assert "loss 1.5 on the test split of text at rate 0.1" in line(other, now, goal)


# --- real searches -------------------------------------------------------------------------------


def words(space: Path, *settings: str) -> list[str]:
    given = [word for setting in settings for word in ("--set", setting)]
    return [str(space), "--results", str(space.parent / "results"), *given]


@pytest.mark.usefixtures("ray_runs")
def test_a_complete_search_trains_its_finalists_when_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    space, folder = write(tmp_path, "batching: off\n"), tmp_path / "results" / "rings"
    assert main(words(space)) == 0
    before = read_trials(folder)
    capsys.readouterr()
    more = ("finalists={k: 1, seeds: 2}", "placebos=1")
    assert main(words(space, *more)) == 0
    out = capsys.readouterr().out
    assert "finalist 4/4" in out and "placebo 1/1" in out and " on the test split at " in out
    found = read_trials(folder)
    assert [replace(t, finals=()) for t in found if t.origin != "placebo"] == before
    finals = [(t, final) for t in found for final in t.finals]
    assert Counter(t.origin for t, _ in finals) == {"baseline": 2, "search": 1, "placebo": 1}
    for parent, final in finals:
        assert {r.learning_rate for r in final.runs} == {parent.best_rate} == {final.best_rate}
        assert [r.seed for r in final.runs] == list(own_seeds(parent, (2, 3)))
        assert all(r.test == pytest.approx(1 - (r.score or 0)) for r in final.runs)
        assert final.score == pytest.approx(fmean(r.test or 0 for r in final.runs))
        assert final.cost == parent.cost
    text = (folder / "leaderboard.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    fresh = {int(row["number"]): row for row in rows if row["fresh_score"]}
    assert {t.number for t, _ in finals} == set(fresh)
    for parent, final in finals:
        row = fresh[parent.number]
        assert float(row["fresh_score"]) == pytest.approx(final.score)
        assert float(row["shrinkage"]) == pytest.approx((parent.score or 0) - (final.score or 0))
        assert row["fresh_n"] == "2"
    assert main(words(space, *more)) == 0
    assert "complete, 2 candidates" in capsys.readouterr().out
    assert read_trials(folder) == found


def started(space: Path, *settings: str) -> subprocess.Popen[str]:
    """A search whose first finalist has just ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "search.run", *words(space, *settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    assert process.stdout is not None
    seen = []
    for text in process.stdout:
        seen.append(text)
        if text.startswith("finalist 1/"):
            return process
    raise AssertionError("".join(seen) + process.communicate()[1])


def test_a_search_killed_among_its_finalists_loses_and_repeats_nothing(tmp_path: Path):
    space, folder = write(tmp_path, "batching: off\n", epochs=4), tmp_path / "results" / "rings"
    wanted = ("finalists={k: 2, seeds: 12}",)
    process = started(space, *wanted)
    time.sleep(random.Random(5).uniform(0, 1))
    below = descendants(process.pid)
    process.kill()
    process.communicate()
    assert below
    before = read_trials(folder)
    runs = {(t.number, run) for t in before for final in t.finals for run in final.runs}
    ended = {f.number: f for t in before for f in t.finals if f.state == "complete"}
    assert ended and len(runs) >= 12
    assert main(words(space, *wanted)) == 0
    after = read_trials(folder)
    assert [replace(t, finals=()) for t in after] == [replace(t, finals=()) for t in before]
    assert runs <= {(t.number, run) for t in after for final in t.finals for run in final.runs}
    finals = {f.number: f for t in after for f in t.finals}
    assert {number: finals[number] for number in ended} == ended
    for parent in after:
        assert [r.seed for f in parent.finals for r in f.runs] == list(range(2, 14))


# --- do studies find what is not there? ----------------------------------------------------------


def studied(space: Space) -> list[Trial]:
    """The whole study, trained in this process."""
    study, task = opened(space), task_of(space)
    training, proposals = training_of(space, task), Proposals(study, None, PATIENT)
    while launch := proposals.next():
        gated = launch.origin not in ("baseline", "finalist")
        job = Job(launch.expression, gated, launch.runs, launch.seeds, launch.rate, launch.budget)
        runs: list[Run] = []
        outcome = train_candidate(replace(training, at_once=8), job, runs.append)
        for run in runs:
            study.add_run(launch.number, run)
        study.finish(launch.number, **asdict(outcome))
    study.close()
    return reread(space)


def declared(folder: Path, first: int) -> list[bool]:
    """Which placebos a study with its own seeds declares better than ReLU."""
    folder.mkdir()
    more = ("finalists={k: 0, seeds: 8}", "placebos=1", "baselines=[relu]", "search.trials=0")
    space = load_space(write(folder, tested=":"), (*more, f"seeds=[{first}, {first + 1}]"))
    board = leaderboard_info(studied(space), ReportSettings("rings"))
    info = finals_info(board, ReportSettings("rings"))
    assert info is not None and info.placebos is not None and info.placebos.placebos == 1
    return [info.placebos.declared == 1]


@pytest.mark.slow
def test_placebo_studies_declare_no_more_than_their_level_allows(tmp_path: Path):
    found = [one for n in range(20) for one in declared(tmp_path / str(n), 100 * n)]
    share = placebo_share(found)
    assert share.placebos == 20 and share.within
