"""Workers that die before they begin, as on a machine without the packages, on real Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.errors import StudyError
from search.study import read_trials
from search.tuner.deaths import death
from search.tuner.driver import STILLBORN
from tests.tuner_cases import Lines, search, space

WITHOUT_TORCH = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'")

if any("default_worker" in word for word in sys.orig_argv):
    sys.meta_path.insert(0, Missing())
"""


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder; workers that start now have no torch."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_TORCH, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_a_machine_without_the_packages_ends_the_search_in_one_line(nowhere: Path):
    with pytest.raises(StudyError) as caught:
        search(space(nowhere, "search.trials=2", "baselines=[relu]"), Lines())
    told = str(caught.value)
    assert "\n" not in told
    assert f"workers die before they begin, {STILLBORN} in a row" in told
    assert "No module named 'torch'" in told
    states = {trial.state for trial in read_trials(nowhere / "results")}
    assert states <= {"running"}, "no candidate is to blame"


def test_rays_words_for_it_are_cut_to_the_cause():
    told = """The actor died unexpectedly: The actor with name ImplicitFunc failed to import on the
    worker.  failed to import on the worker. This may be because needed libraries are missing:

  File "x.py", line 3, in <module>
ModuleNotFoundError: No module named 'torch'

An unexpected internal error occurred while the worker was executing a task."""
    found = death(told)
    assert found.cause == "worker"
    assert found.reason == (
        "it cannot load what it is sent: ModuleNotFoundError: No module named 'torch'"
    )
