"""The learning-rate heatmap."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from search.figures import style
from search.figures.heatmap import cell_text, draw_heatmap, heatmap_info
from search.figures.leaderboard import leaderboard_info
from search.figures.palette import blue_palette
from tests.figure_cases import SETTINGS, STUDY, baseline, trial
from tests.records_cases import GRID


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
