"""Whole searches on real Ray, with tasks that log what happens in their workers."""

from __future__ import annotations

import io
from itertools import accumulate
from pathlib import Path
from textwrap import dedent

import optuna
import pytest
from rich.console import Console

from search.decisions import read_log
from search.errors import SearchError
from search.plan import concurrency
from search.progress import Display, Goal, PlainDisplay
from search.records import Trial
from search.space.settings import Resources, Space
from search.space.space import load_space
from search.study import Study, open_study, read_trials
from search.summary import notes
from search.training.from_space import task_of, training_of
from search.tuner import run_search

pytestmark = pytest.mark.usefixtures("ray_runs")

TESTS = Path(__file__).parent

# The toy task, with a log of the processes that load it, and formulas that break.
TASK = """
import os, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
import toy_task

HERE = Path(__file__).parent

def note(text):
    with (HERE / "log.txt").open("a") as log:
        log.write(text + chr(10))

def load(data_root, **options):
    note(f"load {{os.getpid()}}")
    {load}
    return toy_task.load(data_root, **options)

def build(make_activation, splits, **options):
    formula = str(getattr(make_activation(), "expression", ""))
    note(f"build {{formula}}")
    {build}
    return toy_task.build(make_activation, splits, **options)

TASK = replace(toy_task.TASK, load=load, build=build)
"""

YAML = """
name: toy
task: task.py
recipe: {epochs: EPOCHS}
activation:
  F:
    - x * G
    - x * G * (1 + g * tanh(std(x)))  where g in [0, 0.3]
    - 0.002 * x * G
  G:
    - sigmoid(ARG)
    - gompertz(ARG)
  ARG:
    - x
    - s * x  where s in log[0.5, 2]
depth: 3
baselines: [relu, silu]
learning_rate: {grid: [0.03, 0.3], default: 0.3}
search: {sampler: random, trials: 6, seed: 1}
"""


class Lines:
    """What a display was told."""

    def __init__(self) -> None:
        self.console = Console(record=True, file=io.StringIO(), width=200)
        self.ended: list[Trial] = []

    def display(self, goal: Goal) -> Display:
        return PlainDisplay(self.console, goal)

    def text(self) -> str:
        return self.console.export_text(clear=False)


def space(folder: Path, *settings: str, load: str = "", build: str = "", epochs: int = 2) -> Space:
    values = {"tests": str(TESTS), "load": load or "pass", "build": build or "pass"}
    (folder / "task.py").write_text(TASK.format(**values), encoding="utf-8")
    path = folder / "space.yaml"
    path.write_text(dedent(YAML).replace("EPOCHS", str(epochs)), encoding="utf-8")
    return load_space(path, settings)


def search(wanted: Space, lines: Lines | None = None) -> tuple[Study, str]:
    folder, task = wanted.source.parent / "results", task_of(wanted)
    folder.mkdir(exist_ok=True)
    study = open_study(folder, wanted, task.maximize)
    goal = Goal(
        wanted.name, task.metric, task.maximize, wanted.search.trials, len(wanted.baselines)
    )
    epochs = int(wanted.recipe["epochs"])
    show = (lines or Lines()).display
    why = run_search(study, training_of(wanted, task), epochs, goal, show)
    study.close()
    return study, why


def log(folder: Path, word: str) -> list[str]:
    lines = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} ")]


def test_a_search_trains_every_trial_in_processes_that_are_used_again(tmp_path: Path):
    lines = Lines()
    _, why = search(space(tmp_path), lines)
    trials = read_trials(tmp_path / "results")
    trained = [t for t in trials if t.state == "complete"]
    assert why == "all 6 trials are done"
    assert [t.name for t in trained if t.origin == "baseline"] == ["relu", "silu"]
    assert len([t for t in trained if t.origin == "search"]) == 6
    assert {t.state for t in trials} <= {"complete", "duplicate"}
    for trial in trained:
        assert len({(r.learning_rate, r.seed) for r in trial.runs}) == len(trial.runs) >= 4
        assert trial.cost and trial.seconds and trial.environment["threads"] == 1
    # The driver loads the task twice (here), each worker once: its process is used again.
    assert len(set(log(tmp_path, "load"))) <= 2
    # One more than there are slots is under way: it was proposed while the others trained.
    told = read_log(tmp_path / "results")
    launched = accumulate({"launched": 1, "ended": -1}.get(each["what"], 0) for each in told)
    assert max(launched) == 2 + 1
    assert len(lines.text().splitlines()) == 8
    assert "6/6  " in lines.text() and "baseline 2/2" in lines.text()


