"""Searches on Ray with tasks that log what happens in their workers."""

from __future__ import annotations

import io
from pathlib import Path
from textwrap import dedent

from rich.console import Console

from search.progress import Display, Goal, PlainDisplay
from search.records import Trial
from search.space.settings import Space
from search.space.space import load_space
from search.study import Study, open_study
from search.training.from_space import task_of, training_of
from search.tuner import run_search
from tests.toy_space import RULES

TESTS = Path(__file__).parent

# The toy task, with a log of the processes that load it, and formulas that break.
TASK = """
import os, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
import toy_task

HERE = Path(__file__).parent

def note(text):
    with (HERE / "log.txt").open("a") as log:
        log.write(text + chr(10))

def load(data_root, **options):
    note(f"load {{os.getpid()}}")
    {load}
    return toy_task.load(data_root, **options)

def build(make_activation, splits, **options):
    formula = str(getattr(make_activation(), "expression", ""))
    note(f"build {{formula}}")
    {build}
    return toy_task.build(make_activation, splits, **options)

TASK = replace(toy_task.TASK, load=load, build=build)
"""

SMALL = RULES.replace("  G:", "    - 0.002 * x * G\n  G:")
YAML = f"""
name: toy
task: task.py
recipe: {{epochs: EPOCHS}}
{SMALL}baselines: [relu, silu]
learning_rate: {{grid: [0.03, 0.3], default: 0.3}}
search: {{sampler: random, trials: 6, seed: 1}}
"""


class Lines:
    """What a display was told."""

    def __init__(self) -> None:
        self.console = Console(record=True, file=io.StringIO(), width=200)
        self.ended: list[Trial] = []

    def display(self, goal: Goal) -> Display:
        return PlainDisplay(self.console, goal)

    def text(self) -> str:
        return self.console.export_text(clear=False)


def space(folder: Path, *settings: str, load: str = "", build: str = "", epochs: int = 2) -> Space:
    values = {"tests": str(TESTS), "load": load or "pass", "build": build or "pass"}
    (folder / "task.py").write_text(TASK.format(**values), encoding="utf-8")
    path = folder / "space.yaml"
    path.write_text(dedent(YAML).replace("EPOCHS", str(epochs)), encoding="utf-8")
    return load_space(path, settings)


def search(wanted: Space, lines: Lines | None = None) -> tuple[Study, str]:
    folder, task = wanted.source.parent / "results", task_of(wanted)
    folder.mkdir(exist_ok=True)
    study = open_study(folder, wanted, task.maximize)
    goal = Goal(
        wanted.name, task.metric, task.maximize, wanted.search.trials, len(wanted.baselines)
    )
    epochs = int(wanted.recipe["epochs"])
    show = (lines or Lines()).display
    why = run_search(study, training_of(wanted, task), epochs, goal, show)
    study.close()
    return study, why


def log(folder: Path, word: str) -> list[str]:
    lines = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} ")]
