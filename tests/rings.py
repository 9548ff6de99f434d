"""A small study on a toy task whose test part is known: what the tests of finalists share."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from search.proposals import Proposals
from search.records import Point, Run, Trial
from search.space.settings import Space
from search.space.space import load_space
from search.study import Launch, Study, open_study, read_trials
from search.training.candidate import (
    Job,
    Outcome,
    Training,
    train_candidate,
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
