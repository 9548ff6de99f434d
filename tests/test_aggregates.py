"""Aggregates over tasks, ranks, shrinkage and placebos: published examples, other computations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from search.statistics.aggregates import interquartile_mean, probability_of_improvement
from search.statistics.calibration import placebo_share, shrinkage
from search.statistics.inference import holm
from search.statistics.ranks import PairTest, cliques, compare_ranks, friedman_test, wilcoxon_p

C45 = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        # Printed as 0.975 twice; the published average ranks are those of a third above a fourth
        # decimal, not of a tie.
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
"""AUC of C4.5, +m, +cf, +m+cf on 14 data sets (Demšar 2006, table 6)."""

scipy_wilcoxon: Any = stats.wilcoxon  # its types know neither its result nor PermutationMethod

FIRST_BASE = (
    "540 550 555 585 570 575 520 560 550 555 550 540 590 585 570 545 555 560 540 540 535 "
    "545 550 535 525 515 500 585 580 570 525 520 510 565 555 545 560 535 545 505 500 495 "
    "550 550 540 545 555 550 555 555 535 545 550 555 550 545 525 565 560 540 570 565 555 "
    "630 630 625"
)
"""Hundredths of a second of 22 runners rounding first base in three ways (Hollander and Wolfe)."""


# --- interquartile mean --------------------------------------------------------------------------


def test_the_interquartile_mean_is_that_of_the_textbook():
    values = (5, 8, 4, 38, 8, 6, 9, 7, 7, 3, 1, 6)
    found = interquartile_mean({"a": values[:4], "b": values[4:8], "c": values[8:]})
    assert found.value == 6.5
    assert (found.tasks, found.runs, found.diverged) == (3, 12, 0)
    mirrored = interquartile_mean({"a": values}, maximize=False)
    assert mirrored.value == 6.5


def test_seeds_are_resampled_within_their_task():
    levels = {f"task {k}": [0.1 * k] * 4 for k in range(6)}
    found = interquartile_mean(levels)
    assert found.value == found.interval.low == found.interval.high  # no seed changes anything


def test_the_stratified_interval_matches_a_plain_loop():
    draw = np.random.default_rng(2)
    scores = {f"t{k}": (0.1 * k + draw.normal(0, 0.02, 5)).tolist() for k in range(4)}
    found = interquartile_mean(scores).interval
    means = []
    for _ in range(4000):
        drawn = [draw.choice(row, len(row)) for row in scores.values()]
        means.append(np.sort(np.concatenate(drawn))[5:15].mean())
    assert found.low is not None and found.high is not None
    step = 0.1 * (found.high - found.low)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=step)


def test_a_loss_gives_the_mirrored_interval():
    draw = np.random.default_rng(3)
    rows = {f"t{k}": draw.normal(k, 1, 5).tolist() for k in range(3)}
    negative = {task: [-value for value in row] for task, row in rows.items()}
    gain, loss = interquartile_mean(rows), interquartile_mean(negative, maximize=False)
    assert gain.value is not None and gain.interval.low is not None
    assert loss.value == pytest.approx(-gain.value)
    assert loss.interval.high == pytest.approx(-gain.interval.low)


def test_a_diverged_run_is_the_worst_run_and_a_quarter_of_them_is_too_many():
    row = [0.1, 0.5, 0.6, 0.7]
    lost: list[float | None] = [None, 0.5, 0.6, 0.7]
    found = interquartile_mean({"a": lost, "b": row, "c": row})
    assert found.value == interquartile_mean({"a": row, "b": row, "c": row}).value
    assert found.diverged == 1
    assert interquartile_mean({"a": [None, 1.0, 2.0, 3.0]}, maximize=False).value == 2.5
    every = interquartile_mean({"a": [None] * 4, "b": row})
    assert every.value is None and "4 of 8 runs diverged" in every.reason
    many = interquartile_mean({"a": lost, "b": lost})
    assert many.value is not None
    assert many.interval.low is None and "how many runs diverge" in many.interval.reason


def test_what_cannot_be_aggregated_says_why():
    assert interquartile_mean({}).reason == "no run"
    assert "between 2 and 3 runs" in interquartile_mean({"a": [1, 2], "b": [1, 2, 3]}).reason
    few = interquartile_mean({"a": [1.0], "b": [3.0]})
    assert few.value == 2 and "a task has 1 run, 3 are needed" in few.interval.reason


# --- probability of improvement ------------------------------------------------------------------


def test_the_probability_of_improvement_is_the_mean_mann_whitney():
    draw = np.random.default_rng(4)
    a = {f"t{k}": np.round(draw.normal(0.2, 1, 6), 1).tolist() for k in range(3)}
    b = {f"t{k}": np.round(draw.normal(0.0, 1, 5), 1).tolist() for k in range(3)}
    shares = [stats.mannwhitneyu(a[task], b[task]).statistic / 30 for task in a]
    found = probability_of_improvement(a, b)
    assert found.value == pytest.approx(np.mean(shares), rel=1e-12)
    assert found.interval.low is not None and found.interval.high is not None
    assert 0 <= found.interval.low < np.mean(shares) < found.interval.high <= 1
    back = probability_of_improvement(b, a)
    assert back.value == pytest.approx(1 - np.mean(shares), rel=1e-12)
    assert probability_of_improvement(a, b, maximize=False).value == pytest.approx(back.value)


def test_diverged_runs_lose_and_tie_among_themselves():
    found = probability_of_improvement({"t": [None, 0.5, 0.5]}, {"t": [None, 0.1, 0.9]})
    # Of 9 pairs: a diverged one ties once; each 0.5 beats the diverged and the 0.1.
    assert found.value == pytest.approx((0.5 + 2 * 2) / 9)
    assert found.diverged == 2
    assert probability_of_improvement({"t": [1.0]}, {"u": [1.0]}).reason == (
        "no task was trained with both"
    )
    assert probability_of_improvement({"t": [1.0]}, {"t": []}).value is None
    assert "1 run" in probability_of_improvement({"t": [1.0]}, {"t": [0.0]}).interval.reason


# --- ranks ---------------------------------------------------------------------------------------


def named(scores: np.ndarray, names: Sequence[str] = ()) -> dict[str, dict[str, float | None]]:
    names = names or [f"m{k}" for k in range(scores.shape[1])]
    return {
        name: {f"task {row}": float(value) for row, value in enumerate(scores[:, column])}
        for column, name in enumerate(names)
    }


def test_demsars_table_gives_his_ranks_and_his_statistic():
    found = compare_ranks(named(C45, ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")))
    assert found.friedman is not None
    ranks = {name: round(rank, 3) for name, rank in found.ranks}
    assert ranks == {"C4.5": 3.143, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}
    # Demšar's 9.28 is without the correction for ties, which SciPy divides by.
    table = stats.rankdata(-C45, axis=1)
    sizes = [np.unique(row, return_counts=True)[1] for row in table]
    corrected = 1 - sum(float((t**3 - t).sum()) for t in sizes) / (14 * 4 * 15)
    assert found.friedman.statistic * corrected == pytest.approx(9.28, abs=0.01)
    assert found.friedman.p < 0.05


def test_friedman_on_the_first_base_data():
    # R's friedman.test: chi-squared = 11.143, df = 2, p-value = 0.003805.
    times = np.array(FIRST_BASE.split(), float).reshape(22, 3)
    found = friedman_test(-times)
    assert found is not None
    assert (round(found.statistic, 4), round(found.p, 6)) == (11.1429, 0.003805)


def test_wilcoxon_is_scipys_without_ties_and_its_permutation_with_them():
    draw = np.random.default_rng(6)
    for n in (5, 8, 12):
        a, b = draw.normal(size=(2, n))
        assert wilcoxon_p(a, b) == pytest.approx(scipy_wilcoxon(a, b, method="exact").pvalue)
        tied = np.round(a, 0)
        every = stats.PermutationMethod(n_resamples=2**n)
        exact = scipy_wilcoxon(tied, zero_method="pratt", method=every).pvalue
        assert wilcoxon_p(tied, np.zeros(n)) == pytest.approx(exact, abs=1e-12)


def test_wilcoxon_on_demsars_pair_rejects_as_he_does():
    # He finds T = 12, below the critical 21 of 14 data sets at 0.05; splitting zeros, SciPy's
    # normal approximation gives 0.011.
    assert scipy_wilcoxon(C45[:, 1], C45[:, 0], zero_method="zsplit").statistic == 12
    assert wilcoxon_p(C45[:, 1], C45[:, 0]) == 0.0078125


def test_differences_equal_but_for_round_off_are_ties():
    # Each 0.1 in decimals; in binary the negative one is the smallest, which would give 0.25.
    a, b = np.array([0.2, 0.2, 0.8, 1.1]), np.array([0.3, 0.1, 0.7, 1.0])
    assert wilcoxon_p(a, b) == wilcoxon_p(np.array([-1.0, 1, 1, 1]), np.zeros(4)) == 10 / 16


def test_pairs_are_adjusted_by_holm_and_cliques_follow_from_them():
    found = compare_ranks(named(C45, ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")))
    assert [pair.adjusted_p for pair in found.pairs] == list(holm([p.p for p in found.pairs]))
    differing = {(pair.first, pair.second) for pair in found.pairs if pair.differ}
    assert differing == {("C4.5+m", "C4.5")}
    assert found.cliques == (
        ("C4.5+m+cf", "C4.5+m", "C4.5+cf"),
        ("C4.5+m+cf", "C4.5+cf", "C4.5"),
    )


def test_cliques_are_the_largest_groups_without_a_differing_pair():
    def pairs(*apart: str) -> list[PairTest]:
        return [PairTest(a, b, 0.0, 0.0, True) for a, b in apart]

    assert cliques("abcd", []) == (("a", "b", "c", "d"),)
    assert cliques("abcd", pairs("ab", "ac", "ad", "bc", "bd", "cd")) == ()
    assert cliques("abcd", pairs("ad")) == (("a", "b", "c"), ("b", "c", "d"))
    assert cliques("abc", pairs("ab", "bc")) == (("a", "c"),)  # not neighbours in rank


def test_no_pair_differs_when_friedman_finds_all_alike():
    # One always a little ahead of another, among six that are alike: Wilcoxon alone would say so.
    scores = np.random.default_rng(0).normal(size=(14, 8))
    scores[:, 1] = scores[:, 0] - 1e-3
    found = compare_ranks(named(scores))
    assert found.friedman is not None and found.friedman.p > 0.05
    assert min(pair.adjusted_p for pair in found.pairs) == 28 * 2 / 2**14
    assert not any(pair.differ for pair in found.pairs)
    assert found.cliques == (tuple(name for name, _ in found.ranks),)


def test_clear_differences_are_found_from_eight_tasks_up():
    steps = np.arange(3) + np.linspace(0, 0.5, 8)[:, None]
    found = compare_ranks(named(steps, "abc"))
    assert found.ranks == (("c", 1.0), ("b", 2.0), ("a", 3.0))
    assert all(pair.differ for pair in found.pairs) and found.cliques == ()
    assert compare_ranks(named(steps, "abc"), maximize=False).ranks[0] == ("a", 1.0)
    few = compare_ranks(named(steps[:7], "abc"))
    assert few.ranks == found.ranks and few.pairs == () and few.cliques == ()
    assert few.reason == (
        "ranks over 7 tasks are shown without a test: 8 tasks are the least for 3 methods (3 pairs)"
    )


def test_many_methods_take_more_tasks():
    found = compare_ranks(named(np.random.default_rng(0).normal(size=(11, 12))))
    assert "12 tasks are the least for 12 methods (66 pairs)" in found.reason
    assert compare_ranks(named(np.random.default_rng(0).normal(size=(12, 12)))).reason == ""


def test_who_diverged_ranks_last_and_incomplete_tasks_are_left_out():
    results = {
        "a": {"t1": 0.5, "t2": None, "t3": 0.1},
        "b": {"t1": None, "t2": None, "t3": 0.2},
        "c": {"t1": math.nan, "t2": 0.1},
    }
    found = compare_ranks(results)
    assert (found.tasks, found.left_out) == (("t1", "t2"), ("t3",))
    assert dict(found.ranks) == {"a": (1 + 2.5) / 2, "b": 2.5, "c": (2.5 + 1) / 2}


def test_ranks_without_anything_to_rank():
    assert compare_ranks({}).reason == "fewer than two methods: nothing to compare"
    apart = compare_ranks({"a": {"t1": 0.1}, "b": {"t2": 0.1}})
    assert (apart.ranks, apart.reason) == ((), "no task that all methods were trained on")
    equal = compare_ranks(named(np.ones((8, 3))))
    assert equal.friedman is not None and equal.friedman.p == 1.0
    assert {rank for _, rank in equal.ranks} == {2.0}
    assert len(equal.cliques) == 1


# --- shrinkage and placebos ----------------------------------------------------------------------


def test_the_curse_is_what_candidates_lose_beyond_baselines():
    found = shrinkage(
        {"#1": (0.98, 0.95), "#2": (0.97, 0.96), "#3": (0.99, None)},
        {"GELU": (0.95, 0.94), "SiLU": (math.nan, 0.9)},
    )
    assert found.candidate_loss == pytest.approx(0.02)
    assert found.baseline_loss == pytest.approx(0.01)
    assert found.curse == pytest.approx(0.01)
    assert found.unknown == ("#3", "SiLU")
    losses = shrinkage({"#1": (0.20, 0.25)}, {}, maximize=False)
    assert losses.candidate_loss == pytest.approx(0.05)
    assert (losses.baseline_loss, losses.curse) == (None, None)


def test_selection_among_equals_shrinks_by_the_luck_of_the_best():
    draw = np.random.default_rng(8)
    search, fresh = draw.normal(size=(2, 400, 100))
    best = search.argmax(axis=1)
    rows = {str(k): (float(search[k, b]), float(fresh[k, b])) for k, b in enumerate(best)}
    found = shrinkage(rows, {})
    assert found.candidate_loss == pytest.approx(2.5, abs=4 * math.sqrt(1.2 / 400))


@pytest.mark.parametrize(
    ("declared", "placebos", "limits"),
    [(0, 20, (0.0, 0.1684)), (2, 10, (0.0252, 0.5561)), (10, 10, (0.6915, 1.0))],
)
def test_the_placebo_share_has_clopper_and_pearsons_limits(
    declared: int, placebos: int, limits: tuple[float, float]
):
    found = placebo_share([k < declared for k in range(placebos)])
    assert (found.low, found.high) == pytest.approx(limits, abs=5e-5)
    assert found.share == declared / placebos


def test_the_placebo_share_is_within_its_bound_or_not():
    found = placebo_share([True] * 3 + [False] * 17)
    assert (found.allowed, found.within) == (3, True)
    assert not placebo_share([True] * 4 + [False] * 16).within
    assert placebo_share([]).share is None
    assert stats.binom.cdf(2, 20, 0.05) < 0.95 <= stats.binom.cdf(3, 20, 0.05)
