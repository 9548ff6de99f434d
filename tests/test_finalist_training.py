"""How a finalist is trained: one rate, fresh seeds, one look at the test part."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from search.records import Run
from search.training.candidate import train_candidate
from search.training.job import Job, Outcome, Training
from search.training.rates import Grid
from tests.rings import ROOT, write


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
