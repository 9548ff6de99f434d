"""What a worker is given and gives back: plain values, as they may go to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from search.records import Run
from search.space.settings import Promotion
from search.tasks.task import find_task
from search.training.checkpoints import Keeping
from search.training.rates import Grid


@dataclass(frozen=True, slots=True)
class Training:
    """What all candidates of a study share."""

    task: str
    """A built-in task, or a path to a `.py` file relative to `folder`."""
    folder: Path
    options: Mapping[str, Any]
    recipe: Mapping[str, Any]
    data_root: str | None
    grid: Grid
    by_loss: bool = False
    """Whether the validation loss is the score."""
    device: str = "cpu"
    kernel: str = "auto"
    """What activations run as, one of `search.kernels.KERNELS`."""
    threads: int = 1
    at_once: int = 1
    """How many runs train in one program (see `search.training.planner`); 1: the plain loop."""
    workers: int = 1
    """Processes that a run takes."""
    processes: int | None = None
    """How many trials run side by side; None: as many as the resources let."""
    in_step: bool = False
    """Whether all runs of the grid advance together, so that a scheduler can compare epochs."""
    checkpoints: Keeping | None = None
    """Where runs are written down, to go on after an interruption; None: nowhere."""
    promotion: Promotion | None = None
    """Where candidates wait; with `in_step` and `checkpoints` only."""


@dataclass(frozen=True, slots=True)
class Job:
    """One candidate to be trained."""

    expression: str
    gated: bool
    """Whether it must pass the training gate (a baseline need not)."""
    finished: tuple[Run, ...] = ()
    """Runs that an earlier driver saw the end of."""
    seeds: tuple[int, ...] = ()
    """In place of the grid's: of a placebo or a finalist."""
    rate: float | None = None
    """Of a finalist: the one rate that it is trained with. None: the whole sweep."""
    budget: float = 1.0
    """Of a finalist: how many times as long as in the search its runs are."""
    task: str = ""
    """Of a finalist: another task than the search's, where its rate is yet to be found."""
    rates: tuple[float, ...] = ()
    """Of a finalist: those beside its own, which are trained in place of it, for a heatmap."""
    checkpoints: str = ""
    """The folder among `Training.checkpoints` where an earlier driver or worker may have left
    it."""
    promoted: int = 0
    """The epoch of the last rung from which it may go on."""

    @property
    def again(self) -> bool:
        """Whether it is a finalist."""
        return self.rate is not None or self.task != ""


OutcomeState = Literal["complete", "diverged", "rejected", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a candidate ended; its runs were reported on the way."""

    state: OutcomeState
    reason: str = ""
    score: float | None = None
    best_rate: float | None = None
    cost: float | None = None
    share: float | None = None
    composed_share: float | None = None
    memory: float | None = None
    parameters: int = 0
    spared: int = 0
    seconds: float = 0.0
    environment: Mapping[str, Any] = field(default_factory=dict)


def training_for(training: Training, job: Job) -> Training:
    """The training of one job: a finalist's may be on another task."""
    return elsewhere(training, job.task) if job.task else training


def elsewhere(training: Training, name: str) -> Training:
    """The training on another task: its own data, model and recipe, the rates of the search and the
    first of its seeds."""
    task = find_task(name, training.folder)
    maximize = task.maximize and not training.by_loss
    grid = replace(training.grid, seeds=training.grid.seeds[:1], maximize=maximize)
    return replace(training, task=name, options={}, recipe={}, grid=grid)


def grid_of(training: Training, job: Job) -> Grid:
    """The runs of a job: the whole sweep, or those of a finalist at its rates."""
    if job.rate is not None:
        rates = job.rates or (job.rate,)
        return Grid(rates, rates[0], job.seeds, extend=False)
    return replace(training.grid, seeds=job.seeds or training.grid.seeds)
