"""Numbers about runs, and how they are written."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from search import statistics
from search.figures.formulas import fitted_formula, formula_sheet, latex_of
from search.figures.notation import Scale, duration_text, rate_text, short
from tests.figure_cases import trial
from tests.records_cases import run

# --- statistics -----------------------------------------------------------------------------------


def test_standard_error_is_the_sample_deviation_over_root_n():
    assert statistics.standard_error([1.0, 2.0, 4.0]) == pytest.approx(
        np.std([1, 2, 4], ddof=1) / math.sqrt(3), rel=1e-15
    )
    assert statistics.standard_error([1.0]) is None
    assert statistics.standard_error([]) is None


def test_rates_are_summarized_with_their_diverged_seeds_counted_and_not_averaged():
    runs = [
        run(0.1, 0, 0.9),
        run(0.1, 1, None),
        run(0.01, 0, 0.8),
        run(0.01, 1, 0.7),
        replace(run(1.0, 0, None), state="pruned"),
    ]
    low, middle, high = statistics.summarize_rates(runs)
    assert (low.learning_rate, low.n, low.diverged, low.whole) == (0.01, 2, 0, True)
    assert low.mean == pytest.approx(0.75)
    assert low.standard_error == pytest.approx(0.05)
    assert (middle.mean, middle.n, middle.diverged, middle.whole) == (0.9, 1, 1, False)
    assert (high.mean, high.n, high.pruned, high.runs) == (None, 0, 1, 1)


def test_rates_that_differ_by_rounding_are_one_rate():
    rates = statistics.summarize_rates([run(0.1 * 3, 0, 0.5), run(0.3, 1, 0.7)])
    assert [(s.learning_rate, s.n) for s in rates] == [(0.3, 2)]


def test_paired_difference_uses_the_seeds_that_both_completed():
    a = [run(0.1, 0, 0.9), run(0.1, 1, 0.8), run(0.1, 2, None), run(0.3, 0, 0.1)]
    b = [run(0.01, 0, 0.7), run(0.01, 1, 0.7), run(0.01, 2, 0.7)]
    found = statistics.paired_difference(a, 0.1, b, 0.01)
    assert found.n == 2
    assert found.mean == pytest.approx(0.15)
    assert found.standard_error == pytest.approx(0.05)
    assert statistics.paired_difference(a, 0.5, b, 0.01) == statistics.Difference(None, None, 0)


@pytest.mark.parametrize("maximize", [True, False])
def test_the_tolerant_range_is_unbroken_and_ends_where_seeds_diverge(maximize: bool):
    sign = 1 if maximize else -1
    rows = {0.001: [1.0], 0.01: [0.5], 0.1: [0.995], 1.0: [1.0], 10.0: [None, 1.0]}
    scores = {rate: [s if s is None else sign * s for s in row] for rate, row in rows.items()}
    found = statistics.summarize_rates(trial(0, scores).runs)
    assert statistics.tolerant_range(found, 1.0, maximize) == (0.1, 1.0)
    assert statistics.tolerant_range(found, 5.0, maximize) is None


def test_correlation_ratio_by_hand_and_at_its_ends():
    # Means 1 and 4 around 2.5: between 4 * 2.25 = 9, total 9 + 4 * 0.25 = 10.
    assert statistics.correlation_ratio("aabb", [0.5, 1.5, 3.5, 4.5]) == pytest.approx(0.9)
    assert statistics.correlation_ratio("aabb", [1, 1, 2, 2]) == 1.0
    assert statistics.correlation_ratio("abab", [1, 1, 2, 2]) == 0.0
    assert statistics.correlation_ratio("ab", [1, 1]) == 0.0


def test_rank_correlation_matches_scipy():
    draw = random.Random(0)
    x = [draw.choice((1.0, 2.0, 3.0, 4.0)) for _ in range(30)]
    y = [value + draw.gauss(0, 2) for value in x]
    expected = float(stats.spearmanr(x, y)[0]) ** 2  # type: ignore[arg-type]
    assert statistics.squared_rank_correlation(x, y) == pytest.approx(expected, rel=1e-12)
    assert statistics.squared_rank_correlation(x, [1.0] * 30) == 0.0


@pytest.mark.parametrize(("n", "exact"), [(2, 0.5642), (10, 1.5388), (100, 2.5076), (1000, 3.2414)])
def test_expected_maximum_of_normal_draws(n: int, exact: float):
    assert statistics.expected_maximum(n) == pytest.approx(exact, rel=0.05)
    assert statistics.expected_maximum(1) == 0.0


def test_the_pareto_front_is_what_the_definition_says():
    draw = random.Random(1)
    for _ in range(200):
        points = [(float(draw.randint(0, 5)), float(draw.randint(0, 5))) for _ in range(12)]
        dominated = [any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points) for p in points]
        assert statistics.non_dominated(points) == [not d for d in dominated]


def test_robust_range_forgets_hopeless_values_and_mirrors_for_losses():
    scores = [0.1, 0.1, 0.95, 0.96, 0.97, 0.98, 0.98]
    assert statistics.robust_range(scores, True) == pytest.approx((0.92, 0.98))
    assert statistics.robust_range([-s for s in scores], False) == pytest.approx((-0.98, -0.92))
    assert statistics.robust_range([0.97, 0.98], True) == (0.97, 0.98)


# --- notation and formulas ------------------------------------------------------------------------


def test_scores_are_written_in_percent_or_with_five_digits():
    percent, loss = Scale(percent=True), Scale(percent=False).fitted([1.25, 3.4])
    assert percent.pair(0.97314, 0.0012) == "97.31 ± 0.12"
    assert percent.text(-0.0012, sign=True) == "−0.12"
    assert percent.pair(0.5, None) == "50.00"
    assert percent.pair(None, None) == "–"
    assert loss.pair(1.23456, 0.0012) == "1.2346 ± 0.0012"
    assert Scale(percent=False).fitted([1e-5]).text(1.23e-5) == "0.00001230"


def test_rates_durations_and_long_texts():
    assert [rate_text(r) for r in (0.003, 3.16228e-5, 1.0, None)] == [
        "0.003",
        "3.16e-5",
        "1",
        "–",
    ]
    assert [duration_text(s) for s in (47.6, 200, 7500)] == ["48 s", "3 min 20 s", "2 h 05 min"]
    assert short("x * sigmoid(b * x)", 12) == "x * sigmoid…"
    assert short("x", 1) == "x"


def test_formulas_share_the_outlines_of_their_letters():
    texts = ["x * sigmoid(x)", "x * sigmoid(2 * x)", "no formula"]
    sheet = formula_sheet(texts)
    assert set(sheet.pictures) == set(texts[:2])
    for picture in sheet.pictures.values():
        used = {part.split('"')[0] for part in picture.split('href="#')[1:]}
        assert len(used) >= 3
        assert all(f'id="{name}"' in sheet.definitions for name in used)
    assert sheet.definitions.count("<path") < 8


def test_a_formula_too_wide_for_its_place_is_text():
    long = " + ".join(f"tanh({k} * x)" for k in range(2, 30))
    assert latex_of(long) is not None
    assert formula_sheet([long]).pictures == {}
    assert fitted_formula("x * sigmoid(x)", 200, 9).startswith("$")
    fitted = fitted_formula(long, 200, 9)
    assert fitted.endswith("…") and len(fitted) < 50
