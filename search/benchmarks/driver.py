"""What the driver of a search costs as its study grows: everything but the training is real.

The space's own sampler proposes, the gate judges, the study writes every run and every end into its
database; the runs themselves are made up, one epoch's point for every epoch of the recipe. So the
seconds here are what a search spends beside its workers, and they grow with its trials. What is
behind a stage was not searched but filled in (`search.benchmarks.filling`).
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from search.benchmarks.filling import fill, made_up_runs, outcome
from search.database.storage import DATABASE
from search.environment import environment
from search.errors import SearchError
from search.figures.report import write_report
from search.figures.settings import settings_from_folder
from search.language.expression import Expression
from search.language.parser import parse
from search.proposals import Proposals
from search.protocol import gate_before_training
from search.results import driver_recorded
from search.space.settings import Space
from search.space.space import load_space
from search.study import Launch, Study, open_study, read_trials
from search.tasks.task import Task, recipe_with
from search.training.from_space import task_of

WINDOW = 20
"""Trials at the end of each stage whose seconds are measured, gate included."""
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
    known: float
    """Functions that were known already, or refused by a gate, for every one that was not."""
    resume: float
    """Seconds to open the study again and propose the next candidate, beside Ray's start."""
    memory: float
    """Most resident MiB so far, torch among them; of a process that also filled the study."""


@dataclass(frozen=True, slots=True)
class Growth:
    """A whole measurement."""

    sampler: str
    runs: int
    """Of a trial."""
    stages: tuple[Stage, ...]
    database: float
    """MiB."""
    report: float
    """Seconds to read all trials and write the report."""
    memory: float
    """Most resident MiB of it all."""

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
    if not wanted or any(b - a < WINDOW for a, b in pairwise([0, *wanted])):
        told = f"--trials: expected numbers from {WINDOW}, as far apart, got {list(stages)}"
        raise SearchError(told)
    space = load_space(path, [*overrides, f"search.trials={2 * wanted[-1]}", "finalists=null"])
    if space.grammar is None:
        raise SearchError(f"{path}: has no activation to search; expected a grammar")
    with tempfile.TemporaryDirectory() as folder:
        return _grown(space, task_of(space), wanted, Path(folder), tell)


def _grown(
    space: Space, task: Task, wanted: Sequence[int], folder: Path, tell: Callable[[str], None]
) -> Growth:
    epochs = recipe_with(task.recipe, space.recipe).epochs
    begun = open_study(folder, space, task.maximize)  # with its baselines
    tell(HEADS)
    found, trained = list[Stage](), 0
    with driver_recorded(folder, space, task, begun.name):
        begun.close()
        for count in wanted:
            fill(folder, space, task.maximize, count - WINDOW - trained, epochs)
            found.append(_measured(folder, space, task, epochs))
            trained = count
            tell(_line(found[-1]))
    return Growth(
        sampler=space.search.sampler,
        runs=len(space.learning_rate.grid) * len(space.seeds),
        stages=tuple(found),
        database=(folder / DATABASE).stat().st_size / MEBIBYTE,
        report=_seconds(lambda: _reported(folder)),
        memory=_memory(),
    )


def _measured(folder: Path, space: Space, task: Task, epochs: int) -> Stage:
    """Go on with a study, as a driver does."""
    began = time.perf_counter()
    study = open_study(folder, space, task.maximize)
    while (waiting := study.next_waiting()) is not None:
        _told(study, waiting, epochs)
    proposals = Proposals(study, _gate, seconds=float("inf"))
    before, trained = study.existing(), study.trained()
    launches = [_next(proposals)]
    resume = time.perf_counter() - began
    asked, told = list[float](), list[float]()
    while True:
        told.append(_seconds(lambda: _told(study, launches[-1], epochs)))
        if len(launches) == WINDOW:
            break
        asked.append(_seconds(lambda: launches.append(_next(proposals))))
    known = study.existing() - before - len(launches)
    study.close()
    return Stage(
        trials=trained + WINDOW,
        proposal=statistics.median(asked),
        longest=max(asked),
        told=statistics.median(told),
        known=known / len(launches),
        resume=resume,
        memory=_memory(),
    )


def _memory() -> float:
    """Most resident MiB of this process so far."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return memory / (MEBIBYTE if sys.platform == "darwin" else 1024)  # Linux counts in KiB


def _gate(expression: Expression) -> Any:
    return gate_before_training(expression)


def _next(proposals: Proposals) -> Launch:
    launch = proposals.next()
    if launch is None:
        raise SearchError(f"the space has no more candidates: {proposals.ended}")
    return launch


def _told(study: Study, launch: Launch, epochs: int) -> None:
    """As a worker of one program tells it: all runs together."""
    expression = parse(launch.expression)
    study.begin(launch.number)
    study.add_runs(launch.number, made_up_runs(study.space, expression, epochs))
    study.finish(launch.number, **outcome(study.space, expression))


def _reported(folder: Path) -> None:
    write_report(folder, read_trials(folder), settings_from_folder(folder))


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


HEADS = (
    f"{'trials':>7} {'proposal s':>11} {'longest s':>10} {'known':>6} {'told s':>8}"
    f" {'resume s':>9} {'memory MiB':>11}"
)


def _line(stage: Stage) -> str:
    return (
        f"{stage.trials:>7} {stage.proposal:>11.3f} {stage.longest:>10.3f} {stage.known:>6.2f}"
        f" {stage.told:>8.3f} {stage.resume:>9.2f} {stage.memory:>11.0f}"
    )


def conclusion(growth: Growth) -> list[str]:
    """What the table does not say."""
    return [
        f"sampler {growth.sampler}, {growth.runs} runs a trial, database {growth.database:.0f} MiB",
        f"report written in {growth.report:.1f} s; {growth.memory:.0f} MiB after it",
        f"at the end the driver sustains {growth.rate:.1f} trials a second",
    ]


def as_json(growth: Growth) -> str:
    """All of it, with what it was measured on."""
    found = asdict(growth) | {"trials_per_second": growth.rate}
    return json.dumps(found | environment(), indent=1)
