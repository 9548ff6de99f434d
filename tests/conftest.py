"""What several files of tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import ray

from search.environment import environment_variables


@pytest.fixture(scope="module")
def ray_runs() -> Iterator[None]:
    """One Ray for all searches of a file; `run_search` takes one that runs."""
    with environment_variables({"RAY_CHDIR_TO_TRIAL_DIR": "0"}):
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            object_store_memory=80 * 2**20,
        )
        yield
        ray.shutdown()
