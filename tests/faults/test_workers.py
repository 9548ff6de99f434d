"""Workers that crash, are killed, hang or run out of memory: the search goes on, on real Ray."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from test_run import gone
from test_tuner import log, search, space

from search.records import Trial
from search.space.settings import Space
from search.study import Launch, read_trials
from search.training.candidate import task_of, training_of
from search.training.sweep import Grid
from search.tuner.deaths import LONGEST_PAUSE, Silence, death, patience

RUNS = 4
"""Of a trial: two rates, two seeds, and no extension in these."""

ONCE = """marker = HERE / ("once " + formula.replace("/", "|"))
    built = (HERE / "log.txt").read_text().count("build " + formula + chr(10))
    if {condition} and built == 4 and not marker.exists():
        marker.touch()
        {fault}"""
"""A fault while a trial's third run begins, the first time only."""


def searched(wanted: Space) -> dict[str, Trial]:
    """What came of every formula."""
    search(wanted)
    trials = read_trials(wanted.source.parent / "results")
    return {trial.expression: trial for trial in trials if trial.state != "duplicate"}


def small(folder: Path, *settings: str, build: str) -> Space:
    """Two baselines and two candidates, none of which extends its grid."""
    fixed = ("learning_rate.extend=false", "search.trials=2", "search.seed=2")
    return space(folder, *fixed, *settings, build=build)


def keys(trial: Trial) -> list[tuple[float, int]]:
    return [(run.learning_rate, run.seed) for run in trial.runs]


@pytest.mark.usefixtures("ray_runs")
def test_one_that_crashes_the_interpreter_is_tried_again_once_then_failed(tmp_path: Path):
    trials = searched(small(tmp_path, build='if "gompertz" in formula: os._exit(3)'))
    crashed = {e: t for e, t in trials.items() if "gompertz" in e}
    assert len(trials) == 4 and crashed
    for expression, trial in trials.items():
        if expression in crashed:
            assert (trial.state, trial.reason) == (
                "failed",
                "its worker process crashed or was killed",
            )
            assert log(tmp_path, "build").count(expression) == 2
        else:
            assert trial.state == "complete" and len(trial.runs) == RUNS


@pytest.mark.usefixtures("ray_runs")
def test_a_killed_worker_loses_the_run_in_its_hands_and_no_other(tmp_path: Path):
    # The baselines come first: the search must not end before the killed one has gone on.
    fault = ONCE.format(condition='"relu" in formula', fault="os.kill(os.getpid(), 9)")
    trials = searched(small(tmp_path, "search.trials=0", build=fault))
    assert {t.name: t.state for t in trials.values()} == {"relu": "complete", "silu": "complete"}
    relu = next(t for t in trials.values() if t.name == "relu")
    assert len(set(keys(relu))) == len(keys(relu)) == RUNS
    # A whole trial, and before that: its parameters, two runs that are kept, and the one lost.
    silu = next(t for t in trials.values() if t.name == "silu")
    built = Counter(log(tmp_path, "build"))
    assert built[relu.expression] == built[silu.expression] + 4 - 2


@pytest.mark.usefixtures("ray_runs")
def test_one_that_hangs_in_c_code_is_ended_and_its_finished_runs_are_kept(tmp_path: Path):
    # `PyDLL` keeps Python's lock: no Python code runs in that process any more.
    hang = "import ctypes; from search.orphans import started_at;"
    hang += ' (HERE / "process").write_text(started_at(os.getpid()));'
    hang += " ctypes.PyDLL(None).sleep(1000)"
    fault = ONCE.format(condition='"relu" in formula', fault=hang)
    trials = searched(small(tmp_path, "search.trials=0", "timeout=3", build=fault))
    relu = next(t for t in trials.values() if t.name == "relu")
    silu = next(t for t in trials.values() if t.name == "silu")
    assert relu.state == "failed"
    assert relu.reason == "no run ended within 3 s (timeout: 3 s a run)"
    assert len(relu.runs) == 2 and {run.state for run in relu.runs} == {"complete"}
    assert silu.state == "complete"
    assert gone([(tmp_path / "process").read_text(encoding="utf-8")], seconds=30)


@pytest.mark.usefixtures("ray_runs")
def test_one_without_memory_and_one_that_leaves_fail_with_their_reasons(tmp_path: Path):
    fault = """if "relu" in formula: bytearray(2**60)
    if "silu" in formula or "sigmoid" in formula: sys.exit("enough")"""
    wanted = small(tmp_path, "search.trials=0", "baselines=[relu,silu,tanh(x)]", build=fault)
    trials = {trial.name: trial for trial in searched(wanted).values()}
    assert trials["relu"].state == trials["silu"].state == "failed"
    assert trials["relu"].reason.startswith("MemoryError")
    assert trials["silu"].reason.startswith("SystemExit: enough (task.py:")
    assert trials["tanh(x)"].state == "complete"
    assert len(set(log(tmp_path, "load"))) <= 2 + 1  # no process was lost by that


# --- without Ray ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "cause", "reason"),
    [
        ("The actor is dead because its node has died.", "node", "its machine was lost"),
        (
            "Task was killed due to the node running low on memory.",
            "worker",
            "out of memory: Ray ended its worker process",
        ),
        (
            "its worker process has died. … Worker exits with an exit code 4.",
            "worker",
            "its worker process ended with exit code 4",
        ),
        ("", None, "its worker broke down"),
    ],
)
def test_what_ray_says_of_a_death(told: str, cause: str | None, reason: str):
    found = death(told)
    assert (found.cause, found.reason) == (cause, reason)


def test_a_driver_that_paused_blames_nobody():
    silence = Silence()
    assert silence.too_long(0.0) == []
    silence.broken("a", 5.0)
    silence.broken("b", None)
    assert silence.too_long(1000.0) == []  # one pause counts for a second, however long
    late = [silence.too_long(1000.0 + k * LONGEST_PAUSE) for k in range(1, 6)]
    assert late == [[], [], [], [], ["a"]]
    silence.broken("a", 5.0)
    assert silence.too_long(1005.0 + LONGEST_PAUSE) == []
    silence.ended("a")
    assert all(silence.too_long(1006.0 + k) == [] for k in range(20))


def test_runs_that_train_together_have_their_time_together(tmp_path: Path):
    wanted = space(tmp_path)
    training = training_of(wanted, task_of(wanted))
    grid = Grid((0.1, 0.2, 0.3), 0.1, (0, 1))

    def seconds(launch: Launch, at_once: int = 1, in_step: bool = False) -> float | None:
        changed = replace(training, grid=grid, at_once=at_once, in_step=in_step)
        return patience(10.0, changed, launch)

    one = Launch(0, "relu(x)", "search")
    final = Launch(0, "relu(x)", "finalist", seeds=tuple(range(8)), rate=0.1, budget=2.0)
    assert patience(None, training, one) is None
    assert seconds(one) == 10.0
    assert seconds(one, at_once=4) == 40.0
    assert seconds(one, at_once=40) == seconds(one, in_step=True) == 60.0
    assert seconds(Launch(0, "relu(x)", "search", alone=True), at_once=4) == 10.0
    assert seconds(final, at_once=4) == 80.0
    assert seconds(final, in_step=True) == 20.0
