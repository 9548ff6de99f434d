"""The numbers behind every figure, and that each figure is drawn."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from scipy import stats

from search import statistics
from search.errors import SearchError
from search.figures import style
from search.figures.curves import curves_info, draw_curves, mean_curve
from search.figures.formulas import fitted_formula, formula_sheet, latex_of
from search.figures.heatmap import cell_text, draw_heatmap, heatmap_info
from search.figures.importance import importance_info
from search.figures.leaderboard import LeaderboardInfo, leaderboard_info
from search.figures.notation import Scale, duration_text, rate_text, short
from search.figures.palette import blue_palette
from search.figures.pareto import pareto_info
from search.figures.progress import progress_info
from search.figures.rejections import rejections_info
from search.figures.report import FIGURES
from search.figures.shapes import (
    LIMITS,
    draw_expression,
    draw_shapes,
    shape,
    shape_info,
    shapes_info,
    window,
)
from search.figures.verdict import luck_info, verdict
from search.language.parser import parse
from search.records import Point, Run, Trial
from tests.records_cases import GRID, baseline_trials, retested, run, settings, study_trials

STUDY = study_trials(40)
SETTINGS = settings()
LOSS = settings(metric="loss", maximize=False, percent=False)


def trial(number: int, scores: Mapping[float, Sequence[float | None]], **fields) -> Trial:
    """A trial with these scores by rate and seed; None is a diverged run."""
    runs = tuple(run(rate, seed, s) for rate, row in scores.items() for seed, s in enumerate(row))
    means = {
        rate: sum(filter(None, row)) / len(row) for rate, row in scores.items() if None not in row
    }
    best = max(means, key=lambda rate: means[rate], default=None)
    basis = {
        "origin": "search",
        "name": "",
        "expression": "x * sigmoid(x)",
        "fingerprint": f"{number:016x}",
        "state": "complete" if best else "diverged",
        "score": means[best] if best else None,
        "best_rate": best,
    }
    return Trial(number=number, runs=runs, **{**basis, **fields})


def baseline(
    number: int, scores: Mapping[float, Sequence[float | None]], name: str = "gelu"
) -> Trial:
    return trial(number, scores, origin="baseline", name=name, expression="x * normal_cdf(x)")


# --- statistics ----------------------------------------------------------------------------------


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


# --- notation and formulas -----------------------------------------------------------------------


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


# --- leaderboard ---------------------------------------------------------------------------------


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


# --- verdict -------------------------------------------------------------------------------------


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


# --- heatmap -------------------------------------------------------------------------------------


def test_the_heatmap_holds_every_rate_of_every_row():
    info = heatmap_info(STUDY, SETTINGS, top=5)
    assert info is not None
    assert info.rates == (*GRID, 0.3)
    assert info.rates[info.default or 0] == 0.01
    assert sum(1 for row in info.rows if row.formula) == 5
    assert sum(1 for row in info.rows if not row.formula) == 7
    elu = next(row for row in info.rows if row.label == "ELU")
    assert elu.best == 5 and elu.cells[5] is not None
    gelu = next(row for row in info.rows if row.label == "GELU")
    assert gelu.cells[5] is None, "a rate that was not trained is blank"
    candidates = leaderboard_info(STUDY, SETTINGS).candidates()
    assert info.hidden == len(candidates) - 5
    assert info.seeds == 2


def test_heatmap_cells_say_mean_error_seeds_and_divergence():
    trials = [
        baseline(0, {0.01: [0.9, 0.92], 0.1: [0.5, None]}),
        trial(1, {0.01: [0.8], 0.1: [None]}),
    ]
    info = heatmap_info(trials, SETTINGS)
    assert info is not None and info.seeds is None
    written = [[cell_text(cell, info) for cell in row.cells] for row in info.rows]
    assert written == [
        ["91.00 ± 1.00\nn = 2", "50.00\n1/2 diverged"],
        ["80.00\nn = 1", "1/1 diverged"],
    ]


def test_the_best_of_a_column_is_among_rows_without_divergence():
    trials = [
        trial(0, {0.01: [0.6, 0.6], 0.1: [0.99, None]}),
        trial(1, {0.01: [0.5, 0.5], 0.1: [0.4, 0.4]}),
        trial(2, {0.01: [0.4, 0.4], 0.1: [0.3, 0.3]}),
    ]
    info = heatmap_info(trials, SETTINGS)
    assert info is not None and info.winners == (frozenset({0}), frozenset({1}))
    tied = heatmap_info([*trials, trial(3, {0.01: [0.6, 0.6], 0.1: [0.1, 0.1]})], SETTINGS)
    assert tied is not None and tied.winners[0] == {0, 1}, "0 and 3 rank first and second"


def test_a_diverged_baseline_keeps_its_row():
    trials = [baseline(0, {0.1: [None, None]}, "relu"), baseline(1, {0.1: [0.5, 0.5]})]
    info = heatmap_info(trials, SETTINGS)
    assert info is not None
    assert [row.label for row in info.rows] == ["GELU", "ReLU"]
    assert info.rows[1].best is None


def boxes(figure: Figure, colour: str) -> int:
    frames = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and not p.get_fill()]
    return sum(to_hex(p.get_edgecolor()) == colour and p.get_hatch() is None for p in frames)


def test_the_heatmap_boxes_every_default_black_and_every_best_green():
    info = heatmap_info(STUDY, SETTINGS)
    assert info is not None and info.default is not None
    figure = draw_heatmap(info)
    assert boxes(figure, "#000000") == sum(r.cells[info.default] is not None for r in info.rows)
    assert boxes(figure, style.BEST) == sum(r.best is not None for r in info.rows)
    hatched = [p for p in figure.axes[0].patches if p.get_hatch()]
    diverged = [c for row in info.rows for c in row.cells if c is not None and c.diverged]
    assert len(hatched) == len(diverged) > 0


def test_the_palette_steps_evenly_and_lets_ink_be_read():
    colours = blue_palette()(np.linspace(0, 1, 32))[:, :3]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < 0).all()
    ink = 0.008  # luminance of the text's colour
    assert ((luminance + 0.05) / (ink + 0.05)).min() > 4.5, "WCAG AA"


# --- the other figures ---------------------------------------------------------------------------


def test_curves_are_means_over_the_steps_that_all_seeds_share():
    def with_curve(seed: int, *scores: float) -> Run:
        curve = tuple(Point(10 * (k + 1), 0.3, 0.2, s) for k, s in enumerate(scores))
        return replace(run(0.1, seed, scores[-1]), curve=curve)

    curve = mean_curve([with_curve(0, 0.2, 0.4), with_curve(1, 0.4, 0.8, 0.9)], lambda p: p.score)
    assert curve.steps == (10, 20)
    assert curve.means == pytest.approx((0.3, 0.6))
    assert curve.errors == pytest.approx((0.1, 0.2))
    broken = mean_curve([with_curve(0, math.nan, 0.4)], lambda p: p.score)
    assert broken.steps == (20,)


def test_curves_show_the_best_candidates_and_every_baseline_at_their_best_rates():
    info = curves_info(STUDY, SETTINGS, top=3)
    assert info is not None
    roles = [line.role for line in info.lines]
    assert (roles.count("candidate"), roles.count("best baseline")) == (3, 1)
    assert roles.count("baseline") == 6
    by_label = {row.label: row.trial.best_rate for row in leaderboard_info(STUDY, SETTINGS).ranked}
    assert all(line.rate == by_label[line.label] for line in info.lines)


def test_losses_below_zero_are_drawn_on_a_plain_axis():
    info = curves_info(STUDY, SETTINGS)
    assert info is not None
    assert draw_curves(info).axes[1].get_yscale() == "log"
    negative = replace(info.lines[0].loss, means=tuple(-m for m in info.lines[0].loss.means))
    lines = (replace(info.lines[0], loss=negative), *info.lines[1:])
    assert draw_curves(replace(info, lines=lines)).axes[1].get_yscale() == "linear"


@pytest.mark.parametrize("maximize", [True, False])
def test_the_best_so_far_only_improves(maximize: bool):
    info = progress_info(STUDY, settings(maximize=maximize))
    assert info is not None
    best = [score for _, score in info.best_so_far]
    assert best == sorted(best, reverse=not maximize)
    scores = [score for _, score in info.candidates]
    assert best[-1] == (max(scores) if maximize else min(scores))
    assert [n for n, _ in info.best_so_far] == [n for n, _ in info.candidates]


def test_progress_marks_every_trial_without_a_score():
    info = progress_info(STUDY, SETTINGS)
    assert info is not None
    assert {state: len(n) for state, n in info.unscored.items()} == {
        state: sum(t.state == state for t in STUDY) for state in info.unscored
    }
    assert set(info.unscored) == {"rejected", "duplicate", "pruned", "diverged", "failed"}


def planted(n: int) -> list[Trial]:
    """The gate explains almost all, the alternative nothing, s some, in the sense of its rank."""
    draw = random.Random(5)
    trials = []
    for number in range(n):
        gate, place, s = number % 3, draw.randrange(2), draw.uniform(0.5, 2)
        score = 0.5 + 0.1 * gate + 0.02 * s
        choices = {"F.G": ("a", "b", "c")[gate], "F": place, "F.s": s, "F.const": "one"}
        trials.append(trial(number, {0.1: [score]}, choices=choices))
    return trials


def test_importance_finds_the_planted_choice():
    info = importance_info(planted(60), SETTINGS)
    assert info is not None
    by_path = {item.path: item for item in info.paths}
    assert next(iter(by_path)) == "F.G"
    assert by_path["F.G"].share > 0.95 and by_path["F.G"].values == 3
    assert by_path["F.G"].chance == pytest.approx(2 / 59)
    assert by_path["F.s"].continuous and not by_path["F"].continuous
    assert by_path["F"].share < 0.1
    assert "F.const" not in by_path, "one value explains nothing"


def test_importance_needs_eight_trials():
    assert importance_info(planted(7), SETTINGS) is None
    assert importance_info(planted(8), SETTINGS) is not None


def test_rejections_are_counted_by_gate():
    info = rejections_info(STUDY, SETTINGS)
    assert info is not None
    assert sum(reason.count for reason in info.reasons) == sum(
        t.state not in ("complete", "running") for t in STUDY
    )
    by_label = {reason.label: reason for reason in info.reasons}
    assert {"rejected: bounded", "rejected: signal", "duplicate", "diverged"} <= set(by_label)
    assert "float16" in by_label["rejected: bounded"].example
    assert info.proposed == 40
    assert info.duplicates == by_label["duplicate"].count
    counts = [reason.count for reason in info.reasons]
    assert counts == sorted(counts, reverse=True)


def test_the_front_of_score_and_cost():
    trials = [
        trial(0, {0.1: [0.5]}, cost=1.0),
        trial(1, {0.1: [0.9]}, cost=2.0),
        trial(2, {0.1: [0.8]}, cost=3.0),
        trial(3, {0.1: [0.99]}, cost=None),
    ]
    info = pareto_info(trials, SETTINGS)
    assert info is not None
    (panel,) = info.panels
    assert [(p.label, p.front) for p in panel.points] == [("#0", True), ("#1", True), ("#2", False)]
    reverse = pareto_info(trials, LOSS)
    assert reverse is not None
    assert [p.front for p in reverse.panels[0].points] == [True, False, False]


def test_the_front_is_of_fresh_scores_and_of_every_cost_that_was_measured():
    costs = {"relu": (1.0, 0.1, 1.0), "gelu": (1.2, 0.25, 2.0)}
    study = [
        replace(t, cost=c, share=s, memory=m)
        for t in STUDY
        for c, s, m in [costs.get(t.name, (1.5, 0.4, None))]
    ]
    searched, retried = pareto_info(study, SETTINGS), pareto_info(retested(study), SETTINGS)
    assert searched is not None and searched.score == "validation accuracy (%)"
    assert retried is not None and retried.score == "test accuracy (%), fresh seeds"
    time, kernel, memory = retried.panels
    assert len(time.points) == len(kernel.points) < len(searched.panels[0].points)
    assert all(point.error is not None for point in time.points)
    assert {p.label: p.cost for p in memory.points} == {"ReLU": 1.0, "GELU": 2.0}
    assert {p.label: p.cost for p in kernel.points}["GELU"] == pytest.approx(3.0)


def test_shapes_are_the_functions_values():
    gelu = shape(parse("x * normal_cdf(x)"), "GELU")
    x = shape_info(parse("x")).x
    assert np.allclose(gelu.f, x * stats.norm.cdf(x), rtol=1e-12)
    assert np.allclose(gelu.slope, stats.norm.cdf(x) + x * stats.norm.pdf(x), rtol=1e-10)
    assert np.allclose(gelu.gate, stats.norm.cdf(x), rtol=1e-10)
    assert 0.0 not in x


def test_a_shape_that_explodes_leaves_the_panel_and_not_its_neighbours():
    wild = shape(parse("exp(x ** 4) * 1e300"), "wild")
    assert np.isnan(wild.f).any() and not np.isinf(wild.f).any()
    low, high = window([wild, shape(parse("x"), "line")], "f")
    assert LIMITS["f"][0] - 1 < low < high < LIMITS["f"][1] + 1


def test_shapes_skip_what_the_language_cannot_read_any_more():
    trials = [trial(0, {0.1: [0.9]}, expression="old_name(x)"), trial(1, {0.1: [0.8]})]
    info = shapes_info(trials, SETTINGS)
    assert info is not None
    assert [drawn.label for drawn in info.shapes] == ["#1"]
    assert [reference.label for reference in info.references] == ["GELU", "SiLU"]


def test_an_ablation_draws_its_baselines():
    info = shapes_info(baseline_trials(), SETTINGS)
    assert info is not None and len(info.shapes) == 7
    assert len(draw_shapes(info).axes) == 16


@pytest.mark.parametrize("formula", ["x * gompertz(x) * (1 + 0.3 * tanh(std(x)))", "u * silu(x)"])
def test_draw_expression_writes_a_picture(formula: str, tmp_path: Path):
    path = tmp_path / "shape.png"
    draw_expression(parse(formula), path)
    assert drawn_share(path.read_bytes()) > 0.01


@pytest.mark.parametrize("name", ["missing/shape.png", "shape.nonsense"])
def test_a_picture_that_cannot_be_written_is_one_line(name: str, tmp_path: Path):
    with pytest.raises(SearchError) as caught:
        draw_expression(parse("x"), tmp_path / name)
    assert "cannot write the picture" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def drawn_share(png: bytes) -> float:
    """Share of a picture's pixels that are not white."""
    pixels = imread(io.BytesIO(png))[..., :3]
    return float((pixels.min(axis=-1) < 0.98).mean())


