"""`bench trials`: the ways take turns and train the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.benchmarks import trials
from search.errors import SearchError

SPACE = f"""
name: toy
task: {Path(__file__).parent / "toy_task.py"}
recipe: {{epochs: 1}}
baselines: [relu]
learning_rate: {{grid: [0.03, 0.3], default: 0.3}}
batching: off
"""


def test_ways_take_turns_and_a_ratio_is_taken_round_by_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    space, order = tmp_path / "toy.yaml", list[str]()
    space.write_text(SPACE, encoding="utf-8")
    took = {"search": [2.0, 4.0], "plain": [8.0, 8.0], "torch": [3.0, 4.0]}

    def seconds(way: str, words: list[str]) -> float:
        order.append(way)
        assert words[1:3] == ["--set", "baselines=[relu, gelu]"] and Path(words[0]).is_file()
        return took[way][order.count(way) - 1]

    monkeypatch.setattr(trials, "_seconds", seconds)
    ways = trials.compare(space, ["relu", "gelu"], 2, ["plain", "torch"])
    assert order == ["search", "plain", "torch"] * 2
    assert [way.runs for way in ways] == [8] * 3 and ways[0].runs_per_minute == 160
    lines = trials.table(ways).splitlines()
    assert lines[-2:] == [
        "search against plain: 3.00 (2.00 to 4.00) times as fast",
        "search against torch: 1.25 (1.00 to 1.50) times as fast",
    ]
    assert [way["way"] for way in json.loads(trials.as_json(ways))["ways"]] == list(took)


@pytest.mark.slow
def test_every_way_runs(tmp_path: Path):
    space = tmp_path / "toy.yaml"
    space.write_text(SPACE, encoding="utf-8")
    ways = trials.compare(space, ["relu", "golu"], 1, trials.WAYS)
    assert [way.way for way in ways] == ["search", *trials.WAYS]
    assert all(way.runs == 8 and way.seconds[0] > 0 for way in ways)


def test_an_unknown_way_is_told_before_anything_runs(tmp_path: Path):
    space = tmp_path / "toy.yaml"
    space.write_text(SPACE, encoding="utf-8")
    with pytest.raises(SearchError, match="--against: unknown 'plane'; did you mean 'plain'"):
        trials.compare(space, ["relu"], 1, ["plane"])
