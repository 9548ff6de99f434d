"""A worker that is killed is replaced while the others go on, on real Ray."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from search.benchmarks.slots import last_session, waiting_space
from search.decisions import read_log
from search.driver import drive
from search.space.space import load_space

TASK = """
import os
from dataclasses import replace
from pathlib import Path
from search.benchmarks import waiting_task

HERE = Path(__file__).parent

def build(make_activation, splits, *, seconds):
    with open(HERE / "models", "a") as models:
        models.write(".")
    killed = HERE / "killed"
    if (HERE / "models").stat().st_size > 20 and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), 9)
    return waiting_task.build(make_activation, splits, seconds=seconds)

TASK = replace(waiting_task.TASK, build=build)
"""


def test_trials_shorter_than_a_start_do_not_keep_a_killed_workers_slot_empty(tmp_path: Path):
    (tmp_path / "task.py").write_text(TASK, encoding="utf-8")
    wanted = waiting_space(2, 0.5, 40)
    wanted["task"]["name"] = "./task.py"
    path = tmp_path / "waiting.yaml"
    path.write_text(json.dumps(wanted), encoding="utf-8")
    drive(load_space(path), tmp_path, False, Console(file=io.StringIO()))
    log = read_log(tmp_path / "waiting")
    assert (tmp_path / "killed").exists() and any(line["what"] == "lost" for line in log)
    _, spans = last_session(log)
    last = sorted(spans, key=lambda span: span.begin)[-10:]
    beside = [a for a in last if any(b.begin < a.end and a.begin < b.end for b in last if b != a)]
    assert len(beside) > 5, "two at a time to the end"
