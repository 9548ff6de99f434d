"""What the driver of a search costs as its study grows: everything but the training is real.

The space's own sampler proposes, the gate judges, the study writes every run and every end into its
database; the runs themselves are made up, one epoch's point for every epoch of the recipe. So the
seconds here are what a search spends beside its workers, and they grow with its trials.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from itertools import product
from pathlib import Path
from typing import Any

from search.errors import SearchError
from search.figures.report import write_report
from search.figures.settings import settings_from_folder
from search.language.expression import Expression
from search.proposals import Proposals
from search.protocol import gate_before_training
from search.records import Point, Run
from search.results import driver_recorded
from search.space.settings import Space
from search.space.space import load_space
from search.storage import DATABASE
from search.study import Launch, Study, open_study, read_trials
from search.tasks.task import Task, recipe_with
from search.training.from_space import task_of

WINDOW = 20
"""Trials at the end of each stage whose seconds are measured, gate included (fewer where the stage
before is nearer)."""
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Stage:
    """The driver with so many trials behind it; seconds are medians over its last `WINDOW`."""

    trials: int
    proposal: float
    """Seconds from one question to a candidate that may be trained."""
    longest: float
    """Of those seconds."""
    told: float
    """Seconds to write a trial: its runs, its end."""
    memory: float
    """Most resident MiB so far, torch among them."""


@dataclass(frozen=True, slots=True)
class Growth:
    """A whole measurement."""

    sampler: str
    runs: int
    """Of a trial."""
    stages: tuple[Stage, ...]
    database: float
    """MiB."""
    resume: float
    """Seconds to open the study again and propose the next candidate; Ray's start comes on top."""
    report: float
    """Seconds to read all trials and write the report."""

    @property
    def rate(self) -> float:
        """Trials per second that the driver sustains at the end."""
        last = self.stages[-1]
        return 1 / (last.proposal + last.told)


def measure(
    path: Path, overrides: Sequence[str], stages: Sequence[int], tell: Callable[[str], None]
) -> Growth:
    """Grow a study of the space at `path` to each number of trials in turn.

    Raises:
        SearchError: the space proposes nothing, or has no more candidates than that.
    """
    wanted = sorted(stages)
    if not wanted or wanted[0] < WINDOW:
        raise SearchError(f"--trials: expected numbers from {WINDOW}, got {list(stages)}")
    space = load_space(path, [*overrides, f"search.trials={wanted[-1]}", "finalists=null"])
    if space.grammar is None:
        raise SearchError(f"{path}: has no activation to search; expected a grammar")
    with tempfile.TemporaryDirectory() as folder:
        return _grown(space, task_of(space), wanted, Path(folder), tell)


def _grown(
    space: Space, task: Task, wanted: Sequence[int], folder: Path, tell: Callable[[str], None]
) -> Growth:
    study = open_study(folder, space, task.maximize)
    epochs = recipe_with(task.recipe, space.recipe).epochs
    tell(HEADS)
    found: list[Stage] = []
    with driver_recorded(folder, space, task, study.name):
        for count in wanted:
            _fill(study, count - WINDOW, epochs)
            found.append(_measured(study, count, epochs))
            tell(_line(found[-1]))
    study.close()
    return Growth(
        sampler=space.search.sampler,
        runs=len(space.learning_rate.grid) * len(space.seeds),
        stages=tuple(found),
        database=(folder / DATABASE).stat().st_size / MEBIBYTE,
        resume=_seconds(lambda: _resumed(folder, space, task)),
        report=_seconds(lambda: _reported(folder)),
    )


def _fill(study: Study, count: int, epochs: int) -> None:
    """Without the gate: its 50 ms do not depend on the study."""
    proposals = Proposals(study, None, seconds=float("inf"))
    while study.trained() < count:
        _told(study, _next(proposals), epochs)


def _measured(study: Study, count: int, epochs: int) -> Stage:
    proposals = Proposals(study, _gate, seconds=float("inf"))
    asked, told = list[float](), list[float]()
    while study.trained() < count:
        began = time.perf_counter()
        launch = _next(proposals)
        asked.append(time.perf_counter() - began)
        told.append(_seconds(lambda launch=launch: _told(study, launch, epochs)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory /= MEBIBYTE if sys.platform == "darwin" else 1024  # Linux counts in KiB
    return Stage(count, statistics.median(asked), max(asked), statistics.median(told), memory)


def _gate(expression: Expression) -> Any:
    return gate_before_training(expression)


def _next(proposals: Proposals) -> Launch:
    launch = proposals.next()
    if launch is None:
        raise SearchError(f"the space has no more candidates: {proposals.ended}")
    return launch


def _told(study: Study, launch: Launch, epochs: int) -> None:
    rates, height = study.space.learning_rate, _unit(launch.expression)
    study.begin(launch.number)
    for rate, seed in product(rates.grid, study.space.seeds):
        score = 0.8 + 0.1 * height + 0.05 * _unit(f"{launch.expression} {rate} {seed}")
        curve = tuple(Point(8 * e, 0.5, 0.5, score * e / epochs) for e in range(1, epochs + 1))
        study.add_run(
            launch.number,
            Run(rate, seed, "complete", "", score, 0.5, None, curve, 8 * epochs, 0.1),
        )
    study.finish(
        launch.number, state="complete", score=0.8 + 0.1 * height, best_rate=rates.default, cost=1.2
    )


def _unit(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48


def _resumed(folder: Path, space: Space, task: Task) -> None:
    more = replace(space, search=replace(space.search, trials=space.search.trials + 1))
    study = open_study(folder, more, task.maximize)
    _next(Proposals(study, _gate, seconds=float("inf")))
    study.close()


def _reported(folder: Path) -> None:
    write_report(folder, read_trials(folder), settings_from_folder(folder))


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


HEADS = f"{'trials':>7} {'proposal s':>11} {'longest s':>10} {'told s':>8} {'memory MiB':>11}"


def _line(stage: Stage) -> str:
    return (
        f"{stage.trials:>7} {stage.proposal:>11.3f} {stage.longest:>10.3f} {stage.told:>8.3f}"
        f" {stage.memory:>11.0f}"
    )


def conclusion(growth: Growth) -> list[str]:
    """What the table does not say."""
    return [
        f"sampler {growth.sampler}, {growth.runs} runs a trial, database {growth.database:.0f} MiB",
        f"resumed and the next candidate proposed in {growth.resume:.1f} s, beside Ray's start",
        f"report written in {growth.report:.1f} s",
        f"at the end the driver sustains {growth.rate:.1f} trials a second",
    ]


def as_json(growth: Growth) -> str:
    """All of it."""
    return json.dumps(asdict(growth) | {"trials_per_second": growth.rate}, indent=1)
