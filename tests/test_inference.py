"""Tests and intervals against published examples, other implementations and their own promises."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from search.statistics.comparison import (
    Comparison,
    Effect,
    Outcomes,
    compare,
    outcomes_by_seed,
    pair_by_seed,
)
from search.statistics.inference import (
    bca_interval,
    fewest_seeds,
    holm,
    seeds_needed,
    sign_flip_test,
    t_test_power,
)
from tests.records_cases import run

ZEA_MAYS = (49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48)
"""Darwin's 15 pairs: crossed minus selfed height in eighths of an inch (Fisher 1935, §21)."""


# --- the sign-flip test --------------------------------------------------------------------------


def test_fishers_randomization_of_darwins_plants():
    # Fisher: 863 of the 32,768 sums reach 314, as many fall to -314.
    found = sign_flip_test(ZEA_MAYS)
    assert found.p == 2 * 863 / 2**15
    assert (found.least, found.exact) == (2 / 2**15, True)


@pytest.mark.parametrize("n", range(2, 11))
def test_sign_flips_match_scipy(n: int):
    draw = np.random.default_rng(n)
    values = np.round(draw.normal(0.3, 1, n), 1)  # rounded: ties and zeros come
    expected = stats.permutation_test(
        (values,), lambda x, axis: x.sum(axis=axis), permutation_type="samples",
        n_resamples=2**n, vectorized=True,
    ).pvalue  # fmt: skip
    assert sign_flip_test(values.tolist()).p == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("n", [5, 8])
def test_the_test_rejects_no_more_often_than_it_says(n: int):
    sizes = np.random.default_rng(n).exponential(size=n)
    flips = [sizes * signs for signs in itertools.product((-1, 1), repeat=n)]
    p_values = [sign_flip_test(flip.tolist()).p for flip in flips]
    for level in (0.01, 0.05, 0.2):
        assert np.mean([p <= level for p in p_values]) <= level
    assert min(p_values) == 2 / 2**n


def test_sums_equal_but_for_round_off_count_as_equal():
    # In thousandths +3 -1 -2 +4: 10 of the 16 sums are at least 4 from 0.
    scores = [(0.903, 0.9), (0.9, 0.901), (0.9, 0.902), (0.904, 0.9)]
    assert sign_flip_test([a - b for a, b in scores]).p == sign_flip_test([3, -1, -2, 4]).p
    assert sign_flip_test([3, -1, -2, 4]).p == 10 / 16


@pytest.mark.parametrize(
    ("values", "p", "least"),
    [([], 1, 1), ([0.2], 1, 1), ([0, 0, 0], 1, 1), ([1, 2, 3, 4], 0.125, 0.125), ([0, 1], 1, 1)],
)
def test_few_pairs_and_ties_can_show_little(values: list[float], p: float, least: float):
    found = sign_flip_test(values)
    assert (found.p, found.least) == (p, least)


def test_beyond_twenty_pairs_flips_are_drawn_and_never_give_zero():
    draw = np.random.default_rng(0)
    values = draw.normal(0.35, 1, 21)
    found = sign_flip_test(values.tolist())
    exact = np.abs(np.array([0.0]))
    for value in values:
        exact = np.concatenate([exact + value, exact - value])
    truth = float(np.mean(np.abs(exact) >= abs(values.sum()) - 1e-9))
    assert not found.exact
    assert found.p == pytest.approx(truth, abs=4 * math.sqrt(truth * (1 - truth) / 1e5))
    assert found == sign_flip_test(values.tolist())
    assert sign_flip_test([1.0] * 60).p == 1e-5


# --- Holm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "adjusted"),
    [  # statsmodels 0.14, multipletests(method="holm")
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.2, 0.2, 0.01, 0.5, 0.01], [0.6, 0.6, 0.05, 0.6, 0.05]),
        (
            [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216],
            [0.01, 0.072, 0.312, 0.312, 0.312, 0.312, 0.312, 0.615, 0.615, 0.615],
        ),
        ([], []),
    ],
)
def test_holm_matches_statsmodels(raw: list[float], adjusted: list[float]):
    assert holm(raw) == pytest.approx(adjusted, rel=1e-12)


def test_what_could_not_be_tested_stays_in_holms_family():
    assert holm([0.01, None, 0.03]) == pytest.approx((0.03, None, 0.06))


def test_a_family_of_placebos_is_claimed_in_no_more_than_the_level():
    draw = np.random.default_rng(3)
    false = 0
    for _ in range(400):
        tests = [sign_flip_test(row.tolist()).p for row in draw.normal(size=(5, 9))]
        false += any(p is not None and p <= 0.05 for p in holm(tests))
    assert false <= stats.binom.ppf(0.999, 400, 0.05)


# --- intervals -----------------------------------------------------------------------------------


