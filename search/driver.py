"""The driver of a study: claims the folder, trains what is missing, reports."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from search.database.storage import has_study
from search.figures.report import write_report
from search.figures.settings import settings_from_folder
from search.integrity.audit import altered_line
from search.kernels.abreast import forms_abreast
from search.kernels.formula import compile_batch
from search.language.expression import Expression
from search.plan import make_plan, most_finalists, most_swept, room_of
from search.progress import TOLD, Goal, display
from search.protocol import gate_before_training
from search.results import claimed, driver_recorded, set_aside
from search.space.settings import Space
from search.study import Study, open_study, read_trials
from search.summary import print_summary
from search.tasks.task import Task, recipe_with
from search.training.checkpoints import Keeping
from search.training.choice import CHOICE
from search.training.from_space import task_of, training_of
from search.training.planner import measured, planned


def drive(
    space: Space, results: Path, fresh: bool, console: Console, address: str | None = None
) -> None:
    """Begin or go on with the study of `space` in `results`, and write its report.

    address: of a Ray cluster to train on; None: RAY_ADDRESS, or this machine.

    Raises:
        SearchError: in the user's words.
        KeyboardInterrupt: asked to stop; everything that has ended is kept.
    """
    folder, task = results / space.name, task_of(space)
    if fresh and (aside := set_aside(folder)):
        console.print(f"earlier results: {aside}", markup=False, highlight=False)
    with claimed(folder):
        study = open_study(folder, space, task.maximize, fresh)
        try:
            if study.trials and (line := altered_line(folder, runs=False)):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            why = train(study, task, folder, console, address)
        finally:
            study.close()
        console.print(f"{space.name}: {why}", markup=False, highlight=False)
        if line := altered_line(folder):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        trials, settings = read_trials(folder), settings_from_folder(folder)
        print_summary(console, trials, settings, write_report(folder, trials, settings))


def train(
    study: Study, task: Task, folder: Path, console: Console, address: str | None = None
) -> str:
    """Train what is missing; why nothing more is."""
    space = study.space
    if study.is_complete():
        return study.exhausted or f"complete, {study.trained()} candidates; a report is written"
    from search.tuner import on_a_worker, run_search, running_ray  # 2 s, and not all need it

    goal = Goal(
        name=space.name,
        metric=task.metric,
        maximize=task.maximize,
        budget=space.search.trials if space.grammar else 0,
        baselines=len(space.baselines),
        placebos=space.placebos,
        finalists=most_finalists(space) + most_swept(space),
    )
    epochs = recipe_with(task.recipe, space.recipe).epochs
    address = address or os.environ.get("RAY_ADDRESS")
    with ExitStack() as stack:
        # Joined once, for the measurement and the search: what was sent stays where it is.
        cluster = stack.enter_context(running_ray(space, address)) if address else None
        training, choice = planned(
            training_of(space, task),
            space.batching,
            folder / CHOICE,
            room_of(space, address),
            partial(on_a_worker, space, cluster, measured) if cluster else measured,
        )
        training = replace(training, checkpoints=keeping(space, folder, study.name))
        line = f"{space.name}: batching: {choice.words}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        # Together: 25 ms a formula, where a worker alone takes 150.
        if training.device == "cpu" and training.kernel in ("auto", "c"):
            compile_batch(baseline_formulas(space, training.at_once))
        torch.set_num_threads(training.threads)  # gates run beside the workers: 49 ms, not 175
        stack.enter_context(driver_recorded(folder, space, task, study.name))
        show = partial(display, console)
        return run_search(study, training, epochs, goal, show, gate_before_training, cluster)


def keeping(space: Space, folder: Path, study: str) -> Keeping | None:
    """Where the checkpoints of the study in `folder` lie, and how often they are written."""
    wanted = space.checkpoints
    if wanted is None:
        return None
    path = Path(wanted.folder).expanduser()
    own = path / study if path.is_absolute() else folder / path
    return Keeping(own.resolve(), wanted.steps, wanted.seconds)


def baseline_formulas(space: Space, at_once: int) -> list[Expression]:
    """What the workers will ask kernels for: the baselines, and their forms for a batch of runs."""
    own = [space.baseline(name) for name in space.baselines]
    forms = [form for formula in own for form in forms_abreast(formula)] if at_once > 1 else []
    return list(dict.fromkeys([*own, *forms]))


def print_plan(space: Space, results: Path, console: Console, address: str | None = None) -> None:
    """What `drive` would do, and for how long."""
    training = training_of(space, task_of(space))
    if address or os.environ.get("RAY_ADDRESS"):
        from search.tuner import plan_on_a_cluster

        plan = plan_on_a_cluster(space, address, training)
    else:
        plan = make_plan(space, training)
    for line in plan.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    folder = results / space.name
    if has_study(folder):
        ended = [trial for trial in read_trials(folder) if trial.state in TOLD]
        told = f"so far       {len(ended)} trials have ended in {folder}; the plan counts them"
        console.print(told, markup=False, highlight=False, soft_wrap=True)
