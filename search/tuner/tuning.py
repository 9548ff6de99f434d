"""A search on Ray Tune, from the first question to its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from ray import tune

from search.errors import SearchError, StudyError
from search.plan import concurrency
from search.progress import Display, Goal
from search.proposals import Gate, Proposals
from search.stopping import Stopped, stop_signals
from search.study import Study
from search.training.candidate import Training
from search.tuner.cluster import running_ray
from search.tuner.driver import Check, Driver, Errors
from search.tuner.early_stopping import early_stopping
from search.tuner.worker import train_trial


def run_search(
    study: Study,
    training: Training,
    epochs: int,
    goal: Goal,
    show: Callable[[Goal], Display],
    gate: Gate | None = None,
) -> str:
    """Train what the study still wants; returns why nothing more is to be done.

    Args:
        training: what its candidates share.
        epochs: of one run, for early stopping.
        show: makes the display.
        gate: tells what is not worth training.

    Raises:
        StudyError: the machine lacks the resources, the study cannot be written, or all fails.
        TaskError: the task or its data cannot be used.
        Stopped: somebody asked for the end.
    """
    with ExitStack() as stack:
        display = stack.enter_context(show(goal))
        folder, cpus, gpus = stack.enter_context(running_ray())
        concurrent = concurrency(study.space.resources, cpus, gpus)
        goal = replace(goal, concurrent=concurrent)
        asked = stack.enter_context(stop_signals())
        driver = Driver(study, Proposals(study, gate), goal, display, asked)
        try:
            _tuner(driver, training, epochs, concurrent, folder).fit()
            study.accept_failures()
        except (Stopped, SearchError):
            with suppress(StudyError):  # what cannot be written now is released when it goes on
                study.release()
            raise
        return driver.proposals.ended


def _tuner(
    driver: Driver, training: Training, epochs: int, concurrent: int, folder: Path
) -> tune.Tuner:
    resources = driver.study.space.resources
    wanted = {"cpu": resources.cpu} | ({"gpu": resources.gpu} if resources.gpu else {})
    return tune.Tuner(
        tune.with_resources(partial(train_trial, training=training), wanted),
        tune_config=tune.TuneConfig(
            search_alg=driver,
            scheduler=early_stopping(driver.study.space.search.stopping, training, epochs),
            num_samples=-1,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(folder),
            stop=Check(driver),
            callbacks=[Errors(driver)],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
