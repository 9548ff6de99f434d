"""A small study on the toy task, and what its tests do with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import optuna

from search.language.parser import parse
from search.proposals import Proposals
from search.records import Point, Run, Trial
from search.space.settings import Space
from search.space.space import load_space
from search.study import Launch, Study, open_study, read_trials

TOY = Path(__file__).parent / "toy_task.py"
YAML = """
name: toy
task: {task}
activation:
  F:
    - x * G
    - x * G + 0.1 * x
    - sin(x)
  G:
    - sigmoid(ARG)
    - gompertz(ARG)
  ARG:
    - x
    - {scaled}
depth: 3
baselines: [relu, silu]
learning_rate: {{grid: [0.01, 0.1, 1.0], default: 0.1}}
search: {{sampler: {sampler}, trials: {trials}, seed: 3{more}}}
"""
RANGE, CHOICE = "s * x where s in log[0.5, 2]", "s * x where s in {0.5, 2}"
MakeSpace = Callable[..., Space]
"""The fixture `make_space`: `space_in` a folder of the test's own."""
PATIENT = math.inf
"""Seconds that a proposal may take: no test depends on the machine's speed."""


def space_in(
    folder: Path, scaled: str = RANGE, sampler: str = "random", trials: int = 6, more: str = ""
) -> Space:
    """The study's space, written into a folder and read."""
    path = folder / "space.yaml"
    values = {"scaled": scaled, "sampler": sampler, "trials": trials, "more": more}
    path.write_text(YAML.format(task=TOY, **values), encoding="utf-8")
    return load_space(path)


def opened(space: Space) -> Study:
    folder = space.source.parent / "results"
    folder.mkdir(exist_ok=True)
    return open_study(folder, space, maximize=True)


def reread(study: Study) -> list[Trial]:
    """The trials as another process finds them."""
    return read_trials(study.space.source.parent / "results")


def run(rate: float = 0.1, seed: int = 0, score: float = 0.9) -> Run:
    point = Point(step=8, train_loss=0.5, loss=0.4, score=score)
    return Run(rate, seed, "complete", score=score, loss=0.4, curve=(point,), steps=8, seconds=0.5)


def trained(study: Study, launch: Launch, score: float = 0.9, **more: object) -> Trial:
    study.add_run(launch.number, run(score=score))
    outcome = {"state": "complete", "score": score, "best_rate": 0.1, "cost": 1.5, **more}
    return study.finish(launch.number, **outcome)


def baselines_trained(study: Study) -> None:
    while launch := study.next_waiting():
        trained(study, launch, 0.8)


def launched(study: Study, text: str = "") -> Launch:
    """A fresh candidate; with the formula `text` if given."""
    proposals = Proposals(study, None, PATIENT)
    if not text:
        launch = proposals.next()
        assert launch is not None
        return launch
    assert study.space.grammar is not None
    choices = study.space.grammar.find(parse(text))
    assert choices is not None, text
    return study.launch(study.propose_choices(choices, "test"))


def optunas(study: Study) -> list[optuna.trial.FrozenTrial]:
    return study._database.search.get_trials()
