"""A search that is killed or stopped within a run goes on from checkpoints with the same numbers.

Whole processes, real signals; the task sleeps a little in its loss, and counts how often it is
asked for it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from search.orphans import descendants
from search.records import Run
from search.study import read_trials
from tests.run_cases import driver

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
STEPS = 160
"""Of a run."""
EVERY = 20
"""Steps from one checkpoint to the next."""

TASK = f"""
import sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {str(ROOT / "tests")!r})
import toy_task
from torch import nn

LOG = Path(__file__).parent / "log"

def build(make_activation, splits, **options):
    model = toy_task.build(make_activation, splits, **options)
    return nn.Sequential(model[0], model[1], nn.Dropout(0.2), model[2])

def loss(outputs, targets, smoothing):
    if outputs.requires_grad:
        time.sleep(SLEEP)
        with LOG.open("a") as log:
            log.write(".")
    return toy_task.TASK.loss(outputs, targets, smoothing)

TASK = replace(toy_task.TASK, build=build, loss=loss)
"""

YAML = f"""
name: rings
task: ./task.py
recipe: {{epochs: {STEPS // 8}, optimizer: adamw, schedule: cosine}}
baselines: [relu, silu]
resources: {{max_concurrent: 2}}  # to find the best number would take steps, which are counted
learning_rate: {{grid: [0.03, 0.1], default: 0.1, extend: false}}
checkpoints: {{steps: {EVERY}}}
"""


def space(folder: Path, batching: str, sleep: float = 0.005) -> Path:
    folder.mkdir()
    (folder / "task.py").write_text(TASK.replace("SLEEP", str(sleep)), encoding="utf-8")
    path = folder / "rings.yaml"
    path.write_text(f"{YAML}batching: {batching}\n", encoding="utf-8")
    return path


def started(path: Path) -> subprocess.Popen[str]:
    return driver([str(path), "--results", str(path.parent)], subprocess.STDOUT)


def runs(path: Path) -> dict[str, list[Run]]:
    """What was trained, without the time that it took."""
    trials = read_trials(path.parent / "rings")
    assert {trial.state for trial in trials} == {"complete"}
    return {
        trial.name: sorted(
            (replace(run, seconds=0.0) for run in trial.runs),
            key=lambda run: (run.learning_rate, run.seed),
        )
        for trial in trials
    }


def steps(path: Path) -> int:
    """How often a training loss was asked for, gates and costs included."""
    log = path.parent / "log"
    return len(log.read_text(encoding="utf-8")) if log.exists() else 0


def whole(path: Path) -> tuple[dict[str, list[Run]], int]:
    """The study from its beginning to its end, without an interruption."""
    process = started(path)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    return runs(path), steps(path)


def until(true: Callable[[], bool], seconds: float = 300.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def checkpoints(path: Path) -> list[Path]:
    return list((path.parent / "rings" / "checkpoints").glob("trial_*/*.pt"))


def written_since(path: Path, clock: float) -> Callable[[], bool]:
    """Whether a checkpoint was written after a time of the wall clock."""

    def written() -> bool:
        try:
            return any(each.stat().st_mtime > clock for each in checkpoints(path))
        except FileNotFoundError:
            return False

    return written


@pytest.mark.parametrize("batching", ["off", "4"])
def test_a_killed_driver_goes_on_with_the_same_numbers(tmp_path: Path, batching: str):
    expected, taken = whole(space(tmp_path / "whole", batching))
    path, kills = space(tmp_path / "killed", batching), 0
    for _ in range(4):
        process, began = started(path), time.time()
        until(lambda: written_since(path, began)() or process.poll() is not None)  # noqa: B023
        if process.poll() is not None:
            break
        time.sleep(0.3)
        process.kill()
        process.communicate()
        kills += 1
    process = started(path)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    assert kills >= 2
    assert runs(path) == expected
    # Each of two workers repeats what is behind its last checkpoint, in each of four members.
    assert steps(path) <= taken + kills * 2 * 4 * (EVERY + 2)
    assert not (path.parent / "rings" / "checkpoints").exists()


@pytest.mark.parametrize("batching", ["off", "4"])
def test_a_killed_worker_goes_on_with_the_same_numbers(tmp_path: Path, batching: str):
    expected, taken = whole(space(tmp_path / "whole", batching))
    path = space(tmp_path / "killed", batching)
    process, began = started(path), time.time()
    until(written_since(path, began))
    workers = [pid for pid in _children(process.pid) if "train" in _title(pid)]
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    assert runs(path) == expected
    assert steps(path) <= taken + 4 * (EVERY + 2)


@pytest.mark.parametrize("batching", ["off", "4"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_search_writes_checkpoints_and_ends_within_ten_seconds(
    tmp_path: Path, number: signal.Signals, batching: str
):
    expected, taken = whole(space(tmp_path / "whole", batching))
    path = space(tmp_path / "stopped", batching)
    process, began = started(path), time.time()
    until(written_since(path, began))
    asked = time.time()
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert time.time() - asked < 10, out
    assert process.returncode == 128 + number, out
    assert written_since(path, asked)(), "the workers were not waited for"
    assert (path.parent / "rings" / "checkpoints" / "stop").exists()
    process = started(path)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    assert runs(path) == expected
    # Nothing is repeated; a batch that goes on asks each of its members once, to see if it can.
    assert steps(path) <= taken + 2 * (4 + 4)


def test_a_worker_that_does_not_listen_is_not_waited_for(tmp_path: Path):
    path = space(tmp_path / "deaf", "off", sleep=60)
    process = started(path)
    until(lambda: any("train" in _title(pid) for pid in _children(process.pid)))
    time.sleep(3)
    asked = time.time()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert time.time() - asked < 10, out
    assert process.returncode == 128 + signal.SIGTERM


def _children(pid: int) -> list[int]:
    return [int(item.partition(":")[0]) for item in descendants(pid)]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
