"""What a worker does with one candidate: gate, sweep, cost, and what to report on the way.

Everything that goes in and out is a plain value, so that it may run in another process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch

from search.activation import Activation
from search.environment import worker_environment
from search.errors import StudyError
from search.kernels.abreast import forms_abreast
from search.kernels.formula import compile_batch
from search.language.parser import parse
from search.promotion import rung_epochs
from search.records import Key, Point, Run
from search.space.settings import Promotion, Space
from search.tasks.task import (
    MakeActivation,
    Recipe,
    Task,
    find_task,
    longer,
    scored_by_loss,
)
from search.training.checkpoints import Checkpoints, Keeping, Paused
from search.training.climbing import OnRung, at_rungs
from search.training.course import OnEpoch
from search.training.gate import gate_in_training, worth_a_gate
from search.training.prepared import Prepared, error_line, parameters_of, prepared_task
from search.training.rates import Grid, best_rate, mean_scores, why_diverged
from search.training.rungs import steps_spared
from search.training.shards import ALONE, Shards
from search.training.step_cost import StepCost, measure_step_cost
from search.training.sweep import Together, drain, sweep
from search.training.ways import checkpoints_of, start_run, together_or_plainly


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


def task_of(space: Space) -> Task:
    """The space's task, scored as the space wants it."""
    task = find_task(space.task, space.source.parent)
    return scored_by_loss(task) if space.by_loss else task


def training_of(space: Space, task: Task) -> Training:
    """What all candidates of a space share.

    Raises:
        StudyError: the device and the resources contradict each other.
    """
    rates, resources = space.learning_rate, space.resources
    if problem := _contradiction(space):
        raise StudyError(problem)
    return Training(
        task=space.task,
        folder=space.source.parent.resolve(),
        options=space.options,
        recipe=space.recipe,
        data_root=space.data_root,
        grid=Grid(
            rates.grid, rates.default, space.seeds, rates.extend, task.maximize, rates.halving
        ),
        by_loss=space.by_loss,
        device=_device(space),
        threads=max(1, int(resources.cpu / resources.workers)),
        workers=resources.workers,
        in_step=space.search.stopping is not None or space.search.promotion is not None,
        promotion=space.search.promotion,
    )


def _device(space: Space) -> str:
    return "cuda" if space.resources.gpu and space.device != "cpu" else "cpu"


def _contradiction(space: Space) -> str:
    """What the resources leave no room for; empty where there is nothing."""
    resources, compile = space.resources, space.recipe.get("compile")
    if space.device == "cuda" and not resources.gpu:
        return (
            "device: cuda, and resources.gpu is 0; expected a share of a GPU for each trial, such"
            " as 0.25 for four at once"
        )
    if resources.workers > 1 and space.search.promotion is not None:
        return (
            "resources.strategy: ddp, and search.promotion: a run of several processes cannot wait"
            " at a rung; expected one of the two"
        )
    if resources.workers > 1 and compile in ("inductor", "cudagraphs"):
        return (
            f"resources.strategy: ddp, and recipe.compile: {compile}: a step that several processes"
            " share is not compiled; expected one of the two"
        )
    if _device(space) == "cpu" and compile == "cudagraphs":
        return (
            "recipe.compile: cudagraphs needs a GPU, and trials run on the CPU; expected inductor,"
            " auto or off, or resources.gpu"
        )
    return ""


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


def prepare(training: Training) -> Prepared:
    """Load the task and its data, once per process.

    Raises:
        TaskError: unknown task, option or recipe, or missing data.
    """
    return prepared_task(
        training.task,
        training.folder,
        json.dumps([dict(training.options), dict(training.recipe)], sort_keys=True),
        training.data_root,
        training.device,
        training.by_loss,
    )


