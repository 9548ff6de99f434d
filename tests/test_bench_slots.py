"""`bench slots`: shares of a log whose answer is known, and a search that waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from search.benchmarks.slots import line, measure, occupancy
from search.errors import SearchError, StudyError

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def logged(after: float, what: str, **fields: Any) -> dict[str, Any]:
    """A line of a log, so many seconds after its begin."""
    return {"time": (BEGAN + timedelta(seconds=after)).isoformat(), "what": what, **fields}


def test_the_share_of_busy_slots_is_that_of_the_trials_times():
    # Two slots from 10 s on: 0–4, 5–9 and 10–14 in one, 1–5 and 6–10 in the other.
    spans = [(10, 14), (11, 15), (15, 19), (16, 20), (20, 24)]
    log = [logged(0, "opened")]
    log += [logged(end, "ended", trial=k, seconds=end - b) for k, (b, end) in enumerate(spans)]
    found = occupancy(log, 2)
    assert (found.trials, found.first, found.seconds, found.longest) == (5, 10, 24, 4)
    assert found.busy == pytest.approx(20 / (2 * 14))
    # From 11, when both had one, to 20, when the last began: 3 + 4 + 4 + 4 of 2 x 9 seconds.
    assert found.steady == pytest.approx(15 / 18)
    assert "busy 71.4 % from then on, 83.3 % after the warm-up" in line(found)


def test_a_study_gone_on_with_tells_of_its_last_driver_and_rejected_ones_take_no_slot():
    log = [
        logged(0, "opened"),
        logged(9, "ended", trial=0, seconds=8.0),
        logged(100, "resumed"),
        logged(101, "ended", trial=1, state="duplicate", seconds=0.0),
        logged(106, "ended", trial=2, seconds=4.0),
        logged(200, "resumed"),
    ]
    found = occupancy(log, 1)
    assert (found.trials, found.first, found.busy, found.steady) == (1, 2, 1, None)
    with pytest.raises(StudyError, match="no trial has ended"):
        occupancy(log[:1], 1)


def test_a_search_that_waits_is_measured():
    found = measure(2, 0.5, 6, lambda line: None)
    assert found.trials == 7, "one of them is the baseline"
    assert found.steady is not None and 0.1 < found.steady <= 1
    assert found.longest >= 0.5 and found.first > 0.5


def test_numbers_that_make_no_sense_are_refused(tmp_path: Path):
    with pytest.raises(SearchError, match=r"--slots 0.*expected numbers above 0"):
        measure(0, 1.0, 1, lambda line: None)
