"""A trial of several processes: the worker is the first, the others run beside it.

Ray Train would place its workers in a group of its own, outside of what Tune reserved for the
trial: trials that wait for each other's processors may then wait for ever, and a waiting trial asks
an autoscaler for too little. Here all processes of a trial are reserved together, and Tune starts
it when all are there; torch's DistributedDataParallel does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import ray
import torch.distributed as dist
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch.distributed import (
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    Store,  # pyright: ignore[reportPrivateImportUsage]
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
)

from search.errors import TaskError
from search.records import Run
from search.space.settings import Resources
from search.training.candidate import train_candidate
from search.training.course import OnEpoch
from search.training.job import Job, Outcome, Training, training_for
from search.training.prepared import error_line, prepare
from search.training.shards import Shards
from search.tuner.capacity import part_of
from search.tuner.shipping import Origin

LONGEST = timedelta(minutes=30)
"""That a process waits for the others: one may have a kernel to build."""
LOOK = 0.2
"""Seconds between two looks whether the others are there."""
LEAVE = 10.0
"""Seconds in which the others end by themselves."""


def bundles(resources: Resources) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial: a bundle for each of its processes."""
    share = part_of(resources)
    one = {"CPU": share.cpu} | ({"GPU": share.gpu} if share.gpu else {})
    return tune.PlacementGroupFactory([one] * resources.workers, strategy="PACK")


def train_across(
    training: Training,
    job: Job,
    origin: Origin,
    on_run: Callable[[Run], None],
    on_epoch: OnEpoch | None,
    on_all: Callable[[], None],
) -> Outcome:
    """`train_candidate` in all processes of the trial, this one the first, which reports.

    Raises:
        TaskError: the task or its data cannot be used, here or on another process's node.
    """
    if training.promotion is not None:  # a candidate that waits would have to wait in all of them
        training = replace(training, checkpoints=None)
    world = training.workers
    here = ray.util.get_node_ip_address()
    store = TCPStore(here, 0, world, is_master=True, timeout=LONGEST, wait_for_workers=False)
    others = _started(training, job, origin, (here, store.port), world)
    try:
        _wait_for(others, store)
        with _group(training.device, store, 0, world) as shards:
            outcome = train_candidate(training, job, on_run, on_epoch, on_all=on_all, shards=shards)
        if outcome.state != "failed":
            return outcome
        told = _ended(others)
        return replace(outcome, reason=told) if told else outcome
    finally:
        ray.wait(others, num_returns=len(others), timeout=LEAVE)
        for other in others:
            ray.cancel(other, force=True)


def _started(
    training: Training, job: Job, origin: Origin, at: tuple[str, int], world: int
) -> list[ray.ObjectRef]:
    """The other processes, each in a bundle of the trial's own group."""
    group = get_current_placement_group()
    assert group is not None, "Tune runs every trial in one"
    started = []
    for rank in range(1, world):
        bundle = group.bundle_specs[rank]
        placed = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
        remote = ray.remote(
            num_cpus=bundle.get("CPU", 0),
            num_gpus=bundle.get("GPU", 0),
            max_retries=0,
            scheduling_strategy=placed,
        )(follow)
        started.append(remote.remote(training, job, origin, at, rank, world))
    return started


def follow(
    training: Training, job: Job, origin: Origin, at: tuple[str, int], rank: int, world: int
) -> None:
    """A process that is not the first: the same work on its share, and nothing to report."""
    origin.settle()
    training = origin.here(training)
    prepare(training_for(training, job))
    store = TCPStore(*at, world, is_master=False, timeout=LONGEST)
    store.set(f"ready {rank}", "1")
    with _group(training.device, store, rank, world) as shards:
        train_candidate(training, job, shards=shards)


def _wait_for(others: Sequence[ray.ObjectRef], store: TCPStore) -> None:
    """Until all have their data; raises what ended one of them before."""
    names = [f"ready {rank}" for rank in range(1, len(others) + 1)]
    while not store.check(names):
        ended, _ = ray.wait(list(others), timeout=LOOK)
        try:
            ray.get(ended)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, TaskError) else error from None


@contextmanager
def _group(device: str, store: Store, rank: int, world: int) -> Iterator[Shards]:
    """torch's process group, for one trial."""
    backend = "nccl" if device.startswith("cuda") else "gloo"
    named = PrefixStore("trial", store)
    dist.init_process_group(backend, store=named, rank=rank, world_size=world, timeout=LONGEST)
    try:
        yield Shards(rank, world)
    finally:
        dist.destroy_process_group()


def _ended(others: Sequence[ray.ObjectRef]) -> str:
    """The error of a process that ended with one; empty where none did."""
    ended, _ = ray.wait(list(others), num_returns=len(others), timeout=LOOK)
    try:
        ray.get(ended)
    except RayTaskError as error:
        return error_line(error.cause) if isinstance(error.cause, Exception) else str(error)
    except RayError as error:
        return f"one of its processes died: {error_line(error)}"
    return ""
