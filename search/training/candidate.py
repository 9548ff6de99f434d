"""What a worker does with one candidate: gate, sweep, cost, and what to report on the way.

Everything that goes in and out is a plain value, so that it may run in another process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
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
from search.records import Epoch, Key, Point, Run
from search.space.settings import Space
from search.tasks.task import (
    MakeActivation,
    Recipe,
    Task,
    find_task,
    longer,
    scored_by_loss,
)
from search.training.batched import run_together
from search.training.checkpoints import Checkpoints, Keeping, Paused
from search.training.gate import gate_in_training, worth_a_gate
from search.training.loop import initial_model, run_epochs
from search.training.memory import in_batches
from search.training.optimizers import activations_of
from search.training.prepared import Prepared, error_line, prepared_task
from search.training.shards import ALONE, Shards
from search.training.stacked import BatchingError
from search.training.step_cost import StepCost, measure_step_cost
from search.training.sweep import (
    Grid,
    OnEpoch,
    Together,
    best_rate,
    drain,
    in_step,
    mean_scores,
    one_by_one,
    sweep,
    why_diverged,
)


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
    in_step: bool = False
    """Whether all runs of the grid advance together, so that a scheduler can compare epochs."""
    checkpoints: Keeping | None = None
    """Where runs are written down, to go on after an interruption; None: nowhere."""


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
    if space.device == "cuda" and not resources.gpu:
        raise StudyError(
            "device: cuda, and resources.gpu is 0; expected a share of a GPU for each trial, such"
            " as 0.25 for four at once"
        )
    return Training(
        task=space.task,
        folder=space.source.parent.resolve(),
        options=space.options,
        recipe=space.recipe,
        data_root=space.data_root,
        grid=Grid(rates.grid, rates.default, space.seeds, rates.extend, task.maximize),
        by_loss=space.by_loss,
        device="cuda" if resources.gpu and space.device != "cpu" else "cpu",
        threads=max(1, int(resources.cpu / resources.workers)),
        workers=resources.workers,
        in_step=space.search.stopping is not None,
    )


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
    shards: Shards = ALONE,
) -> Outcome:
    """Train one candidate over its whole sweep.

    Args:
        on_run: called with every run as soon as it has ended.
        on_epoch: called after every epoch but a run's last, with `training.in_step` only.
        say: called with a line when a checkpoint is of no use.
        shards: this process's part; the others are called with the same training and job.

    Raises:
        TaskError: the task or its data cannot be used. An error after that is the candidate's
            own, and its outcome.
        Paused: somebody asked for the end; its checkpoints have all that goes on.
    """
    began = time.perf_counter()
    torch.set_num_threads(training.threads)
    training = training_for(training, job)
    prepared = replace(prepare(training), shards=shards)
    try:
        outcome = _trained(prepared, training, job, on_run, on_epoch, say)
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
) -> Outcome:
    expression = parse(job.expression)
    grid, make_activation = training.grid, partial(Activation, expression)
    grid = replace(grid, seeds=job.seeds or grid.seeds)
    if training.at_once > 1 and prepared.device == "cpu":  # together: 25 ms a form, not 150
        compile_batch([expression, *forms_abreast(expression)])
    told: dict[str, Any] = {}
    ended = partial(Outcome, parameters=_parameters(prepared, make_activation), environment=told)
    if job.again:
        return _trained_again(prepared, training, job, make_activation, told, on_run, ended, say)
    kept = _checkpoints(prepared, training, job, say)
    if job.gated and not job.finished and not (kept and kept.any()):
        problem = _gate(prepared, make_activation, grid)
        if problem:
            return ended("rejected", f"training: {problem}")
    runs = sweep(
        grid,
        partial(_start, prepared, make_activation, prepared.recipe, kept),
        together=_together(prepared, training, make_activation, told, kept),
        finished=job.finished,
        on_run=on_run,
        on_epoch=_before_last(on_epoch, prepared.steps) if training.in_step else None,
    )
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
    training = replace(training, in_step=False)

    def swept(how: Prepared, grid: Grid) -> tuple[Run, ...]:
        finished = [run for run in job.finished if run.seed in grid.seeds]
        kept = _checkpoints(how, training, job, say)
        start = partial(_start, how, make_activation, how.recipe, kept)
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
    rates = job.rates or (rate,)
    runs = swept(final, Grid(rates, rates[0], job.seeds, extend=False))
    scores = [run.test for run in runs if run.test is not None]
    if job.rates:  # cells of a heatmap, of which nothing is claimed: their mean stands for them
        score = fmean(scores) if scores else None
        return ended("complete" if scores else "diverged", score=score, best_rate=rate)
    if len(scores) < len(runs):
        return ended("diverged", _lost(runs), best_rate=rate)
    return ended("complete", score=fmean(scores), best_rate=rate)


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
    """The trial's checkpoints, if it is to have any."""
    if training.checkpoints is None or not job.checkpoints:
        return None
    about = [job.expression, prepared.task.name, prepared.options, prepared.device]
    return Checkpoints(
        store=training.checkpoints.of_trial(job.checkpoints),
        keeping=training.checkpoints,
        about=repr([*about, prepared.recipe, len(prepared.splits.train.targets)]),
        say=say,
        part="final_" if prepared.testing else "",
    )