def train_candidate(
    training: Training,
    job: Job,
    on_run: Callable[[Run], None] = lambda run: None,
    on_epoch: OnEpoch | None = None,
    say: Callable[[str], None] = lambda line: None,
    on_rung: OnRung = lambda epoch, value: None,
    shards: Shards = ALONE,
) -> Outcome:
    """Train one candidate over its whole sweep.

    Args:
        on_run: called with every run as soon as it has ended.
        on_epoch: called after every epoch but a run's last, with `training.in_step` only.
        say: called with a line when a checkpoint is of no use.
        on_rung: called when it reaches a rung, after `on_epoch`.
        shards: this process's part; the others are called with the same training and job.

    Raises:
        TaskError: the task or its data cannot be used. An error after that is the candidate's
            own, and its outcome.
        Paused: it waits at a rung, or somebody asked for the end; its checkpoints have all that
            goes on.
    """
    began = time.perf_counter()
    torch.set_num_threads(training.threads)
    training = training_for(training, job)
    prepared = replace(prepare(training), shards=shards)
    try:
        outcome = _trained(prepared, training, job, on_run, on_epoch, say, on_rung)
    except Paused:
        raise
    except (Exception, SystemExit) as error:  # `sys.exit` in a task is no reason to leave
        outcome = Outcome("failed", error_line(error))
    seconds = time.perf_counter() - began
    environment = {**worker_environment(prepared.device), **outcome.environment}
    return replace(outcome, seconds=seconds, environment=environment)


def training_for(training: Training, job: Job) -> Training:
    """The training of one job: a finalist's may be on another task."""
    return elsewhere(training, job.task) if job.task else training


def _trained(
    prepared: Prepared,
    training: Training,
    job: Job,
    on_run: Callable[[Run], None],
    on_epoch: OnEpoch | None,
    say: Callable[[str], None],
    on_rung: OnRung,
) -> Outcome:
    expression = parse(job.expression)
    grid, make_activation = grid_of(training, job), partial(Activation, expression)
    if training.at_once > 1 and prepared.device == "cpu":  # together: 25 ms a form, not 150
        compile_batch([expression, *forms_abreast(expression)])
    told: dict[str, Any] = {}
    ended = partial(Outcome, parameters=parameters_of(prepared, make_activation), environment=told)
    if job.again:
        return _trained_again(prepared, training, job, make_activation, told, on_run, ended, say)
    kept = _checkpoints(prepared, training, job, say)
    if kept and job.promoted and not kept.any():
        say("its checkpoints are gone; it is trained from the start again")
    if kept and training.promotion is not None:
        rungs = rung_epochs(training.promotion, prepared.epochs)
        promoted = job.promoted if job.gated else None
        on_epoch = at_rungs(on_epoch, on_rung, rungs, kept, promoted)
    if job.gated and not (job.finished or job.promoted or (kept and kept.any())):
        problem = gate_problem(prepared, make_activation, grid)
        if problem:
            return ended("rejected", f"training: {problem}")
    runs = sweep(
        grid,
        partial(start_run, prepared, make_activation, prepared.recipe, kept),
        together=_together(prepared, training, make_activation, told, kept),
        finished=job.finished,
        on_run=on_run,
        on_epoch=_before_last(on_epoch, prepared.steps) if training.in_step else None,
        epochs=prepared.epochs,
    )
    ended = partial(ended, spared=steps_spared(runs))
    rate = best_rate(runs, grid.maximize, grid.default)
    if rate is None:
        return ended("diverged", why_diverged(runs))
    cost = _cost(prepared, make_activation)
    return ended(
        "complete",
        score=mean_scores(runs)[rate],
        best_rate=rate,
        cost=cost.relative,
        share=cost.share,
        composed_share=cost.composed_share,
        memory=cost.memory,
    )


