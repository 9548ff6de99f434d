"""A small study on a toy task whose test part is known: what the tests of finalists share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search.proposals import Proposals
from search.records import Point, Run, Trial
from search.space.settings import Space
from search.space.space import load_space
from search.study import Launch, Study, open_study, read_trials
from tests.toy_space import RULES

ROOT = Path(__file__).resolve().parent.parent

# The test part is the validation part with the classes exchanged: accuracies add up to 1.
TASK = f"""
import sys
from dataclasses import asdict, replace
sys.path.insert(0, {str(ROOT / "tests")!r})
import toy_task
from search.tasks.task import Split

def load(data_root, **options):
    splits = toy_task.load(data_root, **options)
    inputs, targets = splits.validation.inputs, splits.validation.targets
    return replace(splits, test=Split(inputs[TESTED], 1 - targets[TESTED]))

TASK = replace(toy_task.TASK, load=load)
"""

YAML = f"""
name: rings
task: task.py
recipe: {{epochs: EPOCHS}}
{RULES}baselines: [relu, silu]
learning_rate: {{grid: [0.03, 0.1, 0.3], default: 0.1}}
search: {{sampler: random, trials: 2, seed: 0}}
"""


def write(folder: Path, more: str = "", epochs: int = 2, tested: str = ":") -> Path:
    (folder / "task.py").write_text(TASK.replace("TESTED", tested), encoding="utf-8")
    path = folder / "rings.yaml"
    path.write_text(YAML.replace("EPOCHS", str(epochs)) + more, encoding="utf-8")
    return path


def trial(number: int, score: float | None, origin: str = "search", **more: Any) -> Trial:
    values: dict[str, Any] = {
        "number": number,
        "origin": origin,
        "name": "",
        "expression": "x * sigmoid(x)",
        "fingerprint": f"{number:016x}",
        "state": "diverged" if score is None else "complete",
        "score": score,
        "best_rate": None if score is None else 0.1,
    }
    return Trial(**(values | more))


TRIALS = [
    trial(-2, 0.91, "placebo", name="placebo 1"),
    trial(-1, 0.90, "baseline", name="relu"),
    trial(0, 0.95),
    trial(1, 0.99),
    trial(2, 0.97),
    trial(3, 0.97),
    trial(4, None, "baseline", name="elu"),
    trial(5, 0.98, state="pruned"),
    trial(6, float("nan")),
]


PATIENT = float("inf")


def opened(space: Space) -> Study:
    folder = space.source.parent / "results"
    folder.mkdir(exist_ok=True)
    return open_study(folder, space, maximize=True)


def small(folder: Path, *settings: str) -> Space:
    wanted = ("finalists={k: 1, seeds: 3}", "batching=off", *settings)
    return load_space(write(folder), wanted)


def trained(study: Study, launch: Launch, score: float = 0.9) -> Trial:
    for seed in launch.seeds or study.space.seeds:
        if seed not in {run.seed for run in launch.runs}:
            study.add_run(launch.number, a_run(seed, score, launch.rate))
    return study.finish(launch.number, state="complete", score=score, best_rate=0.3, cost=1.5)


def a_run(seed: int, score: float, rate: float | None) -> Run:
    curve = (Point(8, 1.0, 1.0, score),)
    test = None if rate is None else score / 2
    return Run(rate or 0.3, seed, "complete", score=score, test=test, curve=curve, steps=8)


def searched(study: Study) -> list[Launch]:
    """All of the study trained; the launches in their order."""
    proposals, launches = Proposals(study, None, PATIENT), []
    while launch := proposals.next():
        launches.append(launch)
        trained(study, launch, 0.8 + 0.01 * len(launches))
    assert proposals.ended == f"all {study.space.search.trials} trials are done"
    return launches


def reread(space: Space) -> list[Trial]:
    return read_trials(space.source.parent / "results")
