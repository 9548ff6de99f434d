"""The other figures."""

from __future__ import annotations

import io
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from scipy import stats

from search.errors import SearchError
from search.figures import style
from search.figures.curves import curves_info, draw_curves, mean_curve
from search.figures.importance import importance_info
from search.figures.leaderboard import leaderboard_info
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
from search.language.parser import parse
from search.records import Point, Run, Trial
from tests.figure_cases import LOSS, SETTINGS, STUDY, baseline, trial
from tests.records_cases import baseline_trials, retested, run, settings


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
