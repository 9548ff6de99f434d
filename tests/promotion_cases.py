"""A study whose candidates wait at rungs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from search.records import Run
from search.space.settings import Promotion, Space
from search.space.space import load_space
from search.training.checkpoints import Keeping
from search.training.job import Training
from search.training.rates import Grid

HERE = Path(__file__).parent


def make_space(folder: Path, trials: int = 12, *settings: str) -> Space:
    path = folder / "space.yaml"
    path.write_text(YAML.format(task=HERE / "toy_task.py", trials=trials), encoding="utf-8")
    return load_space(path, settings)


def bare(runs: list[Run]) -> list[Run]:
    """In order, without the time that they took."""
    found = [replace(run, seconds=0.0) for run in runs]
    return sorted(found, key=lambda run: (run.learning_rate, run.seed))


def training(folder: Path, **changes: Any) -> Training:
    shared: dict[str, Any] = {
        "task": str(HERE / "toy_task.py"),
        "folder": HERE,
        "options": {},
        "recipe": {"epochs": 4},
        "data_root": None,
        "grid": Grid((0.03, 0.3), 0.3, (0, 1)),
        "in_step": True,
        "checkpoints": Keeping(folder),
        "promotion": Promotion(),
    }
    return Training(**{**shared, **changes})


YAML = """
name: toy
task: {task}
recipe: {{epochs: 8}}
activation:
  F: [x * G, x * G + 0.1 * x, sin(x)]
  G: [sigmoid(ARG), gompertz(ARG)]
  ARG: [x, "s * x where s in log[0.5, 2]"]
baselines: [relu, silu]
learning_rate: {{grid: [0.1], default: 0.1}}
seeds: 1
gates: false
search: {{sampler: random, trials: {trials}, seed: 3, promotion: {{first: 0.25, eta: 2}}}}
"""
