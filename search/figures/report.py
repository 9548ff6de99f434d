"""Assembles a report: tables, figures and the page, from the records of a study.

Written into the study's folder:

    leaderboard.csv, leaderboard.md     everything trained, best first
    lr_heatmap.png, lr_heatmap.pdf      activations by learning rates
    report/index.html                   everything on one page
    report/discovered.csv               everything proposed, also what was never trained
    report/finalists.csv                every run of the finalists, where there are any
    report/<figure>.png, .pdf           the other figures
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from search.errors import StudyError
from search.figures.critical_difference import draw_critical_difference
from search.figures.curves import curves_info, draw_curves
from search.figures.effects import draw_effects
from search.figures.finals import final_effects_info, final_ranks_info, finals_info
from search.figures.heatmap import draw_heatmap, fresh_heatmap_info, heatmap_info
from search.figures.importance import draw_importance, importance_info
from search.figures.leaderboard import leaderboard_info
from search.figures.page import Drawn, index_page
from search.figures.pareto import draw_pareto, pareto_info
from search.figures.progress import draw_progress, progress_info
from search.figures.rejections import draw_rejections, rejections_info
from search.figures.settings import ReportSettings
from search.figures.shapes import draw_shapes, shapes_info
from search.figures.style import pdf_bytes, png_bytes
from search.figures.tables import (
    discovered_csv,
    finalists_csv,
    leaderboard_csv,
    leaderboard_markdown,
)
from search.records import Trial


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure of the report: numbers from records, then a drawing of the numbers."""

    title: str
    info: Callable[[Sequence[Trial], ReportSettings], Any]
    """Gives None when there is nothing to draw."""
    draw: Callable[[Any], Figure]
    caption: str
    empty: str
    """Said in its place when there is nothing to draw."""
    folder: str = "report"


FIGURES: dict[str, Chart] = {
    "effects": Chart(
        "Finalists against the best baseline",
        final_effects_info,
        draw_effects,
        "How much better each finalist is on fresh seeds and the test split, paired by seed, with "
        "95 % intervals. A dot is filled where the difference is claimed: the sign-flip test after "
        "Holm and the interval agree.",
        "Nothing was trained again on fresh seeds; `finalists: {k: 3, seeds: 10}` asks for it.",
    ),
    "critical_difference": Chart(
        "Ranks over tasks",
        final_ranks_info,
        draw_critical_difference,
        "The finalists' average ranks over all tasks; a bar joins those that cannot be told apart.",
        "The finalists were not trained on enough tasks to test their ranks (8 at least).",
    ),
    "lr_heatmap": Chart(
        "Learning rates",
        heatmap_info,
        draw_heatmap,
        "Every activation at every learning rate. An activation is only as good as its rate: "
        "compare the green boxes, and the black column to see what tuning changed.",
        "No run has finished yet.",
        folder="",
    ),
    "fresh_heatmap": Chart(
        "Learning rates on fresh seeds",
        fresh_heatmap_info,
        draw_heatmap,
        "The finalists at every rate of their sweeps, on fresh seeds and the test split. The green "
        "box is the rate that the search froze, not the best of these cells.",
        "The finalists were trained at their own rate alone; `finalists: {sweep: true}` asks for "
        "all.",
    ),
    "curves": Chart(
        "Training curves",
        curves_info,
        draw_curves,
        "The best candidates and the baselines, each at its own best rate, mean over seeds.",
        "No finished run has recorded a curve yet.",
    ),
    "shapes": Chart(
        "Shapes",
        shapes_info,
        draw_shapes,
        "The best activations and their derivatives at the initial parameters, beside GELU and "
        "SiLU. A statistic of the input has the value it has under N(0, 1).",
        "No activation has a score yet.",
    ),
    "progress": Chart(
        "Progress of the search",
        progress_info,
        draw_progress,
        "Every trial in the order of its proposal.",
        "No candidate has a score yet.",
    ),
    "importance": Chart(
        "Importance of the choices",
        importance_info,
        draw_importance,
        "How much of the scores' variance each choice of the grammar explains on its own "
        "(η² for alternatives, Spearman's ρ² for ranges). The tick is what a choice that does not "
        "matter would reach by chance; pale bars stay below it.",
        "A choice needs two values and eight trials with a score.",
    ),
    "rejections": Chart(
        "Without a score",
        rejections_info,
        draw_rejections,
        "Candidates that were rejected before training, stopped, or failed, by reason. They count "
        "as tried: no sampler and no table forgets them.",
        "No trial ended without a score.",
    ),
    "pareto": Chart(
        "Score against cost",
        pareto_info,
        draw_pareto,
        "The green line joins the activations that no other beats in both score and cost; scores "
        "are of fresh seeds where there are finalists, their bars are standard errors.",
        "Fewer than two trials have a measured cost.",
    ),
}
"""Adding a figure is one row here and one file beside this one."""


def write_report(folder: Path, trials: Sequence[Trial], settings: ReportSettings) -> Path:
    """Write every file of the report below `folder`; returns the page's path.

    Works at any time: with no trial, in the middle of a study, with baselines alone.

    Raises:
        StudyError: a file cannot be written. Files are replaced whole or not at all.
    """
    board = leaderboard_info(trials, settings)
    page = folder / "report" / "index.html"
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        finals = finals_info(board, settings)
        _write(folder / "leaderboard.csv", leaderboard_csv(board, finals))
        _write(folder / "leaderboard.md", leaderboard_markdown(board, settings, finals))
        _write(page.parent / "discovered.csv", discovered_csv(trials))
        if finals is not None:
            _write(page.parent / "finalists.csv", finalists_csv(trials))
        shown = [trial for trial in trials if trial.origin != "placebo"]
        drawn = [_draw(folder, key, chart, shown, settings) for key, chart in FIGURES.items()]
        _write(page, index_page(trials, board, settings, drawn))
    except OSError as error:
        place = error.filename or folder
        raise StudyError(f"{place}: cannot write the report: {error.strerror or error}") from None
    return page


def _draw(
    folder: Path, key: str, chart: Chart, trials: Sequence[Trial], settings: ReportSettings
) -> Drawn:
    info = chart.info(trials, settings)
    if info is None:
        return Drawn(key, chart.title, chart.caption, chart.empty, None, 0)
    figure = chart.draw(info)
    png = png_bytes(figure)
    _write(folder / chart.folder / f"{key}.png", png)
    figure.set_layout_engine("none")  # as the PNG is laid out: doing it again takes a third longer
    _write(folder / chart.folder / f"{key}.pdf", pdf_bytes(figure))
    width = round(100 * figure.get_figwidth())
    return Drawn(key, chart.title, chart.caption, chart.empty, png, width)


def _write(path: Path, content: str | bytes) -> None:
    """Replace `path` in one step: a reader, or a full disk, never sees half a file."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
