"""A cluster of three nodes that loses nodes, workers and drivers by a seeded schedule, and gets new
nodes; then the books."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from books import books_of, now, record, until_a_run, until_they_went_on
from ray.cluster_utils import Cluster
from test_cluster import STORE, token
from test_run import ROOT, words
from test_soak import LOST, kill_a_worker

from search.run import main
from search.study import read_trials

pytestmark = pytest.mark.slow

YAML = f"""
name: rings
task: {ROOT / "tests" / "toy_task.py"}
recipe: {{epochs: 12}}
activation:
  F:
    - x * sigmoid(s * x) where s in log[0.1, 10]
    - x * gompertz(s * x) where s in log[0.1, 10]
baselines: [relu, silu]
learning_rate: {{grid: [0.03, 0.1, 0.3], default: 0.1, extend: false}}
search: {{sampler: random, trials: TRIALS, seed: 0}}
batching: off
"""


class Nodes:
    """A head and two other nodes, of one processor each."""

    def __init__(self) -> None:
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE}
        )
        self.others = [self.joins() for _ in range(2)]

    def joins(self):
        return self.cluster.add_node(num_cpus=1, object_store_memory=STORE)

    def lose(self, draw: random.Random) -> None:
        """Kill one, with all that runs there; another joins after a while."""
        self.cluster.remove_node(self.others.pop(draw.randrange(2)), allow_graceful=False)
        time.sleep(draw.uniform(2, 6))
        self.others.append(self.joins())


@contextmanager
def three_nodes(folder: Path) -> Iterator[Nodes]:
    with token(folder):
        nodes = Nodes()
        try:
            yield nodes
        finally:
            nodes.cluster.shutdown()


class Driver:
    """A search on the cluster, in a process of its own."""

    def __init__(self, space: Path, address: str):
        self.words = words(space, "--address", address)
        self.process = self.begun()

    def begun(self) -> subprocess.Popen[str]:
        """A search that has just finished its first trial of this session."""
        process = subprocess.Popen(
            [sys.executable, "-m", "search.run", *self.words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        assert process.stdout is not None
        told = ""
        while " at rate " not in told:
            told += (line := process.stdout.readline())
            assert line, told
        return process

    def still_runs(self) -> None:
        assert self.process.poll() is None, "it came to its end: too short"

    def begin_again(self) -> None:
        self.kill()
        self.process = self.begun()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def ends(self) -> None:
        told, _ = self.process.communicate()
        assert self.process.returncode == 0, told


@contextmanager
def started(space: Path, address: str) -> Iterator[Driver]:
    driver = Driver(space, address)
    try:
        yield driver
    finally:
        driver.kill()


@pytest.mark.parametrize(
    ("trials", "faults"),
    [
        (30, {"node": 2}),
        (220, {"node": 2, "worker": 6, "driver": 3}),
    ],
)
def test_lost_nodes_workers_and_drivers_lose_and_repeat_nothing(
    tmp_path: Path, trials: int, faults: dict[str, int]
):
    space, draw = tmp_path / "rings.yaml", random.Random(trials)
    space.write_text(YAML.replace("TRIALS", str(trials)), encoding="utf-8")
    folder = tmp_path / "results" / "rings"
    schedule = [kind for kind, times in faults.items() for _ in range(times)]
    draw.shuffle(schedule)
    struck: dict[str, list[datetime]] = {kind: [] for kind in faults}
    with three_nodes(tmp_path) as nodes, started(space, str(nodes.cluster.address)) as driver:
        for kind in schedule:
            time.sleep(draw.uniform(0.5, 3))
            driver.still_runs()
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
        record(f"{kind} killed, of {len(schedule)} faults on 3 nodes", len(times), found, seconds)
    assert (found.lost, found.repeated, found.unended) == (0, 0, 0)
    trained = [t for t in read_trials(folder) if t.state not in ("duplicate", "rejected")]
    assert {t.state for t in trained} <= {"complete", "failed"}
    assert {t.reason for t in trained if t.state == "failed"} <= {LOST}
    assert Counter(t.origin for t in trained) == {"search": trials, "baseline": 2}
