"""Clusters of several nodes, all of this machine, and searches on them."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray._private.authentication_test_utils import reset_auth_token_state
from rich.console import Console

from search.environment import environment_variables
from search.progress import Goal, PlainDisplay
from search.space.settings import Space
from search.space.space import load_space
from search.study import Study, open_study
from search.training.from_space import task_of, training_of
from search.tuner import run_search
from search.tuner.cluster import running_ray

TESTS = Path(__file__).parent
STORE = 80 * 2**20

LOADS = "loaded.txt"
"""Beside the space: a line for every process that has loaded the data."""

TASK = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from dataclasses import replace
import neighbour, toy_task

def load(data_root, **options):
    with open(LOADS, "a") as log:
        log.write(f"{{__file__}} {{neighbour.WORD}}" + chr(10))
    return toy_task.load(data_root, **options)

TASK = replace(toy_task.TASK, load=load)
"""

YAML = """
name: spread
task: ./task.py
recipe: {epochs: 2}
activation:
  F:
    - x * sigmoid(s * x) where s in log[0.5, 2]
baselines: [relu, silu]
learning_rate: {grid: [0.03, 0.3], default: 0.3, extend: false}
search: {sampler: random, trials: 4, seed: 0}
batching: off
"""


def space(folder: Path, *settings: str) -> Space:
    folder.mkdir(exist_ok=True)
    task = TASK.replace("LOADS", repr(str(folder / LOADS)))
    (folder / "task.py").write_text(task, encoding="utf-8")
    (folder / "neighbour.py").write_text("WORD = 'hello'\n", encoding="utf-8")
    path = folder / "spread.yaml"
    path.write_text(YAML, encoding="utf-8")
    return load_space(path, settings)


def search(wanted: Space, folder: Path, address: str | None) -> tuple[Study, PlainDisplay]:
    folder.mkdir(exist_ok=True)
    task = task_of(wanted)
    study = open_study(folder, wanted, task.maximize)
    goal = Goal(wanted.name, task.metric, task.maximize, wanted.search.trials, 2)
    shown: list[PlainDisplay] = []

    def show(goal: Goal) -> PlainDisplay:
        shown.append(PlainDisplay(Console(file=io.StringIO(), width=200), goal))
        return shown[0]

    try:
        with running_ray(wanted, address) as cluster:
            run_search(study, training_of(wanted, task), 2, goal, show, cluster=cluster)
    finally:
        study.close()
    return study, shown[0]


@contextmanager
def token(folder: Path) -> Iterator[None]:
    """Ray's token authentication, with a token of the test's own."""
    path = folder / "token"
    path.write_text("a" * 64, encoding="utf-8")
    with environment_variables({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}):
        reset_auth_token_state()
        yield
    reset_auth_token_state()


MARK = "ACTIVATION_SEARCH_TEST"
"""A variable of all processes of a cluster that was started by `ray start`."""


@contextmanager
def ray_started(folder: Path, *words: str, **variables: str) -> Iterator[None]:
    """A cluster by `ray start`, with a token of its own; ended here, as `ray stop` would end those
    of everybody."""
    marked = {MARK: str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with token(folder), environment_variables({**marked, **variables}):
        try:
            ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *words]
            started = subprocess.run(ray, capture_output=True, text=True)
            assert started.returncode == 0, started.stdout + started.stderr
            yield
        finally:
            end_marked(folder)


def end_marked(folder: Path) -> None:
    """End every process that has the folder in its variables, but this one."""
    mark = f"{MARK}={folder}\0".encode()
    for _ in range(100):  # one that ends may be starting another
        found = [pid for pid in _others() if mark in _environment(pid)]
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.1)
    raise AssertionError(f"processes of {folder} are still there")


def _others() -> list[int]:
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [pid for pid in pids if pid != os.getpid()]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
