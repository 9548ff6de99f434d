"""What several files of tests share."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from search.environment import environment_variables

if TYPE_CHECKING:
    from tests.study_cases import MakeSpace

PACKAGES = ("hypothesis", "matplotlib", "mpmath", "optuna", "ray")
MISSING = [f"No module named '{name}'" for name in PACKAGES if find_spec(name) is None]
"""A GPU host may have torch and triton alone: what needs more is left out there, and said."""

PATIENCE = 10  # seconds; each test takes milliseconds, a formula that hangs would take for ever


class Module(pytest.Module):
    """A file of tests, skipped where a package that it needs is not there."""

    def _getobj(self) -> object:
        try:
            return super()._getobj()
        except self.CollectError as error:
            if reason := next((each for each in MISSING if each in str(error)), None):
                pytest.skip(reason, allow_module_level=True)
            raise


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Module:
    return Module.from_parent(parent, path=module_path)


@pytest.fixture(scope="module")
def ray_runs() -> Iterator[None]:
    """One Ray for all searches of a file; `run_search` takes one that runs."""
    import ray

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
    from tests.study_cases import space_in

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
