"""Workers that crash, are killed, hang or run out of memory: the search goes on, on real Ray."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from search.records import Trial
from search.study import Launch, read_trials
from search.training.from_space import task_of, training_of
from search.training.rates import Grid
from search.tuner.deaths import LONGEST_PAUSE, Silence, death, patience
from tests.run_cases import gone
from tests.tuner_cases import Lines, log, search, space

RUNS = 4
"""Of a trial: two rates and two seeds; no grid is extended here."""

# At the third run of a formula, which is the fourth model that is built for it: one is built to
# count its parameters.
FAULTS = """third = (HERE / "log.txt").read_text().count("build " + formula + chr(10)) == 4
    if "relu" in formula and third and not (HERE / "killed").exists():
        (HERE / "killed").touch()
        os.kill(os.getpid(), 9)
    if "tanh" in formula:
        os._exit(3)
    if "erf" in formula and third:
        import ctypes
        from search.orphans import started_at
        (HERE / "process").write_text(started_at(os.getpid()))
        ctypes.PyDLL(None).sleep(1000)  # keeps Python's lock: no Python code runs here any more
    if "sin" in formula:
        bytearray(2**60)
    if "cos" in formula:
        sys.exit("enough")"""
FORMULAS = ["silu", "relu", "x * tanh(x)", "x * erf(x)", "x * sin(x)", "x * cos(x)"]


class Searched(NamedTuple):
    """A search in which nearly everything breaks."""

    folder: Path
    trials: dict[str, Trial]
    """By name."""
    said: str
    """On the terminal."""

    def built(self, name: str) -> int:
        """How many models were built of a baseline."""
        return log(self.folder, "build").count(self.trials[name].expression)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, ray_runs: None) -> Searched:
    folder = tmp_path_factory.mktemp("faults")
    baselines = f"baselines=[{', '.join(FORMULAS)}]"
    fixed = ("learning_rate.extend=false", "search.trials=0", "timeout=3")
    lines, printed = Lines(), io.StringIO()
    with redirect_stdout(printed):
        _, why = search(space(folder, *fixed, baselines, build=FAULTS), lines)
    assert why == "all 0 trials are done"
    trials = read_trials(folder / "results")
    assert len(trials) == len(FORMULAS)
    said = lines.text() + printed.getvalue()
    return Searched(folder, {trial.name: trial for trial in trials}, said)


def test_one_that_crashes_the_interpreter_is_tried_again_once_then_failed(searched: Searched):
    trial = searched.trials["x * tanh(x)"]
    assert (trial.state, trial.reason) == ("failed", "its worker process crashed or was killed")
    assert searched.built(trial.name) == 2
    told = f"{trial.expression}: its worker process crashed or was killed; it is tried again"
    assert told in searched.said.splitlines()
    assert "raylet" not in searched.said  # Ray's own 200 words


def test_a_killed_worker_loses_the_run_in_its_hands_and_no_other(searched: Searched):
    trial = searched.trials["relu"]
    assert trial.state == "complete"
    assert len({(run.learning_rate, run.seed) for run in trial.runs}) == len(trial.runs) == RUNS
    # A whole trial, and before that: its parameters, two runs that are kept, and the one lost.
    assert searched.built("relu") == searched.built("silu") + 4 - 2


def test_one_that_hangs_in_c_code_is_ended_and_its_finished_runs_are_kept(searched: Searched):
    trial = searched.trials["x * erf(x)"]
    assert trial.state == "failed"
    assert trial.reason == "no run ended within 3 s (timeout: 3 s a run)"
    assert len(trial.runs) == 2 and {run.state for run in trial.runs} == {"complete"}
    assert gone([(searched.folder / "process").read_text(encoding="utf-8")], seconds=30)


def test_one_without_memory_and_one_that_leaves_fail_with_their_reasons(searched: Searched):
    reasons = {name: searched.trials[f"x * {name}(x)"].reason for name in ("sin", "cos")}
    assert reasons["sin"].startswith("MemoryError")
    assert reasons["cos"].startswith("SystemExit: enough (task.py:")


def test_nothing_else_suffers(searched: Searched):
    trial = searched.trials["silu"]
    assert trial.state == "complete" and len(trial.runs) == RUNS


# --- without Ray ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "cause", "reason"),
    [
        ("The actor is dead because its node has died.", "node", "its machine was lost"),
        ("The actor is temporarily unavailable: RpcError.", "node", "its machine was lost"),
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