@pytest.mark.parametrize("key", FIGURES)
def test_every_figure_is_drawn(key: str):
    chart = FIGURES[key]
    info = chart.info(retested(STUDY, tasks=7, swept=True), SETTINGS)
    assert info is not None
    figure = chart.draw(info)
    assert 0.01 < drawn_share(style.png_bytes(figure)) < 0.9
    assert style.pdf_bytes(figure).startswith(b"%PDF")


@pytest.mark.parametrize("key", FIGURES)
def test_a_figure_without_numbers_is_none(key: str):
    assert FIGURES[key].info([], SETTINGS) is None


def test_names_with_dollars_and_foreign_letters_are_drawn_as_they_are():
    odd = replace(baseline(0, {0.1: [0.5, 0.6]}), name="a$b_{$ 激活")
    trials = [odd, *STUDY[7:]]
    for key in ("lr_heatmap", "curves", "progress", "pareto"):
        info = FIGURES[key].info(trials, settings(metric="win$rate_$"))
        assert info is not None
        assert drawn_share(style.png_bytes(FIGURES[key].draw(info))) > 0.01


def test_the_same_study_gives_the_same_pdf():
    info = rejections_info(STUDY, SETTINGS)
    assert info is not None
    one, two = (style.pdf_bytes(FIGURES["rejections"].draw(info)) for _ in range(2))
    assert one == two
