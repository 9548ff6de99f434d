"""Ray itself: found or started, and ended where it was started.

With an address (`--address`, RAY_ADDRESS) the search joins a cluster that runs; otherwise Ray is
started here and ends with the search. Ray's token authentication stays as it is set: on by default
for what is started here, and a cluster's own token is read from where Ray looks for it.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray._private import utils as ray_utils
from ray.exceptions import RayError

from search.environment import available_cpus, environment_variables
from search.errors import StudyError
from search.orphans import no_orphans
from search.space.settings import Space
from search.training.prepared import error_line
from search.tuner.capacity import keep_a_processor
from search.tuner.head import head_watched
from search.tuner.shipping import Origin, runtime_env

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Tune would go on by itself with a trial whose machine is taken away, and repeat its runs.
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",
    # Milliseconds until Ray takes a worker that is silent for unreachable, without knowing why: 1 s
    # is less than it takes to see that a node has died.
    "RAY_timeout_ms_task_wait_for_death_info": "30000",
    # Relative paths of the space file mean the same in a worker.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    # How many trials wait is ours to say (search/tuner/capacity.py), and may grow.
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000000",
}
"""Ray's own tables, logs, snapshots and signal handlers would drown or fight ours."""

OBJECT_STORE = 80 * 2**20
"""Bytes; Ray's minimum is 75 MiB. Only small messages pass through it, and a container's /dev/shm
has 64 MiB (Ray then takes the temporary folder)."""
LONGEST = 36
"""Characters of a temporary folder in which Ray's sockets fit: a path may have 107, Ray adds 70."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Ray, running."""

    folder: Path
    """A temporary folder of the driver's."""
    own: bool
    """Whether it was started here: one machine, which neither grows nor shrinks."""
    driver: str = ""
    """The node with a processor that is kept for the driver; see `keep_a_processor`."""
    origin: Origin = field(default_factory=Origin)


@contextmanager
def running_ray(space: Space, address: str | None = None) -> Iterator[Cluster]:
    """Ray, running. Ended here if it is started here, left alone if it is joined.

    Raises:
        StudyError: it does not start, or cannot be reached.
    """
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        made = tempfile.TemporaryDirectory(prefix="activations-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(made))
        if ray.is_initialized():
            yield Cluster(folder, own=False)
            return
        address = address or os.environ.get("RAY_ADDRESS")
        if address is None:
            stack.enter_context(no_orphans(folder))
            stack.callback(ray.shutdown)
            _start(folder)
            stack.enter_context(_watched())
            yield Cluster(folder, own=True)
            return
        stack.callback(ray.shutdown)
        further = space.finalists.tasks if space.finalists else ()
        origin, brought = runtime_env(
            [space.task, *further], space.source.parent, folder / "sent", os.environ
        )
        _join(address, brought)
        stack.enter_context(_watched())
        driver, give_back = keep_a_processor()
        stack.callback(give_back)
        yield Cluster(folder, own=False, driver=driver, origin=origin)


def _start(folder: Path) -> None:
    options: dict[str, Any] = {
        "num_cpus": available_cpus(),
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE,
    }
    if len(str(folder)) < LONGEST:
        options["_temp_dir"] = str(folder)
    try:
        with _signals_kept():
            ray.init("local", log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise StudyError(f"Ray does not start: {error_line(error)}") from error


def _join(address: str, brought: dict[str, Any]) -> None:
    if address.startswith("ray://"):
        raise StudyError(
            f"address: {address}: the study's driver must be a part of the cluster; expected"
            " --address auto on its head node, or ray job submit (see the README)"
        )
    try:
        with _signals_kept():
            ray.init(
                address,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                runtime_env=brought,
            )
    except (OSError, RuntimeError, ValueError, RayError) as error:
        told = " ".join(str(error).split()) or error_line(error)
        raise StudyError(f"address: {address}: no cluster was joined: {told[:300]}") from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """SIGTERM stays ours: Ray's own handlers drain the node first, for over a minute, and leave
    with a code of theirs."""
    before = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda sigterm_handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = before


def _watched() -> AbstractContextManager[None]:
    return head_watched(ray.get_runtime_context().gcs_address)


def _quiet() -> AbstractContextManager[None]:
    """Ray's environment variables, for as long as it runs."""
    wanted = dict(_ENVIRONMENT)
    root = Path(__file__).parent.parent.parent
    if "site-packages" not in root.parts:  # a checkout: workers must find it as the driver has
        wanted["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    return environment_variables(wanted)