def test_the_interval_is_scipys_and_is_repeatable():
    found = bca_interval(ZEA_MAYS)
    assert found == bca_interval(ZEA_MAYS)
    assert found.low is not None and found.high is not None
    spread = stats.sem(ZEA_MAYS)
    assert found.low == pytest.approx(np.mean(ZEA_MAYS) - 2 * spread, abs=0.6 * spread)
    assert found.high == pytest.approx(np.mean(ZEA_MAYS) + 2 * spread, abs=0.6 * spread)
    assert not found.excludes(0) and found.excludes(100)


@pytest.mark.parametrize("values", [[], [1.0], [0.1, 0.2, 0.3, 0.4]])
def test_too_few_seeds_have_no_interval(values: list[float]):
    found = bca_interval(values)
    assert (found.low, found.high) == (None, None)
    assert "fewer than 5 seeds" in found.reason
    assert not found.excludes(1e9)


def test_differences_without_a_spread_have_no_interval():
    values = [0.9 + k / 1000 - (0.89 + k / 1000) for k in range(6)]  # 0.01 but for round-off
    assert "all 6 differences are equal" in bca_interval(values).reason
    assert bca_interval([0, 0, 0, 0, 0, 1]).low == 0


def test_the_interval_covers_about_as_often_as_its_docstring_says():
    draw = np.random.default_rng(5)
    misses = sum(bca_interval(draw.normal(size=10).tolist()).excludes(0) for _ in range(300))
    assert 0.86 < 1 - misses / 300 < 0.96


# --- seeds that a claim takes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("effect", "comparisons", "n"),
    [(0.2, 1, 199), (0.5, 1, 34), (0.8, 1, 15), (0.5, 10, 58), (1.0, 5, 16)],
)
def test_seeds_needed_match_statsmodels(effect: float, comparisons: int, n: int):
    # TTestPower.solve_power gives 198.15, 33.37, 14.30, 57.21, 15.08; the first three are Cohen's.
    assert seeds_needed(effect, comparisons) == n
    assert seeds_needed(-effect, comparisons) == n


def test_power_matches_statsmodels():
    assert t_test_power(10, 0.5) == pytest.approx(0.2931756065140767, rel=1e-9)
    assert t_test_power(10, 1.0, 0.01) == pytest.approx(0.5041067307017365, rel=1e-9)


def test_no_effect_is_large_enough_for_fewer_seeds_than_can_be_significant():
    for comparisons in (1, 3, 10, 100):
        n = fewest_seeds(comparisons)
        assert comparisons * 2 / 2**n <= 0.05 < comparisons * 2 / 2 ** (n - 1)
        assert seeds_needed(1e3, comparisons) == n
    assert seeds_needed(0.0) is None
    assert seeds_needed(0.001) is None


# --- pairs ---------------------------------------------------------------------------------------


def test_pairs_are_seeds_that_both_completed_and_the_others_are_named():
    candidate = {0: 0.9, 1: None, 2: 0.8, 3: 0.7, 5: math.nan}
    baseline = {0: 0.8, 1: 0.8, 2: None, 3: 0.9, 4: 0.8, 5: 0.8}
    found = pair_by_seed(candidate, baseline)
    assert (found.seeds, found.unmatched) == ((0, 3), (4,))
    assert (found.diverged, found.baseline_diverged) == ((1, 5), (2,))
    assert found.gains == pytest.approx((0.1, -0.2))
    assert pair_by_seed(candidate, baseline, maximize=False).gains == pytest.approx((-0.1, 0.2))


def test_outcomes_keep_what_diverged_and_forget_what_was_pruned():
    runs = [run(0.1, 0, 0.9), run(0.1, 1, None), run(0.2, 0, 0.5)]
    runs.append(replace(run(0.1, 2, 0.4), state="pruned"))
    assert outcomes_by_seed(runs, 0.1) == {0: 0.9, 1: None}


# --- claims --------------------------------------------------------------------------------------


def by_seed(scores: Sequence[float | None], first: int = 0) -> dict[int, float | None]:
    return dict(enumerate(scores, start=first))


def noisy(n: int, gain: float, spread: float, seed: int = 0) -> list[float]:
    draw = random.Random(f"{n} {gain} {spread} {seed}")
    return [0.9 + 0.01 * math.sin(k) + gain + draw.gauss(0, spread) for k in range(n)]


def judged(candidate: Outcomes, baseline: Outcomes, others: int = 0, **options) -> Effect:
    """The candidate among `others` equal to the baseline but for noise."""
    n = len(baseline)
    family = {"new": candidate} | {
        f"other {k}": by_seed(noisy(n, 0.0, 0.001, seed=k)) for k in range(others)
    }
    return compare(family, baseline, "GELU", **options).effects[0]


BASE = by_seed(noisy(10, 0.0, 0.0))


def test_a_clear_gain_is_claimed_in_either_direction_of_the_metric():
    better = by_seed(noisy(10, 0.004, 0.001))
    assert judged(better, BASE).claim == "better"
    assert judged(better, BASE, maximize=False).claim == "worse"
    assert judged(BASE, better).claim == "worse"


