"""Ray itself: found or started, and ended where it was started.

On a machine of its own (`ray start`, a cluster) set RAY_ADDRESS; otherwise Ray is started here
and ends with the search.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray

from search.environment import available_cpus, environment_variables
from search.errors import StudyError
from search.orphans import no_orphans
from search.training.candidate import error_line

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Relative paths of the space file mean the same in a worker.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000000",
}
"""Ray's own tables, logs, snapshots and signal handlers would drown or fight ours."""

OBJECT_STORE = 80 * 2**20
"""Bytes; Ray's minimum is 75 MiB. Only small messages pass through it, and a container's /dev/shm
has 64 MiB (Ray then takes the temporary folder)."""
LONGEST = 36
"""Characters of a temporary folder in which Ray's sockets fit: a path may have 107, Ray adds 70."""


@contextmanager
def running_ray() -> Iterator[tuple[Path, float, float]]:
    """Ray, running: a temporary folder, processors, GPUs. Ended here if it is started here."""
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        made = tempfile.TemporaryDirectory(prefix="activations-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(made))
        if not ray.is_initialized():
            note = stack.enter_context(no_orphans(folder))
            stack.callback(ray.shutdown)
            _start_ray(folder)
            note()
        found = ray.cluster_resources()
        yield folder, found.get("CPU", 0.0), found.get("GPU", 0.0)


def _start_ray(folder: Path) -> None:
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": address or "local"}
    if not address:
        options |= {
            "num_cpus": available_cpus(),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE,
        }
        if len(str(folder)) < LONGEST:
            options["_temp_dir"] = str(folder)
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise StudyError(f"Ray does not start: {error_line(error)}") from error


def _quiet() -> AbstractContextManager[None]:
    """Ray's environment variables, for as long as it runs."""
    wanted = dict(_ENVIRONMENT)
    root = Path(__file__).parent.parent.parent
    if "site-packages" not in root.parts:  # a checkout: workers must find it as the driver has
        wanted["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    return environment_variables(wanted)
