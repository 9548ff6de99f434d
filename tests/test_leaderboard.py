"""The leaderboard and its verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from search.figures.leaderboard import LeaderboardInfo, leaderboard_info
from search.figures.verdict import luck_info, verdict
from search.records import Trial
from tests.figure_cases import LOSS, SETTINGS, STUDY, baseline, trial
from tests.records_cases import settings, study_trials

# --- leaderboard ----------------------------------------------------------------------------------


def labels(board: LeaderboardInfo) -> list[str]:
    return [row.label for row in board.ranked]


def test_the_better_score_ranks_first_in_either_direction():
    trials = [trial(0, {0.1: [0.5]}), trial(1, {0.1: [0.9]}), baseline(2, {0.1: [0.7]})]
    assert labels(leaderboard_info(trials, SETTINGS)) == ["#1", "GELU", "#0"]
    assert labels(leaderboard_info(trials, LOSS)) == ["#0", "GELU", "#1"]


def test_equal_scores_rank_by_number():
    trials = [trial(n, {0.1: [0.5]}) for n in (2, 0, 1)]
    assert labels(leaderboard_info(trials, SETTINGS)) == ["#0", "#1", "#2"]


def test_a_row_knows_its_error_its_edge_its_default_and_its_difference():
    trials = [
        baseline(0, {0.01: [0.70, 0.74], 0.1: [0.6, 0.6]}),
        trial(1, {0.001: [0.5, 0.5], 0.01: [0.6, 0.7], 0.1: [0.8, 0.9], 1.0: [None, 0.95]}),
        trial(2, {0.01: [0.5, 0.5], 0.1: [0.69, 0.72]}),
    ]
    board = leaderboard_info(trials, SETTINGS)
    first, second, third = board.ranked
    assert (first.label, first.n, first.edge, first.diverged, first.runs) == ("#1", 2, "", 1, 8)
    assert first.standard_error == pytest.approx(0.05)
    assert first.at_default is not None and first.at_default.mean == pytest.approx(0.65)
    assert first.difference is not None
    assert first.difference.mean == pytest.approx(0.13)
    assert first.difference.standard_error == pytest.approx(0.03)
    assert (second.label, second.edge, second.difference) == ("GELU", "lowest", None)
    assert (third.edge, third.tolerant) == ("highest", (0.1, 0.1))
    assert board.best_baseline == second
    assert board.best_at_default == second


def test_without_shared_seeds_the_difference_is_plain_and_has_no_error():
    other = trial(1, {0.1: [0.9]})
    other = replace(other, runs=tuple(replace(r, seed=7) for r in other.runs))
    row = leaderboard_info([baseline(0, {0.1: [0.7]}), other], SETTINGS).ranked[0]
    assert row.difference is not None
    assert (row.difference.n, row.difference.standard_error) == (0, None)
    assert row.difference.mean == pytest.approx(0.2)


def test_everything_is_on_the_leaderboard_once():
    board = leaderboard_info(STUDY, SETTINGS)
    listed = [row.trial.number for row in (*board.ranked, *board.unranked)]
    listed += [t.number for t in board.untrained]
    assert sorted(listed) == sorted(t.number for t in STUDY)
    assert {row.trial.state for row in board.ranked} == {"complete"}
    assert {row.trial.state for row in board.unranked} == {"diverged", "pruned", "failed"}
    assert {t.state for t in board.untrained} == {"rejected", "duplicate"}
    scores = [row.score for row in board.ranked if row.score is not None]
    assert len(scores) == len(board.ranked)
    assert scores == sorted(scores, reverse=True)


def test_a_score_that_is_not_finite_is_never_ranked():
    odd = replace(trial(0, {0.1: [0.5]}), score=math.nan)
    assert leaderboard_info([odd], SETTINGS).ranked == ()


# --- verdict --------------------------------------------------------------------------------------


def said(trials: Sequence[Trial], **changes) -> str:
    found = verdict(leaderboard_info(trials, settings(**changes)), settings(**changes))
    return " ".join((found.headline, found.detail, *found.notes))


def test_the_verdict_claims_no_more_than_a_search_can_show():
    base = baseline(0, {0.01: [0.70, 0.72]})
    worse, better = trial(1, {0.01: [0.6, 0.6]}), trial(2, {0.01: [0.75, 0.77]})
    assert "No candidate scored above" in said([base, worse])
    text = said([base, worse, better])
    assert "by more than luck" in text and "Fresh seeds must confirm" in text
    assert "not re-tested on fresh seeds" in text and "winner's curse" in text
    crowd = [trial(n, {0.01: [0.70 + 0.001 * n, 0.71]}) for n in range(1, 20)]
    assert "no more than luck" in said([base, *crowd])


def test_a_single_seed_shows_nothing():
    text = said([baseline(0, {0.01: [0.7]}), trial(1, {0.01: [0.9]})])
    assert "single seed" in text and "no standard error" in text


def test_the_verdict_without_candidates_or_without_anything():
    trials = [baseline(0, {0.01: [0.7, 0.8]}), baseline(1, {0.01: [0.71, 0.73]}, "silu")]
    assert "GELU scored best of 2 published activations" in said(trials)
    assert "not clearly ahead of SiLU" in said(trials)
    assert "No trial has a score yet" in said([])
    assert "No trial has a score yet" in said([trial(0, {0.1: [None]})])
    assert "no baseline to compare" in said([trial(0, {0.1: [0.5]})])


def test_the_verdict_names_defaults_edges_and_open_trials():
    trials = [
        baseline(0, {0.01: [0.8, 0.8], 0.1: [0.7, 0.7]}),
        trial(1, {0.01: [0.7, 0.7], 0.1: [0.9, 0.9]}),
        trial(2, {0.01: [0.1]}, state="running"),
    ]
    text = said(trials)
    assert "At the default rate 0.01 the best is GELU" in text and "changes the winner" in text
    assert "2 of 2 have their best rate at the edge" in text
    assert "1 trial is running" in text and "1 of the 40 trials asked for" in text


def test_a_candidate_that_is_published_is_named():
    assert "#0 equals a published activation: SiLU" in said([trial(0, {0.01: [0.5]})])


def test_luck_grows_with_the_number_of_candidates():
    few, many = (leaderboard_info(study_trials(n), SETTINGS) for n in (10, 60))
    assert luck_info(many).errors > luck_info(few).errors > 0
    score = luck_info(many).score
    assert score is not None and 0 < score < 0.05