def _trained_again(
    prepared: Prepared,
    training: Training,
    job: Job,
    make_activation: MakeActivation,
    told: dict[str, Any],
    on_run: Callable[[Run], None],
    ended: Callable[..., Outcome],
    say: Callable[[str], None],
) -> Outcome:
    """A finalist: one rate, frozen, with fresh seeds, and one look at the test part."""
    if not len(prepared.splits.test.targets):
        return ended("failed", f"task {prepared.task.name} has no test split to score finalists on")
    grid = replace(training.grid, halving=None)
    training = replace(training, in_step=False, grid=grid)

    def swept(how: Prepared, grid: Grid) -> tuple[Run, ...]:
        finished = [run for run in job.finished if run.seed in grid.seeds]
        kept = _checkpoints(how, training, job, say)
        start = partial(start_run, how, make_activation, how.recipe, kept)
        together = _together(how, training, make_activation, told, kept)
        return sweep(grid, start, finished=finished, on_run=on_run, together=together)

    rate = job.rate
    if rate is None:
        told["metric"], told["maximize"] = prepared.task.metric, training.grid.maximize
        tuned = swept(prepared, training.grid)
        rate = best_rate(tuned, training.grid.maximize, training.grid.default)
        if rate is None:
            return ended("diverged", why_diverged(tuned))
    final = replace(prepared, recipe=longer(prepared.recipe, job.budget), testing=True)
    runs = swept(final, grid_of(training, replace(job, rate=rate)))
    scores = [run.test for run in runs if run.test is not None]
    if job.rates:  # cells of a heatmap, of which nothing is claimed: their mean stands for them
        score = fmean(scores) if scores else None
        return ended("complete" if scores else "diverged", score=score, best_rate=rate)
    if len(scores) < len(runs):
        return ended("diverged", _lost(runs), best_rate=rate)
    return ended("complete", score=fmean(scores), best_rate=rate)


def grid_of(training: Training, job: Job) -> Grid:
    """The runs of a job: the whole sweep, or those of a finalist at its rates."""
    if job.rate is not None:
        rates = job.rates or (job.rate,)
        return Grid(rates, rates[0], job.seeds, extend=False)
    return replace(training.grid, seeds=job.seeds or training.grid.seeds)


def elsewhere(training: Training, name: str) -> Training:
    """The training on another task: its own data, model and recipe, the rates of the search and the
    first of its seeds."""
    task = find_task(name, training.folder)
    maximize = task.maximize and not training.by_loss
    grid = replace(training.grid, seeds=training.grid.seeds[:1], maximize=maximize)
    return replace(training, task=name, options={}, recipe={}, grid=grid)


def _lost(runs: Sequence[Run]) -> str:
    """How many of a finalist's runs diverged, and the first one's reason."""
    lost = [run for run in runs if run.state == "diverged"]
    return f"{len(lost)} of {len(runs)} fresh seeds; seed {lost[0].seed}: {lost[0].reason}"


def _checkpoints(
    prepared: Prepared, training: Training, job: Job, say: Callable[[str], None]
) -> Checkpoints | None:
    return checkpoints_of(prepared, training.checkpoints, job.checkpoints, job.expression, say)


def _together(
    prepared: Prepared,
    training: Training,
    make_activation: MakeActivation,
    told: dict[str, Any],
    kept: Checkpoints | None,
) -> Together | None:
    """Trains several runs in one program, where the study wants that; None for the plain loop."""
    if training.at_once < 2 and not (kept and kept.any()):
        return None
    abreast = training.in_step or training.grid.halving is not None
    return together_or_plainly(prepared, make_activation, training.at_once, abreast, told, kept)


def _before_last(on_epoch: OnEpoch | None, steps: int) -> OnEpoch:
    """`on_epoch` without the last epoch: a scheduler has nothing left to stop there, and must not
    take a trained candidate for a stopped one."""

    def told(epoch: int, value: float, points: Mapping[Key, Point]) -> None:
        if on_epoch is not None and all(point.step < steps for point in points.values()):
            on_epoch(epoch, value, points)

    return told


def gate_problem(prepared: Prepared, make_activation: MakeActivation, grid: Grid) -> str:
    """Why the candidate does not learn, or nothing; sweeps too short for a gate are not gated."""
    if not worth_a_gate(prepared.steps, len(grid.rates) * len(grid.seeds)):
        return ""
    rates = dict.fromkeys((grid.default, grid.rates[0], grid.rates[-1]))

    def start(recipe: Recipe, rate: float) -> Run:
        return drain(start_run(prepared, make_activation, recipe, None, rate, grid.seeds[0]))

    short = replace(prepared.recipe, compile="off")  # a compiler takes longer
    return gate_in_training(start, short, tuple(rates), prepared.constant)


def _cost(prepared: Prepared, make_activation: partial[Activation]) -> StepCost:
    """What the activation adds to a training step."""
    return measure_step_cost(
        prepared.task,
        prepared.splits,
        prepared.options,
        prepared.recipe,
        make_activation,
        partial(make_activation, kernel="composed"),
        device=prepared.device,
    )