def test_an_effect_has_all_its_numbers():
    found = judged(by_seed(noisy(10, 0.004, 0.001)), BASE, others=4)
    gains = np.array(found.pairs.gains)
    assert found.mean == pytest.approx(gains.mean())
    assert found.standard_error == pytest.approx(gains.std(ddof=1) / math.sqrt(10))
    assert found.size == pytest.approx(gains.mean() / gains.std(ddof=1))
    assert (found.p, found.least_p) == (2 / 2**10, 2 / 2**10)
    assert found.adjusted_p == pytest.approx(5 * 2 / 2**10)
    assert (found.wanted, found.needed) == (0.5, seeds_needed(0.5, 5))


def test_a_smallest_gain_that_matters_is_counted_in_the_deviations_seen():
    found = judged(by_seed(noisy(10, 0.0, 0.002)), BASE, smallest_gain=0.001)
    assert found.wanted == pytest.approx(0.001 / np.std(found.pairs.gains, ddof=1))
    assert found.needed == seeds_needed(found.wanted)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_fewer_than_six_seeds_never_claim_anything(n: int):
    found = judged(by_seed(noisy(n, 0.5, 0.001)), by_seed(noisy(n, 0.0, 0.0)))
    assert found.claim == "undecided"
    assert f"the least p that {n} seeds can give is {2 / 2**n:.3g}" in found.reason
    assert "6 seeds that differ" in found.reason


def test_what_holm_needs_is_said():
    found = judged(by_seed(noisy(6, 0.5, 0.001)), by_seed(noisy(6, 0.0, 0.0)), others=9)
    assert found.claim == "undecided"
    assert "0.0312, 0.312 after Holm over 10; 9 seeds that differ" in found.reason


def test_one_seed_shows_nothing():
    found = judged({0: 0.99}, {0: 0.5})
    assert (found.claim, found.reason, found.n) == ("undecided", "one seed shows nothing", 1)
    assert (found.p, found.standard_error, found.size) == (1.0, None, None)


def test_equal_scores_and_equal_differences_are_no_evidence():
    equal = judged(BASE, BASE)
    assert (equal.claim, equal.p, equal.size) == ("undecided", 1.0, None)
    assert "the scores are equal on all 10 seeds" in equal.reason
    shifted = judged({s: v + 0.01 for s, v in BASE.items() if v is not None}, BASE)
    assert shifted.claim == "undecided"
    assert "the difference is the same on all 10 seeds" in shifted.reason


def test_ties_do_not_count_as_evidence():
    scores = {s: 0.9 + (0.001 * s if s < 4 else 0.0) + (0.1 if s < 4 else 0) for s in range(10)}
    found = judged(scores, dict.fromkeys(range(10), 0.9))
    assert "10 seeds, 6 of them tied, can give is 0.125" in found.reason


def test_nothing_is_claimed_where_the_test_and_the_interval_disagree():
    gains = (1.4, 0.3, 1.1, 1.4, -0.8, 1.3, 1.0)
    found = judged(by_seed(gains), by_seed([0.0] * 7))
    assert found.p == 0.046875 and not found.interval.excludes(0)
    assert (found.claim, found.reason) == (
        "undecided",
        "the test and the interval disagree: the interval holds 0",
    )


def test_whoever_diverged_is_not_called_better():
    ahead = by_seed(noisy(10, 0.004, 0.001)) | {3: None}
    found = judged(ahead, BASE)
    assert (found.claim, found.n) == ("undecided", 9)
    assert found.reason == "new is ahead on the seeds it survived, but diverged on 1 seed"
    assert judged(by_seed(noisy(10, -0.004, 0.001)) | {3: None}, BASE).claim == "worse"
    assert judged(by_seed(noisy(10, 0.004, 0.001)), BASE | {3: None}).claim == "better"


def test_a_side_that_diverged_everywhere_cannot_be_compared():
    lost: dict[int, float | None] = dict.fromkeys(range(10))
    found = judged(lost, BASE)
    assert (found.claim, found.reason) == ("untested", "new diverged on 10 seeds")
    assert (found.mean, found.p, found.adjusted_p, found.size) == (None, None, None, None)
    assert judged(BASE, lost).reason == "GELU diverged on 10 seeds"
    assert judged({11: 0.5}, BASE).reason == "no seed was trained with both"


def test_placebos_are_hardly_ever_declared_better():
    draw = np.random.default_rng(1)
    claims = [_placebo_study(draw) for _ in range(40)]
    better = sum(e.claim == "better" for found in claims for e in found.effects)
    assert better <= stats.binom.ppf(0.999, 40, 0.05)


def _placebo_study(draw: np.random.Generator) -> Comparison:
    scores = [by_seed(draw.normal(0.9, 0.01, 10).tolist()) for _ in range(4)]
    return compare({f"placebo {k}": s for k, s in enumerate(scores[1:])}, scores[0], "ReLU")
