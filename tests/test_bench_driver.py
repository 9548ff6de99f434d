"""`bench driver`: the search's own study and proposals, with made-up runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.benchmarks.driver import WINDOW, as_json, conclusion, measure
from search.errors import SearchError
from tests.rings import write


def test_a_study_grows_and_is_gone_on_with(tmp_path: Path):
    lines: list[str] = []
    growth = measure(write(tmp_path), ["baselines=[silu]"], [WINDOW, 2 * WINDOW], lines.append)
    assert [stage.trials for stage in growth.stages] == [WINDOW, 2 * WINDOW]
    assert len(lines) == 3 and growth.sampler == "random" and growth.runs == 6
    for stage in growth.stages:
        assert 0 < stage.proposal <= stage.longest and stage.told > 0 and stage.memory > 50
        assert stage.resume > 0 and stage.known >= 0
    assert growth.report > 0 and growth.database > 0
    assert json.loads(as_json(growth))["trials_per_second"] == pytest.approx(growth.rate)
    assert "sustains" in conclusion(growth)[-1]


@pytest.mark.parametrize(
    ("overrides", "stages", "told"),
    [
        ([], [3], "expected numbers from 20"),
        (["activation={F: [x * sigmoid(x)]}", "depth=1"], [20], "no more candidates"),
    ],
)
def test_what_cannot_grow_says_so(tmp_path: Path, overrides: list[str], stages: list[int], told):
    with pytest.raises(SearchError, match=told):
        measure(write(tmp_path), overrides, stages, lambda line: None)
