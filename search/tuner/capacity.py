"""How many trials may be under way: what the nodes that are there now have room for."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from search.errors import StudyError
from search.plan import slots
from search.space.settings import Resources

EVERY = 5.0
"""Seconds between two looks at the nodes: 2 ms a look."""
SOON = 10.0
"""Seconds in which the driver's processor must be free to be kept."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster that is alive."""

    name: str
    cpus: float
    gpus: float


def nodes() -> list[Node]:
    """The nodes that are alive."""
    return [
        Node(
            each["NodeID"],
            each["Resources"].get("CPU", 0.0),
            each["Resources"].get("GPU", 0.0),
        )
        for each in ray.nodes()
        if each["Alive"]
    ]


def autoscales() -> bool:
    """Whether the cluster can start nodes for trials that wait.

    A cluster of fixed size calls the type of a node `node_` and its id; an autoscaler has types
    with names. The cluster configuration is there on some platforms only.
    """
    try:
        from ray._private.state import state
        from ray.experimental.internal_kv import _internal_kv_get

        report = json.loads(_internal_kv_get(b"__autoscaling_status") or b"{}")
        types = (report.get("autoscaler_report") or {}).get("node_type_mapping") or {}
        if any(not name.startswith("node_") for name in types.values()):
            return True
        return state.get_max_resources_from_cluster_config() is not None
    except (ImportError, AttributeError, ValueError):  # not public: without it, a fixed size
        return False


def keep_a_processor() -> tuple[str, Callable[[], None]]:
    """Reserve a processor for the driver on its own node, where other nodes train; the node's name,
    empty where nothing is kept, and what gives it back.

    Without it trials take every processor of the head node, and proposals wait for them.
    """
    here = ray.get_runtime_context().get_node_id()
    alive = nodes()
    own = [node for node in alive if node.name == here and node.cpus >= 1]
    if not own or not any(node.cpus for node in alive if node.name != here):
        return "", lambda: None
    kept = placement_group([{"CPU": 1}], bundle_label_selector=[{"ray.io/node-id": here}])
    if not kept.wait(SOON):
        remove_placement_group(kept)
        return "", lambda: None
    return here, lambda: remove_placement_group(kept)


def part_of(resources: Resources) -> Resources:
    """What one process of a trial takes; the processes of a trial may be on several nodes."""
    many = resources.workers
    return replace(resources, cpu=resources.cpu / many, gpu=resources.gpu / many)


def most_at_once(
    resources: Resources, alive: Sequence[Node], driver: str = "", grows: bool = False
) -> int:
    """How many trials to have under way; 0 where not one has room.

    driver: the node with a processor that is not to be given away. grows: whether the cluster
    starts nodes for what waits: as many again as there is room for are then asked for, at least
    one, so that it doubles until all of `max_concurrent` run.

    >>> most_at_once(Resources(gpu=0.5), [Node("a", 8, 0), Node("b", 8, 2)])
    4
    >>> most_at_once(Resources(), [Node("a", 4, 0), Node("b", 4, 0)], driver="a")
    7
    >>> most_at_once(Resources(max_concurrent=6), [Node("a", 4, 0)], grows=True)
    6
    """
    share = part_of(resources)
    parts = sum(
        slots(share, node.cpus - (1 if node.name == driver else 0), node.gpus) for node in alive
    )
    room = parts // resources.workers
    asked = room + max(1, room) if grows else room
    return int(min(asked, resources.max_concurrent or math.inf))


class Capacity:
    """How many trials to have under way, by the nodes that are there when it is asked."""

    def __init__(self, resources: Resources, driver: str):
        self.resources = resources
        self.driver = driver
        self.until = 0.0
        self.found = self._look()
        if not self.found:
            raise StudyError(_too_small(resources, nodes()))

    def __call__(self) -> int:
        if time.monotonic() >= self.until:
            # When every node has left, one trial waits for the next to come.
            self.found = max(1, self._look())
        return self.found

    def _look(self) -> int:
        self.until = time.monotonic() + EVERY
        return most_at_once(self.resources, nodes(), self.driver, autoscales())


def _too_small(resources: Resources, alive: Sequence[Node]) -> str:
    """Why no trial has room on any node."""
    asked = f"{resources.cpu:g} CPU" + (f" and {resources.gpu:g} GPU" if resources.gpu else "")
    there = sorted({f"{node.cpus:g} CPU and {node.gpus:g} GPU" for node in alive})
    return (
        f"resources: a trial asks for {asked}, and no node has that; there are {len(alive)}"
        f" node(s) with {', '.join(there)}"
    )
