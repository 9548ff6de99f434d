"""Promotion replayed on curves that are known, against what can be reckoned by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from search.benchmarks.promotion_replay import Replayed, quality_lost, replay_promotion
from search.benchmarks.promotion_table import described, spared
from search.benchmarks.replay import Conditions, Ground
from search.benchmarks.table import Table
from search.promotion import rung_epochs
from search.space.settings import Promotion
from tests.table_cases import known_table

HALVES = Promotion(first=0.25, eta=2)  # of 8 epochs: rungs at 2 and 4


def constant(*finals: float) -> np.ndarray:
    return np.repeat(np.array(finals)[:, None], 8, axis=1)


def test_one_worker_by_hand():
    """0 waits (one of one); 1 is worse: 0 of two goes on, waits at 4; 2 is the best of three, but
    one place is taken; 3 makes two places of four: 2 goes on, is the better of two at 4."""
    found = replay_promotion(constant(0.5, 0.4, 0.9, 0.1), HALVES, [0, 1, 2, 3])
    assert found.complete == (2,)
    assert found.epochs == 4 * 2 + 2 * 2 + 4 and found.whole == 32
    assert found.spared == 1 - 16 / 32


def test_the_best_is_found_wherever_rungs_rank_as_ends_do():
    random = np.random.default_rng(0)
    values = constant(*random.random(64))
    for workers in (1, 4, 16):
        found = replay_promotion(values, HALVES, random.permutation(64).tolist(), workers)
        assert quality_lost(values, found, range(64)) == 0
        assert 0.35 < found.spared < 0.65


def test_a_late_bloomer_is_missed_and_what_that_costs_is_told():
    values = constant(*np.linspace(0.1, 0.8, 8))
    values[0, 4:] = 0.95
    found = replay_promotion(values, HALVES, list(range(7, -1, -1)))
    assert 0 not in found.complete
    assert quality_lost(values, found, range(8)) == pytest.approx(0.15)


@pytest.mark.parametrize("maximize", [True, False])
def test_one_that_diverges_ends_there_and_is_promoted_nowhere(maximize: bool):
    sign = 1 if maximize else -1
    values = sign * constant(0.1, 0.2, 0.3, 0.4)
    values[3, 1:] = math.nan
    found = replay_promotion(values, HALVES, [0, 1, 2, 3], maximize=maximize)
    assert 3 not in found.complete
    assert found.epochs <= 2 + 3 * 8
    assert quality_lost(values, found, range(4), maximize) >= 0


def test_a_run_too_short_for_rungs_is_trained_whole():
    assert rung_epochs(HALVES, 1) == ()
    values = np.array([[0.1], [0.2]])
    found = replay_promotion(values, HALVES, [0, 1])
    assert found == Replayed(2, 2, (0, 1)) and found.spared == 0
    assert quality_lost(values, Replayed(0, 2, ()), [0, 1]) == math.inf


def test_on_a_table_whose_rungs_rank_as_its_ends_do_half_is_spared_and_nothing_lost():
    made = known_table(np.random.default_rng(5).permutation(60) / 60.0)
    rows = [
        replace(r, scores=r.scores.repeat(8, -1), losses=r.losses.repeat(8, -1)) for r in made.rows
    ]
    ground = Ground(Table(replace(made.header, checkpoints=tuple(range(1, 9))), tuple(rows)))
    found = spared(ground, Conditions(40), 5, Promotion())
    assert found.rungs == (2, 4)
    assert found.lost.value == 0.0 and found.same == 1.0
    assert 0.3 < found.share.low <= found.share.value <= found.share.high < 0.65


def test_a_table_of_single_checkpoints_spares_nothing_and_says_why():
    ground = Ground(known_table(np.arange(60) / 60.0))
    found = spared(ground, Conditions(40), 3, Promotion())
    assert found.rungs == () and found.share.value == found.lost.value == 0.0
    assert "too few checkpoints" in described(found, "loss")
