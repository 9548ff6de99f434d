"""What is measured on a cluster before a search: on a node where trials will run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from search.errors import SearchError, StudyError
from search.plan import Plan, make_plan
from search.space.settings import Space
from search.training.job import Training
from search.training.prepared import error_line
from search.tuner.capacity import Capacity, part_of
from search.tuner.cluster import Cluster, running_ray
from search.tuner.shipping import Origin

T = TypeVar("T")


def on_a_worker(
    space: Space, cluster: Cluster, measure: Callable[..., T], training: Training, *further: Any
) -> T:
    """What `measure` says of the training on a node with room for a trial: the driver's own may
    have another processor, and no GPU."""
    return _there(cluster, space, partial(_settled, measure, training, further))


def plan_on_a_cluster(space: Space, address: str | None, training: Training) -> Plan:
    """The plan of a search on a cluster, by its room for trials now and a run timed there."""
    with running_ray(space, address) as cluster:
        room = Capacity(space.resources, cluster.driver)()
        measure = partial(make_plan, space, concurrent=room)
        return _there(cluster, space, partial(_settled, measure, training, ()))


def _there(cluster: Cluster, space: Space, act: Callable[[Origin], T]) -> T:
    """Act on a node with room for a trial; a mistake of the user's comes back as it is."""
    share = part_of(space.resources)
    remote = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu, max_retries=0)(_acted)
    try:
        return ray.get(remote.remote(act, cluster.origin))
    except RayTaskError as error:
        if isinstance(error.cause, SearchError):
            raise error.cause from None
        raise StudyError(f"{space.name}: measuring failed: {error_line(error.cause)}") from error
    except RayError as error:
        raise StudyError(f"{space.name}: measuring failed: {error_line(error)}") from error
    finally:
        cluster.origin.settle()


def _acted(act: Callable[[Origin], T], origin: Origin) -> T:
    return act(origin)


def _settled(
    measure: Callable[..., T], training: Training, further: tuple[Any, ...], origin: Origin
) -> T:
    origin.settle()
    return measure(origin.here(training), *further)