def _start(
    prepared: Prepared,
    make_activation: MakeActivation,
    recipe: Recipe,
    kept: Checkpoints | None,
    rate: float,
    seed: int,
) -> Generator[Point, Any, Run]:
    """One run: its points, then the run."""
    return run_epochs(
        prepared.task,
        prepared.splits,
        make_activation,
        options=prepared.options,
        recipe=recipe,
        learning_rate=rate,
        seed=seed,
        device=prepared.device,
        testing=prepared.testing,
        stream=kept.run(rate, seed) if kept else None,
        shards=prepared.shards,
    )


def _together(
    prepared: Prepared,
    training: Training,
    make_activation: MakeActivation,
    told: dict[str, Any],
    kept: Checkpoints | None,
) -> Together | None:
    """Trains several runs in one program, where the study wants that; None for the plain loop.

    What cannot be batched goes the plain way, and the trial's environment remembers why.
    """
    if training.at_once < 2:
        return None
    start = partial(_start, prepared, make_activation, prepared.recipe, kept)
    batch = partial(
        run_together,
        prepared.task,
        prepared.splits,
        make_activation,
        options=prepared.options,
        recipe=prepared.recipe,
        device=prepared.device,
        testing=prepared.testing,
    )

    plainly = partial(in_step if training.in_step else one_by_one, start)

    def of_keys(part: Sequence[Key]) -> Iterator[Epoch]:
        return batch(keys=part, stream=kept.batch(part) if kept else None)

    def together(keys: Sequence[Key]) -> Iterator[Epoch]:
        begun = kept.begun(keys) if kept else []
        fresh = [key for key in keys if not any(key in part for part in begun)]
        if len(keys) < 2 and not begun:
            yield from plainly(keys)
            return
        told["batching"] = f"up to {training.at_once} runs at once"
        batches = in_batches(
            of_keys, fresh, training.at_once, abreast=training.in_step, begun=begun
        )
        try:
            yield from batches
        except BatchingError as error:
            told["batching"] = f"one by one: {error}"
            yield from plainly(keys)

    return together


def _before_last(on_epoch: OnEpoch | None, steps: int) -> OnEpoch:
    """`on_epoch` without the last epoch: a scheduler has nothing left to stop there, and must not
    take a trained candidate for a stopped one."""

    def told(epoch: int, value: float, points: Mapping[Key, Point]) -> None:
        if on_epoch is not None and all(point.step < steps for point in points.values()):
            on_epoch(epoch, value, points)

    return told


def _gate(prepared: Prepared, make_activation: MakeActivation, grid: Grid) -> str:
    """Why the candidate does not learn, or nothing; sweeps too short for a gate are not gated."""
    if not worth_a_gate(prepared.steps, len(grid.rates) * len(grid.seeds)):
        return ""
    rates = dict.fromkeys((grid.default, grid.rates[0], grid.rates[-1]))

    def start(recipe: Recipe, rate: float) -> Run:
        return drain(_start(prepared, make_activation, recipe, None, rate, grid.seeds[0]))

    return gate_in_training(start, prepared.recipe, tuple(rates), prepared.constant)


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


def _parameters(prepared: Prepared, make_activation: MakeActivation) -> int:
    """Trainable numbers in the activations of the task's model."""
    model = initial_model(
        prepared.task,
        prepared.splits,
        make_activation,
        prepared.options,
        seed=0,
        device=torch.device(prepared.device),
    )
    unique = {p for module in activations_of(model) for p in module.parameters()}
    return sum(parameter.numel() for parameter in unique)
