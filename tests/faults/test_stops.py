"""Ctrl-C and SIGTERM at every stage of a search: it ends by itself, says how to go on, leaves
nothing running, and the same command goes on. The seconds go into the record."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from books import books_of, record

from search.decisions import read_log
from search.orphans import descendants
from search.run import main
from tests.run_cases import ROOT, driver, gone, words

pytestmark = pytest.mark.slow

TASK = f"""
import sys, time
from dataclasses import replace
sys.path.insert(0, {str(ROOT / "tests")!r})
import toy_task

def loss(outputs, targets, smoothing):
    if outputs.requires_grad:
        time.sleep(SLEEP)
    return toy_task.TASK.loss(outputs, targets, smoothing)

TASK = replace(toy_task.TASK, loss=loss)
"""

YAML = """
name: rings
task: ./task.py
recipe: {epochs: 8}
activation:
  F:
    - x * sigmoid(s * x) where s in log[0.5, 2]
baselines: [relu, silu]
learning_rate: {grid: [0.03, 0.1], default: 0.1, extend: false}
search: {sampler: random, trials: 3, seed: 0}
"""

DDP = "resources: {cpu: 2, strategy: ddp, workers: 2}"


def write(folder: Path, more: str, sleep: float) -> Path:
    (folder / "task.py").write_text(TASK.replace("SLEEP", str(sleep)), encoding="utf-8")
    path = folder / "rings.yaml"
    path.write_text(f"{YAML}{more}\n", encoding="utf-8")
    return path


def a_run_ended(folder: Path, pid: int) -> bool:
    return any(line["what"] == "run" for line in read_log(folder))


def a_worker_trains(folder: Path, pid: int) -> bool:
    """For a second or so."""
    found = any("ImplicitFunc" in title(each) for each in descendants(pid))
    time.sleep(2 * found)
    return found


def a_finalist_runs(folder: Path, pid: int) -> bool:
    log = read_log(folder)
    own = {x["trial"] for x in log if x["what"] == "launched" and x["origin"] == "finalist"}
    return any(x["what"] == "run" and x["trial"] in own for x in log)


def ray_starts(folder: Path, pid: int) -> bool:
    return any("gcs_server" in title(each) for each in descendants(pid))


def it_measures(folder: Path, pid: int) -> bool:
    """The planner does, before Ray starts."""
    return (folder / "study.db").exists()


def title(process: str) -> str:
    try:
        path = Path(f"/proc/{process.partition(':')[0]}/cmdline")
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


STAGES: dict[str, tuple[str, float, Callable[[Path, int], bool]]] = {
    "while it measures": ("", 0.0, it_measures),
    "while Ray starts": ("batching: off", 0.0, ray_starts),
    "while runs train one by one": ("batching: off", 0.02, a_run_ended),
    "while a batch trains": ("batching: 4", 0.05, a_worker_trains),
    "while a run trains in two processes": (f"batching: off\n{DDP}", 0.02, a_run_ended),
    "while finalists train": ("batching: off\nfinalists: {k: 2, seeds: 4}", 0.002, a_finalist_runs),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", STAGES)
def test_a_search_that_is_asked_to_end_does(tmp_path: Path, stage: str, number: signal.Signals):
    more, sleep, reached = STAGES[stage]
    space, folder = write(tmp_path, more, sleep), tmp_path / "results" / "rings"
    process = driver(words(space))
    while process.poll() is None and not reached(folder, process.pid):
        time.sleep(0.05)
    below, asked = descendants(process.pid), time.monotonic()
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    seconds = time.monotonic() - asked
    assert process.returncode == 128 + number, told
    (line,) = told.splitlines()
    assert line.startswith("stopped; what has ended is kept, go on with: python -m search.run ")
    assert gone(below, seconds=60)
    (tmp_path / "task.py").write_text(TASK.replace("SLEEP", "0"), encoding="utf-8")
    assert main(words(space)) == 0
    found = books_of(folder)
    record(f"{number.name} {stage}", 1, found, [seconds])
    assert (found.lost, found.repeated, found.unended) == (0, 0, 0)
