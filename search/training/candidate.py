"""What a worker does with one candidate: gate, sweep, cost, and what to report on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from search.environment import worker_environment
from search.kernels.abreast import forms_abreast
from search.kernels.formula import compile_batch
from search.language.parser import parse
from search.promotion import rung_epochs
from search.records import Run
from search.training.checkpoints import Checkpoints, Paused
from search.training.climbing import OnRung, at_rungs, before_last
from search.training.course import OnEpoch
from search.training.finalist import train_again
from search.training.gate import gate_problem
from search.training.job import Job, Outcome, Training, grid_of, training_for
from search.training.prepared import Prepared, error_line, parameters_of, prepare
from search.training.rates import best_rate, mean_scores, why_diverged
from search.training.rungs import steps_spared
from search.training.shards import ALONE, Shards
from search.training.step_cost import StepCost, measure_step_cost
from search.training.work import Work


def train_candidate(
    training: Training,
    job: Job,
    on_run: Callable[[Run], None] = lambda run: None,
    on_epoch: OnEpoch | None = None,
    say: Callable[[str], None] = lambda line: None,
    on_rung: OnRung = lambda epoch, value: None,
    on_all: Callable[[], None] = lambda: None,
    shards: Shards = ALONE,
) -> Outcome:
    """Train one candidate over its whole sweep.

    Args:
        on_run: called with every run as soon as it has ended.
        on_epoch: called after every epoch but a run's last, with `training.in_step` only.
        say: called with a line when a checkpoint is of no use.
        on_rung: called when it reaches a rung, after `on_epoch`.
        on_all: called after `on_run` was for all runs that ended together.
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
        work = replace(_taken_up(prepared, training, job, say), on_all=on_all)
        if job.again:
            outcome = train_again(work, on_run)
        else:
            outcome = _trained(work, on_run, on_epoch, on_rung)
    except Paused:
        raise
    except (Exception, SystemExit) as error:  # `sys.exit` in a task is no reason to leave
        outcome = Outcome("failed", error_line(error))
    seconds = time.perf_counter() - began
    environment = {**worker_environment(prepared.device), **outcome.environment}
    return replace(outcome, seconds=seconds, environment=environment)


def _taken_up(prepared: Prepared, training: Training, job: Job, say: Callable[[str], None]) -> Work:
    """The job with its activation, tried in the task's model; its kernels are built."""
    expression = parse(job.expression)
    if training.at_once > 1 and prepared.compiles:
        compile_batch([expression, *forms_abreast(expression)])
    make_activation = prepared.maker(expression)
    parameters = parameters_of(prepared, make_activation)
    told = {} if training.kernel == "auto" else {"kernel": training.kernel}
    return Work(prepared, training, job, make_activation, parameters, say, told=told)


def _trained(
    work: Work, on_run: Callable[[Run], None], on_epoch: OnEpoch | None, on_rung: OnRung
) -> Outcome:
    """Gate and sweep of a candidate, and what its activation costs."""
    job, grid, kept = work.job, grid_of(work.training, work.job), work.checkpoints()
    under_way = bool(kept and kept.any())
    if kept and job.promoted and not under_way:
        work.say("its checkpoints are gone; it is trained from the start again")
    new = not (job.finished or job.promoted or under_way)
    if job.gated and new and (problem := gate_problem(work.prepared, work.make_activation, grid)):
        return work.ended("rejected", f"training: {problem}")
    runs = work.sweep(grid, kept, on_run, _heard(work, kept, on_epoch, on_rung))
    spared = steps_spared(runs)
    rate = best_rate(runs, grid.maximize, grid.default)
    if rate is None:
        return work.ended("diverged", why_diverged(runs), spared=spared)
    cost = _cost(work)
    return work.ended(
        "complete",
        score=mean_scores(runs)[rate],
        best_rate=rate,
        cost=cost.relative,
        share=cost.share,
        composed_share=cost.composed_share,
        memory=cost.memory,
        spared=spared,
    )


def _heard(
    work: Work, kept: Checkpoints | None, on_epoch: OnEpoch | None, on_rung: OnRung
) -> OnEpoch | None:
    """What hears the epochs of a sweep whose runs advance together; None: nobody does."""
    training, job, prepared = work.training, work.job, work.prepared
    if not training.in_step:
        return None
    if kept and training.promotion is not None:
        rungs = rung_epochs(training.promotion, prepared.epochs)
        promoted = job.promoted if job.gated else None
        on_epoch = at_rungs(on_epoch, on_rung, rungs, kept, promoted)
    return before_last(on_epoch, prepared.steps)


def _cost(work: Work) -> StepCost:
    """What the activation adds to a training step."""
    prepared = work.prepared
    return measure_step_cost(
        prepared.task,
        prepared.splits,
        prepared.options,
        prepared.recipe,
        work.make_activation,
        partial(work.make_activation, kernel="composed"),
        device=prepared.device,
    )
