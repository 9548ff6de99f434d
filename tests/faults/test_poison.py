"""Candidates that break what trains them, in a search through the command line: the others are
trained, and each of these has one end, with its reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from books import books_of, ended, record, seconds_between

from search.decisions import read_log
from tests.run_cases import ROOT, words

pytestmark = pytest.mark.slow

TASK = f"""
import ctypes, os, sys
from dataclasses import replace
import torch
sys.path.insert(0, {str(ROOT / "tests")!r})
import toy_task

def build(make_activation, splits, **options):
    formula = str(getattr(make_activation(), "expression", ""))
    if "tanh" in formula:
        ctypes.string_at(0)  # reads where nothing is: a segmentation fault
    if "erf" in formula:
        ctypes.PyDLL(None).sleep(1000)  # keeps Python's lock: no Python code runs here any more
    if "sin" in formula:
        torch.empty(2**50)  # 4 PiB
    if "arctan" in formula:
        os.kill(os.getpid(), 9)  # what the system does where memory runs out
    return toy_task.build(make_activation, splits, **options)

TASK = replace(toy_task.TASK, build=build)
"""

YAML = """
name: poison
task: ./task.py
recipe: {epochs: 6}
activation:
  F:
    - x * G
  G:
    - sigmoid(1.5 * x)
    - gompertz(x)
    - normal_cdf(x)
    - tanh(x)
    - erf(x)
    - sin(x)
    - arctan(x)
baselines: [relu, silu]
learning_rate: {grid: [0.03, 0.1], default: 0.1, extend: false}
search: {sampler: random, trials: 7, seed: 0}
timeout: 8
batching: off
"""

FAULTS = {
    "x * tanh(x)": (
        "candidate crashes the interpreter (segmentation fault)",
        "its worker process crashed or was killed",
    ),
    "x * erf(x)": (
        "candidate hangs in C code (timeout: 8)",
        "no run ended within 8 s (timeout: 8 s a run)",
    ),
    "x * sin(x)": ("candidate asks for too much memory (4 PiB)", "RuntimeError: "),
    "x * arctan(x)": (
        "candidate killed as for lack of memory (SIGKILL)",
        "its worker process crashed or was killed",
    ),
}


def test_each_has_one_end_and_the_others_are_trained(tmp_path: Path):
    (tmp_path / "task.py").write_text(TASK, encoding="utf-8")
    space = tmp_path / "poison.yaml"
    space.write_text(YAML, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "search.run", *words(space)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    folder = tmp_path / "results" / "poison"
    found, every = books_of(folder), ended(folder).values()
    trials = {t.expression: t for t in every if t.state != "duplicate"}
    assert (found.lost, found.repeated, found.unended) == (0, 0, 0)
    assert len(trials) == 9 and (folder / "report" / "index.html").is_file()
    log = read_log(folder)
    for formula, (fault, reason) in FAULTS.items():
        assert trials[formula].state == "failed"
        assert trials[formula].reason.startswith(reason), trials[formula].reason
        launches = [x for x in log if x["what"] == "launched" and x["expression"] == formula]
        assert len(launches) == (2 if "its worker process" in reason else 1)
        end = next(x for x in log if x["what"] == "ended" and x["trial"] == launches[-1]["trial"])
        record(fault, 1, found, [seconds_between(launches[0], end)])
    others = [t for formula, t in trials.items() if formula not in FAULTS]
    assert {t.state for t in others} == {"complete"} and len(others) == 5
