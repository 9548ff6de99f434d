"""A search on Ray Tune, from the first question to its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial

import ray
from ray import tune

from search.errors import SearchError, StudyError
from search.plan import side_by_side
from search.progress import Display, Goal
from search.proposals import Gate, Proposals
from search.space.settings import Resources
from search.stopping import Stopped, stop_signals
from search.study import Study
from search.training.job import Training
from search.tuner.capacity import Capacity
from search.tuner.cluster import Cluster, running_ray
from search.tuner.deaths import quiet_deaths
from search.tuner.driver import Check, Driver, Workers
from search.tuner.early_stopping import early_stopping
from search.tuner.parallel import bundles
from search.tuner.starting import starts_awaited
from search.tuner.worker import train_trial


def run_search(
    study: Study,
    training: Training,
    epochs: int,
    goal: Goal,
    show: Callable[[Goal], Display],
    gate: Gate | None = None,
    cluster: Cluster | None = None,
) -> str:
    """Train what the study still wants; returns why nothing more is to be done.

    Args:
        training: what its candidates share.
        epochs: of one run, for early stopping.
        show: makes the display.
        gate: tells what is not worth training.
        cluster: that was joined; None: RAY_ADDRESS, or a Ray of its own.

    Raises:
        StudyError: the machine lacks the resources, the study cannot be written, or all fails.
        TaskError: the task or its data cannot be used.
        Stopped: somebody asked for the end.
    """
    with ExitStack() as stack:
        display = stack.enter_context(show(goal))
        stack.enter_context(quiet_deaths())
        stack.enter_context(starts_awaited())
        cluster = cluster or stack.enter_context(running_ray(study.space))
        resources, capacity = _room(study.space.resources, training.processes, cluster)
        goal = replace(goal, concurrent=capacity())
        asked = stack.enter_context(stop_signals())
        driver = Driver(study, training, Proposals(study, gate), goal, display, asked, capacity)
        driver.pausing.tidy()
        try:
            _tuner(driver, resources, epochs, cluster).fit()
            study.accept_failures()
            driver.pausing.tidy()
        except (Stopped, SearchError) as error:
            study.log("stopped", why=_why(error))
            with suppress(StudyError):  # what cannot be written now is released when it goes on
                study.release()
            raise
        study.log("done", why=driver.proposals.ended)
        return driver.proposals.ended


def _why(error: BaseException) -> str:
    return f"signal {error.code - 128}" if isinstance(error, Stopped) else str(error)


def _room(
    resources: Resources, processes: int | None, cluster: Cluster
) -> tuple[Resources, Callable[[], int]]:
    """What a trial takes, and how many may be under way: a number on one machine, by its nodes on a
    cluster.

    processes: the planner's choice for one machine.
    """
    if not cluster.own:
        return resources, Capacity(resources, cluster.driver)
    found = ray.cluster_resources()
    there = found.get("CPU", 0.0), found.get("GPU", 0.0)
    most, gpu = side_by_side(resources, processes, *there)
    return replace(resources, gpu=gpu), lambda: most


def _tuner(driver: Driver, resources: Resources, epochs: int, cluster: Cluster) -> tune.Tuner:
    training, wanted = driver.training, bundles(resources)
    trainable = partial(train_trial, training=training, origin=cluster.origin)
    return tune.Tuner(
        tune.with_resources(trainable, wanted),
        tune_config=tune.TuneConfig(
            search_alg=driver,
            scheduler=early_stopping(driver.study.space.search.stopping, training, epochs),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(cluster.folder),
            stop=Check(driver, cluster.origin.settle),
            callbacks=[Workers(driver)],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
