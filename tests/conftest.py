"""What several files of tests share."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray

from search.environment import environment_variables
from tests.study_cases import MakeSpace, space_in

PATIENCE = 10  # seconds; each test takes milliseconds, a formula that hangs would take for ever


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


@pytest.fixture
def make_space(tmp_path: Path) -> MakeSpace:
    """Writes the space of a small study on the toy task; see `space_in`."""
    return partial(space_in, tmp_path)


@pytest.fixture
def no_hang() -> Iterator[None]:
    """A hang becomes a failure of the test that hangs."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
