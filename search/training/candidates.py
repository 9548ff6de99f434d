"""Several candidates at once: those whose formulas are one program up to numbers train together.

A group's runs, every candidate's rates and seeds, are members of one batch. What a group cannot
train so, because its model cannot be batched or one of its candidates fails, each candidate trains
alone; so a candidate's outcome is that of `train_candidate`, whatever it was trained beside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from search.kernels.abreast import forms_abreast
from search.kernels.formula import compile_batch
from search.language.lifting import lift
from search.language.parser import parse
from search.records import Run
from search.tasks.task import longer
from search.training.alike import makers, shared_programs
from search.training.batched.memory import in_batches
from search.training.candidate import train_candidate
from search.training.course import Course
from search.training.gate import gate_problem
from search.training.job import Job, Outcome, Training, grid_of
from search.training.prepared import Prepared, error_line, prepare
from search.training.sweep import sweep_abreast
from search.training.ways import batch_of

MOST = 8
"""Candidates in one batch, at most. Digits MLP on one core, ten runs each, model-steps per second
against one candidate after the other: 2 together 1.02, 4 1.36, 8 1.56, 16 1.55 (medians of 3)."""

OnRun = Callable[[int, Run], None]
"""`on_run(place, run)`: a run of the job at that place has ended."""


def train_candidates(
    training: Training, jobs: Sequence[Job], on_run: OnRun = lambda place, run: None
) -> list[Outcome]:
    """Train several candidates, each over its whole sweep; their outcomes, in order.

    With `training.at_once` above 1, up to `MOST` candidates of a program train together, as many
    runs of each as that at once. A group's seconds are shared by its candidates.

    Raises:
        TaskError: the task or its data cannot be used.
    """
    torch.set_num_threads(training.threads)
    outcomes: dict[int, Outcome] = {}
    for group in groups_of(training, jobs):
        outcomes |= _train_group(training, {place: jobs[place] for place in group}, on_run)
    return [outcomes[place] for place in range(len(jobs))]


def groups_of(training: Training, jobs: Sequence[Job]) -> list[list[int]]:
    """The places of the jobs that train together, in order of their first."""
    kinds: dict[object, list[int]] = {}
    for place, job in enumerate(jobs):
        alone = training.at_once < 2 or training.in_step or job.task
        kind = (place,) if alone else (job.rate is None, job.budget)
        kinds.setdefault(kind, []).append(place)
    groups = [
        [kind[k] for k in group[begin : begin + MOST]]
        for kind in kinds.values()
        for group in shared_programs([parse(jobs[place].expression) for place in kind])
        for begin in range(0, len(group), MOST)
    ]
    return sorted(groups)


def _train_group(training: Training, jobs: Mapping[int, Job], on_run: OnRun) -> dict[int, Outcome]:
    """Train what can be trained together; then let every candidate go on with what it has."""
    began = time.perf_counter()
    finished = {place: list(job.finished) for place, job in jobs.items()}

    def heard(place: int, run: Run) -> None:
        finished[place].append(run)
        on_run(place, run)

    told = _together(training, jobs, heard) if len(jobs) > 1 else {}
    shared = (time.perf_counter() - began) / len(jobs)
    outcomes = {}
    for place, job in jobs.items():
        alone = replace(job, finished=tuple(finished[place]))
        outcome = train_candidate(training, alone, partial(on_run, place))
        own = {"together": told[place]} if place in told else {}
        environment = {**outcome.environment, **own}
        outcomes[place] = replace(
            outcome, seconds=outcome.seconds + shared, environment=environment
        )
    return outcomes


def _together(training: Training, jobs: Mapping[int, Job], on_run: OnRun) -> dict[int, str]:
    """Train the jobs that are admitted; what their trials' environment remembers of that."""
    prepared = prepare(training)
    try:
        jobs = _admitted(prepared, training, jobs)
        if len(jobs) > 1:
            _train_together(prepared, training, jobs, on_run)
    except Exception as error:  # one candidate's own comes again when it trains alone
        return dict.fromkeys(jobs, f"candidate by candidate: {error_line(error)}")
    return dict.fromkeys(jobs, f"{len(jobs)} candidates in one program")


def _admitted(prepared: Prepared, training: Training, jobs: Mapping[int, Job]) -> dict[int, Job]:
    """The jobs that pass the training gate, or need not; the others meet it again, alone."""
    found = {}
    for place, job in jobs.items():
        make_activation, grid = prepared.maker(parse(job.expression)), grid_of(training, job)
        open_ = not job.gated or bool(job.finished)
        if open_ or not gate_problem(prepared, make_activation, grid):
            found[place] = job
    return found


def _train_together(
    prepared: Prepared, training: Training, jobs: Mapping[int, Job], on_run: OnRun
) -> None:
    """Train the sweeps of jobs whose formulas are one program, and of one length."""
    first = next(iter(jobs.values()))
    if first.again:
        recipe = longer(prepared.recipe, first.budget)
        prepared = replace(prepared, recipe=recipe, testing=True)
    lifted = lift([parse(job.expression) for job in jobs.values()])
    if prepared.compiles:
        compile_batch([lifted.each[0], *forms_abreast(lifted.each[0])])
    courses = [
        Course(
            grid_of(training, job),
            finished=job.finished,
            on_run=partial(on_run, place),
            epochs=prepared.epochs,
        )
        for place, job in jobs.items()
    ]
    batch = batch_of(prepared, makers(lifted, prepared.kernel))
    most, abreast = training.at_once * len(jobs), any(course.rungs for course in courses)
    sweep_abreast(courses, lambda members: in_batches(batch, members, most, abreast=abreast))
