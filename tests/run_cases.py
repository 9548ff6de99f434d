"""A search of the toy task through the command line, and what became of its processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.errors import run_cli
from search.records import Run, Trial
from search.run import main
from search.study import read_trials
from tests.toy_space import RULES

ROOT = Path(__file__).resolve().parent.parent
ENDED = ("complete", "pruned", "diverged", "failed", "rejected", "duplicate")

YAML = f"""
name: rings
task: {ROOT / "tests" / "toy_task.py"}
recipe: {{epochs: EPOCHS}}
{RULES}baselines: [relu, silu]
learning_rate: {{grid: [0.03, 0.1, 0.3], default: 0.1}}
search: {{sampler: tpe, trials: TRIALS, seed: 0}}
"""


def write(folder: Path, trials: int = 2, epochs: int = 2, **changes: str) -> Path:
    text = YAML.replace("TRIALS", str(trials)).replace("EPOCHS", str(epochs))
    for old, new in changes.items():
        text = text.replace(old, new)
    path = folder / "rings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def words(space: Path, *more: str) -> list[str]:
    return [str(space), "--results", str(space.parent / "results"), *more]


def refused(space: Path, *more: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a mistake; checks that it exits with 2 and prints nothing else."""
    with pytest.raises(SystemExit) as stop:
        run_cli(lambda: main(words(space, *more)))
    out = capsys.readouterr()
    assert stop.value.code == 2 and "Traceback" not in out.err
    return out.err.splitlines()


def driver(words: list[str], stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """A search of its own session, whose lines come as they are printed."""
    return subprocess.Popen(
        [sys.executable, "-m", "search.run", *words],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )


def started(space: Path) -> subprocess.Popen[str]:
    """A search that has just finished its first trial of this session."""
    process = driver(words(space))
    assert process.stdout is not None
    first = process.stdout.readline()
    if " batching: " in first:
        first = process.stdout.readline()
    assert " at rate " in first, first + process.communicate()[1]
    return process


def snapshot(space: Path) -> tuple[dict[int, Trial], set[tuple[str, Run]]]:
    """The trials that have ended, and every run with the formula it is of."""
    trials = read_trials(space.parent / "results" / "rings")
    ended = {trial.number: trial for trial in trials if trial.state in ENDED}
    return ended, {(trial.expression, run) for trial in trials for run in trial.runs}


def alive(process: str) -> bool:
    pid, _, start = process.partition(":")
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return False
    return fields[19] == start and fields[0] != "Z"


def gone(processes: list[str], seconds: float) -> bool:
    """Whether they end in time."""
    until = time.monotonic() + seconds
    while any(map(alive, processes)) and time.monotonic() < until:
        time.sleep(0.1)
    return not any(map(alive, processes))
