"""Who is promoted, by hand, and how a candidate climbs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.errors import SpaceError
from search.promotion import promotable, rung_epochs, spared_by_promotion
from search.records import Run, Trial
from search.space.settings import Promotion
from search.training.candidate import train_candidate
from search.training.checkpoints import Paused
from search.training.job import Job
from tests.promotion_cases import bare, make_space, training

# --- by hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "eta", "epochs", "expected"),
    [
        (0.25, 2, 20, (5, 10)),
        (0.25, 2, 3, (1, 2)),
        (0.25, 2, 1, ()),
        (0.1, 3, 30, (3, 9, 27)),
        (0.01, 2, 4, (1, 2, 3)),  # rungs that fall together count once
        (0.9, 2, 100, (90,)),
        (0.9, 2, 5, ()),  # it falls on the end
    ],
)
def test_rungs_are_epochs_of_the_whole_run(
    first: float, eta: float, epochs: int, expected: tuple[int, ...]
):
    assert rung_epochs(Promotion(first, eta), epochs) == expected


def numbers(*args: Any, **more: Any) -> list[int]:
    return [place.number for place in promotable(*args, **more)]


def test_the_best_of_those_that_reached_a_rung_go_on():
    values = {1: 0.5, 2: 0.9, 3: 0.7}
    assert numbers([values], [[]], 2, True) == [2]  # one of three
    assert numbers([values], [[]], 2, False) == [1]
    assert numbers([values | {4: 0.8}], [[]], 2, True) == [2, 4]
    assert numbers([values | {4: 0.8}], [[2]], 2, True) == [4]
    assert numbers([values | {4: 0.8}], [[2]], 3, True) == []
    assert numbers([{1: 0.5}], [[]], 2, True) == []  # nobody is half of one
    assert numbers([{}], [[]], 2, True) == []
    assert numbers([], [], 2, True) == []


def test_one_that_was_promoted_stays_promoted_and_takes_no_other_place():
    """Asynchronous: 1 was the best of two when it went on, and is the worst of four now."""
    values = {1: 0.1, 5: 0.05, 2: 0.9, 3: 0.8}
    assert numbers([values], [[1]], 2, True) == [2, 3]


def test_the_highest_rung_comes_first():
    low, high = {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.6}, {1: 0.91, 2: 0.95}
    assert numbers([low, high], [[1, 2], []], 2, True) == [2]
    assert numbers([{**low, 5: 0.99, 6: 0.1}, high], [[1, 2], []], 2, True) == [2, 5]


def test_equals_go_in_the_order_of_their_numbers():
    assert numbers([dict.fromkeys((4, 3, 9, 7), 0.5)], [[]], 2, True) == [3, 4]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("maximize", [True, False])
def test_a_value_that_is_not_finite_is_the_worst_and_goes_nowhere(bad: float, maximize: bool):
    assert numbers([{1: bad, 2: 0.3}], [[]], 2, maximize) == [2]
    assert numbers([{1: bad, 2: bad}], [[]], 2, maximize) == []


def test_baselines_count_among_those_who_reached_it():
    values = {-1: 0.9, -2: 0.8, 1: 0.85, 2: 0.7}
    assert numbers([values], [[-1, -2]], 2, True) == [1]
    assert numbers([values | {1: 0.75}], [[-1, -2]], 2, True) == []


def test_the_share_of_steps_that_is_spared():
    def trial(state: str, reason: str, *runs: Run) -> Trial:
        return Trial(1, "search", "", "x", "", state, reason, runs=runs)  # pyright: ignore

    whole = trial(
        "complete", "", Run(0.1, 0, "complete", steps=8), Run(0.3, 0, "complete", steps=8)
    )
    left = Run(0.1, 0, "pruned", steps=2), Run(0.3, 0, "diverged", steps=1)
    unpromoted = trial("pruned", "not promoted at epoch 1: rank 2 of 2", *left)
    assert spared_by_promotion([whole, unpromoted]) == 6 / (6 + 16 + 3)
    assert spared_by_promotion([whole]) is None
    assert spared_by_promotion([whole, trial("failed", "it broke")]) is None


# --- a candidate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 3, 4])
def test_a_candidate_waits_at_every_rung_and_goes_on_with_the_same_numbers(
    tmp_path: Path, at_once: int
):
    how = training(tmp_path, at_once=at_once)
    whole: list[Run] = []
    train_candidate(
        replace(how, promotion=None, checkpoints=None), Job("silu(x)", True), whole.append
    )
    runs: list[Run] = []
    rungs: list[tuple[int, float]] = []
    heard: list[int] = []
    job = Job("silu(x)", True, checkpoints="trial_0")

    def leg(job: Job) -> str:
        outcome = train_candidate(
            how,
            job,
            runs.append,
            lambda epoch, *_: heard.append(epoch),
            on_rung=lambda epoch, value: rungs.append((epoch, value)),
        )
        return outcome.state

    for promoted in (0, 1):
        with pytest.raises(Paused):
            leg(replace(job, promoted=promoted))
        assert not runs
    assert leg(replace(job, promoted=2)) == "complete"
    assert bare(runs) == bare(whole)
    assert [epoch for epoch, _ in rungs] == [1, 1, 2, 1, 2]
    assert len(set(rungs)) == 2  # every leg had the same values
    assert heard == [1, 1, 2, 1, 2, 3]


def test_a_baseline_waits_nowhere(tmp_path: Path):
    rungs: list[int] = []
    outcome = train_candidate(
        training(tmp_path),
        Job("relu(x)", False, checkpoints="trial_0"),
        on_rung=lambda epoch, value: rungs.append(epoch),
    )
    assert outcome.state == "complete" and rungs == [1, 2]


def test_without_its_checkpoints_it_is_trained_from_the_start_and_says_so(tmp_path: Path):
    how, lines = training(tmp_path), list[str]()
    runs: list[Run] = []
    job = Job("silu(x)", True, checkpoints="trial_0", promoted=2)
    assert train_candidate(how, job, runs.append, say=lines.append).state == "complete"
    assert lines == ["its checkpoints are gone; it is trained from the start again"]
    whole: list[Run] = []
    train_candidate(replace(how, promotion=None), replace(job, promoted=0), whole.append)
    assert bare(runs) == bare(whole)


# --- what cannot be had ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["search.promotion={first: 1}"], "search.promotion.first: expected a share of a run"),
        (["search.promotion={eta: 1}"], "search.promotion.eta: expected a number > 1"),
        (["search.promotion={frist: 0.5}"], "did you mean 'first'?"),
        (["search.promotion=[1]"], "search.promotion: expected a mapping"),
        (["search.stopping=asha"], "expected it or stopping: asha, not both"),
        (["search.objectives=[score, cost]"], "rungs compare one objective"),
        (["checkpoints=off"], "checkpoints: expected other than off"),
        (["checkpoints={steps: 0}"], "checkpoints.steps: expected a whole number ≥ 1"),
        (["checkpoints={seconds: null}"], "seconds or steps between two of them"),
        (["checkpoints={folder: 's3://bucket/x'}"], "a folder that all machines share"),
        (["checkpoints=sometimes"], "checkpoints: expected auto, off"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(tmp_path: Path, settings: list[str], told: str):
    with pytest.raises(SpaceError) as caught:
        make_space(tmp_path, 3, *settings)
    assert len(caught.value.problems) == 1 and told in caught.value.problems[0]


def test_neither_key_changes_an_older_studys_definition(tmp_path: Path):
    space = make_space(tmp_path, 3, "search.promotion=off", "checkpoints={steps: 5}")
    definition = space.definition()
    assert "promotion" not in definition["search"] and "checkpoints" not in definition
    assert make_space(tmp_path, 3).definition()["search"]["promotion"] == {
        "first": 0.25,
        "eta": 2.0,
    }