def test_failures_are_kept_and_stop_nothing(tmp_path: Path):
    wanted = space(
        tmp_path,
        "search.seed=2",
        build="""if "gompertz" in formula:
        raise ValueError("no gompertz here")
    if "0.002" in formula:
        os._exit(3)""",
    )
    search(wanted)
    trials = [t for t in read_trials(tmp_path / "results") if t.state != "duplicate"]
    assert len(trials) == 8
    for trial in trials:
        if "gompertz" in trial.expression:
            assert trial.state == "failed"
            assert trial.reason.startswith("ValueError: no gompertz here (task.py:")
        elif "0.002" in trial.expression:
            assert trial.state == "failed" and "\n" not in trial.reason
        else:
            assert trial.state == "complete"
    assert {t.state for t in trials if "gompertz" in t.expression} == {"failed"}
    assert {t.state for t in trials if "0.002" in t.expression} == {"failed"}


def test_a_task_that_cannot_work_ends_the_search_and_uses_up_nothing(tmp_path: Path):
    broken = {
        'from search.errors import TaskError; raise TaskError("no data in /nowhere")': "no data",
        "return None": "the first 3 trials failed alike: ",
    }
    for load, told in broken.items():
        with pytest.raises(SearchError, match=told) as caught:
            search(space(tmp_path, "search.trials=2", load=load))
        assert len(caught.value.problems) == 1
        assert read_trials(tmp_path / "results") == []
    study, _ = search(space(tmp_path, "search.trials=2"))  # mended
    assert study.counts()["complete"] == 2
    assert [t.name for t in study.trials.values() if t.state == "complete"][:2] == ["relu", "silu"]


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_early_stopping_prunes_candidates_and_no_baseline(tmp_path: Path, rule: str):
    wanted = space(
        tmp_path, f"search.stopping={rule}", "search.trials=10", "search.seed=4", epochs=6
    )
    study, _ = search(wanted)
    trials = [t for t in read_trials(tmp_path / "results") if t.state != "duplicate"]
    pruned = [t for t in trials if t.state == "pruned"]
    assert {t.state for t in trials} == {"complete", "pruned"}
    assert {t.state for t in trials if t.origin == "baseline"} == {"complete"}
    assert pruned and any("0.002" in t.expression for t in pruned)
    frozen = {t.number: t for t in study._database.search.get_trials()}
    for trial in pruned:
        epoch = int(trial.reason.split()[-1])
        assert trial.reason == f"stopped by {rule} after epoch {epoch}" and 1 <= epoch < 6
        assert {r.state for r in trial.runs} == {"pruned"} and len(trial.runs) == 4
        assert {len(r.curve) for r in trial.runs} == {epoch}
        assert frozen[trial.number].state == optuna.trial.TrialState.PRUNED
        assert len(frozen[trial.number].intermediate_values) == epoch
    for trial in trials:
        if trial.state == "complete":
            assert frozen.get(trial.number) is None or trial.score is not None


def test_halving_ends_rates_of_candidates_and_baselines_alike(tmp_path: Path):
    rates = "learning_rate={grid: [0.003, 0.01, 0.03, 0.1, 0.3], default: 0.03, halving: on}"
    search(space(tmp_path, rates, "search.trials=2", "search.stopping=asha", epochs=8))
    trials = read_trials(tmp_path / "results")
    trained = [t for t in trials if t.state == "complete"]
    assert {t.name for t in trained} >= {"relu", "silu"}
    for trial in trained:
        left = [r for r in trial.runs if r.state == "pruned"]
        assert {r.learning_rate for r in left}.isdisjoint({trial.best_rate})
        assert left and {r.reason.split(":")[0] for r in left} <= {
            "rung after epoch 2",
            "rung after epoch 4",
        }
        assert trial.spared == sum(max(x.steps for x in trial.runs) - r.steps for r in left)
        assert len({(r.learning_rate, r.seed) for r in trial.runs}) == len(trial.runs) >= 10
    assert "halving spared" in "".join(notes(trials))


def test_two_objectives_are_searched_together(tmp_path: Path):
    wanted = space(
        tmp_path, "search.objectives=[accuracy, cost]", "search.sampler=nsgaii", "search.trials=4"
    )
    study, _ = search(wanted)
    best = study._database.search.best_trials
    assert best and all(len(trial.values) == 2 for trial in best)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (Resources(), 2),
        (Resources(max_concurrent=1), 1),
        (Resources(cpu=0.5), 4),
        (Resources(cpu=1, gpu=0.25), 2),
        (Resources(cpu=0.1, gpu=0.1), 10),
    ],
)
def test_concurrency_follows_from_the_resources(resources: Resources, expected: int):
    assert concurrency(resources, cpus=2, gpus=1) == expected


def test_more_than_there_is_is_refused_in_one_line_each():
    with pytest.raises(SearchError) as caught:
        concurrency(Resources(cpu=8, gpu=1), cpus=2, gpus=0)
    assert [p.split(":")[0] for p in caught.value.problems] == ["resources.cpu", "resources.gpu"]
