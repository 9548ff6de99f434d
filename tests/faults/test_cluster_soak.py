"""A cluster of three nodes that loses nodes, workers and drivers by a seeded schedule, and gets new
nodes; then the books."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest
from books import books_of, now, record, told, until_a_run, until_they_went_on
from strikes import LOST, kill_a_worker, schedule, started, three_nodes

from search.run import main
from search.study import read_trials
from tests.run_cases import ROOT

pytestmark = pytest.mark.slow

TASK = f"""
import sys, time
from dataclasses import replace
sys.path.insert(0, {str(ROOT / "tests")!r})
import toy_task

def build(make_activation, splits, **options):
    time.sleep(SLEEP)  # a worker has a trial most of the time, and two processors are enough
    return toy_task.build(make_activation, splits, **options)

TASK = replace(toy_task.TASK, build=build)
"""
YAML = """
name: rings
task: ./task.py
recipe: {epochs: 3}
activation:
  F:
    - x * sigmoid(s * x) where s in log[0.1, 10]
    - x * gompertz(s * x) where s in log[0.1, 10]
baselines: [relu, silu]
learning_rate: {grid: [0.1, 0.3], default: 0.1, extend: false}
search: {sampler: random, trials: TRIALS, seed: 0}
batching: off
"""


RUNS = 4
"""Of a trial: two rates and two seeds."""


@pytest.mark.parametrize(
    ("trials", "sleep", "faults"),
    [
        (30, 0.15, {"node": 2}),
        (220, 0.05, {"node": 2, "worker": 6, "driver": 3}),
    ],
)
def test_lost_nodes_workers_and_drivers_lose_and_repeat_nothing(
    tmp_path: Path, trials: int, sleep: float, faults: dict[str, int]
):
    space, draw = tmp_path / "rings.yaml", random.Random(trials)
    task = TASK.replace("SLEEP", str(sleep))
    (tmp_path / "task.py").write_text(task, encoding="utf-8")
    space.write_text(YAML.replace("TRIALS", str(trials)), encoding="utf-8")
    folder = tmp_path / "results" / "rings"
    struck: dict[str, list[datetime]] = {kind: [] for kind in faults}
    with three_nodes(tmp_path) as nodes, started(space, str(nodes.cluster.address)) as driver:
        for kind, runs in schedule(faults, RUNS * trials, draw):
            while told(folder, "run") < runs:
                driver.still_runs()
                time.sleep(0.1)
            struck[kind].append(now())
            if kind == "driver":
                driver.begin_again()
            elif kind == "node":
                nodes.lose(draw)
            else:
                while not kill_a_worker(os.getpid(), draw):
                    driver.still_runs()
                    struck[kind][-1] = now()
        driver.ends()
    assert main(["--check", str(folder), "--dry-run"]) == 0

    found = books_of(folder)
    for kind, times in struck.items():
        seconds = until_they_went_on(folder, kind, times)
        if kind == "driver":
            seconds = [until_a_run(folder, each) for each in times]
        record(
            f"{kind} killed, of {sum(faults.values())} faults on 3 nodes",
            len(times),
            found,
            seconds,
        )
    assert (found.lost, found.repeated, found.unended) == (0, 0, 0)
    trained = [t for t in read_trials(folder) if t.state not in ("duplicate", "rejected")]
    assert {t.state for t in trained} <= {"complete", "failed"}
    assert {t.reason for t in trained if t.state == "failed"} <= {LOST}
    assert Counter(t.origin for t in trained) == {"search": trials, "baseline": 2}
