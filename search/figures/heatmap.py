"""The learning-rate heatmap in the form of the GoLU paper's (arXiv 2502.03654, appendix).

Rows are activations, columns learning rates, a cell is `mean ± standard error` over seeds. A black
box marks the default rate, a green box each row's best; the best of every column is bold; cells
where seeds diverged are hatched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from search.figures import style
from search.figures.formulas import fitted_formula
from search.figures.leaderboard import Row, leaderboard_info
from search.figures.notation import Scale, rate_text, short
from search.figures.palette import blue_palette
from search.figures.settings import ReportSettings
from search.figures.tables import range_text
from search.finalists import fresh_runs, latest_budget
from search.records import Trial
from search.statistics import (
    RateSummary,
    rate_key,
    robust_range,
    summarize_rates,
    tolerant_range,
)

TOP = 10
"""Candidates shown beside the baselines."""
ROW_HEIGHT, RANGE_WIDTH, HEAD, FOOT = 0.4, 1.15, 0.95, 0.8
"""Inches."""


@dataclass(frozen=True, slots=True)
class HeatmapRow:
    """One activation of the heatmap."""

    label: str
    formula: str
    """Empty for a baseline, whose name says it."""
    cells: tuple[RateSummary | None, ...]
    """One a column; None where the rate was not trained."""
    best: int | None
    """Column of the best rate."""
    tolerant: str
    """The rates within 1 % of the best."""


@dataclass(frozen=True, slots=True)
class HeatmapInfo:
    """The numbers of a learning-rate heatmap."""

    rates: tuple[float, ...]
    rows: tuple[HeatmapRow, ...]
    default: int | None
    """Column of the default rate."""
    winners: tuple[frozenset[int], ...]
    """For each column the rows with the best mean among those with every seed complete."""
    limits: tuple[float, float]
    """Scores between which colours differ; worse ones share the last colour."""
    seeds: int | None
    """Seeds trained in every cell; None when cells differ, and then each cell names its own."""
    hidden: int
    """Candidates with a score that are not shown."""
    scale: Scale
    metric: str
    maximize: bool
    fresh: bool = False
    """Whether the scores are of fresh seeds on the test split, and the best rates the search's."""


def heatmap_info(
    trials: Sequence[Trial], settings: ReportSettings, top: int = TOP
) -> HeatmapInfo | None:
    """Baselines and the `top` candidates, best first; None without a trained rate."""
    board = leaderboard_info(trials, settings)
    kept = {row.trial.number for row in board.candidates()[:top]}
    rows = [r for r in board.ranked if r.trial.origin == "baseline" or r.trial.number in kept]
    rows += [r for r in board.unranked if r.trial.origin == "baseline" and r.summaries]
    return _heatmap(rows, settings, hidden=len(board.candidates()) - len(kept), fresh=False)


def fresh_heatmap_info(trials: Sequence[Trial], settings: ReportSettings) -> HeatmapInfo | None:
    """The finalists at every rate on fresh seeds; None unless they were swept.

    A row's green box stays at the rate that the search froze: how far the row's best cell is from
    it shows what the rate's choice was worth.
    """
    board, budget = leaderboard_info(trials, settings), latest_budget(trials)
    rows = []
    for row in board.ranked:
        summaries = summarize_rates(fresh_runs(row.trial, budget))
        rate = row.trial.best_rate
        if summaries and rate is not None:
            tolerant = tolerant_range(summaries, rate, settings.maximize)
            rows.append(replace(row, summaries=summaries, tolerant=tolerant))
    return _heatmap(rows, settings, hidden=0, fresh=True)


def _heatmap(
    rows: Sequence[Row], settings: ReportSettings, hidden: int, fresh: bool
) -> HeatmapInfo | None:
    rates = tuple(sorted({s.learning_rate for row in rows for s in row.summaries}))
    means = [s.mean for row in rows for s in row.summaries if s.mean is not None]
    if not rates or not means:
        return None
    table = tuple(_row(row, rates) for row in rows)
    counts = {cell.runs for row in table for cell in row.cells if cell is not None}
    default = None if settings.default_rate is None else rate_key(settings.default_rate)
    return HeatmapInfo(
        rates=rates,
        rows=table,
        default=rates.index(default) if default in rates else None,
        winners=tuple(_winners(table, c, settings.maximize) for c in range(len(rates))),
        limits=robust_range(means, settings.maximize),
        seeds=counts.pop() if len(counts) == 1 else None,
        hidden=hidden,
        scale=settings.scale.fitted(means),
        metric=settings.metric,
        maximize=settings.maximize,
        fresh=fresh,
    )


def _row(row: Row, rates: tuple[float, ...]) -> HeatmapRow:
    by_rate = {s.learning_rate: s for s in row.summaries}
    best = row.trial.best_rate
    return HeatmapRow(
        label=row.label,
        formula="" if row.trial.origin == "baseline" else row.trial.expression,
        cells=tuple(by_rate.get(rate) for rate in rates),
        best=None if best is None else rates.index(rate_key(best)),
        tolerant=range_text(row),
    )


def _winners(rows: Sequence[HeatmapRow], column: int, maximize: bool) -> frozenset[int]:
    """Only where at least two rows can be compared; equal means share the place."""
    means = {
        index: cell.mean
        for index, row in enumerate(rows)
        if (cell := row.cells[column]) is not None and cell.whole and cell.mean is not None
    }
    if len(means) < 2:
        return frozenset()
    best = (max if maximize else min)(means.values())
    return frozenset(index for index, value in means.items() if value == best)


def cell_text(cell: RateSummary | None, info: HeatmapInfo) -> str:
    """What stands in a cell: `97.31 ± 0.12`, `(n = 2)` if cells differ, `1/2 diverged`."""
    if cell is None:
        return ""
    lines = [] if cell.mean is None else [info.scale.pair(cell.mean, cell.standard_error)]
    if cell.diverged:
        lines.append(f"{cell.diverged}/{cell.runs} diverged")
    elif info.seeds is None and cell.n:
        lines.append(f"n = {cell.n}")
    return "\n".join(lines) or f"{cell.pruned}/{cell.runs} pruned"


def draw_heatmap(info: HeatmapInfo) -> Figure:
    """The heatmap as a figure whose size follows its rows, columns and longest formula."""
    columns, rows = len(info.rates), len(info.rows)
    labels = [_formula(row) for row in info.rows]
    left = 3.1 if any(len(label) > 30 for label in labels) else 2.0 if any(labels) else 1.1
    column_width = _column_width(info)
    width = left + column_width * columns + RANGE_WIDTH
    height = HEAD + ROW_HEIGHT * rows + FOOT
    figure = style.new_figure(width, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes(
        (left / width, FOOT / height, column_width * columns / width, ROW_HEIGHT * rows / height)
    )
    colours, norm = blue_palette(), _norm(info)
    for r, row in enumerate(info.rows):
        for c, cell in enumerate(row.cells):
            _draw_cell(axes, info, (r, c), cell, colours, norm)
        _draw_label(axes, r, row, labels[r])
        if info.default is not None and row.cells[info.default] is not None:
            _box(axes, (r, info.default), "#000000", 0.02, column_width)
        if row.best is not None:
            _box(axes, (r, row.best), style.BEST, 0.06, column_width)
    _dress(axes, info)
    _legend(figure, info)
    _colour_bar(figure, info, colours, norm)
    return figure


def _formula(row: HeatmapRow) -> str:
    """As mathematics when one line holds it without a tall fraction, else the start of its text."""
    if not row.formula:
        return ""
    fitted = fitted_formula(row.formula, 2.85 * 72, 9.0)
    return (
        style.plain(short(row.formula, 50))
        if "frac" in fitted and fitted.count("{") > 12
        else fitted
    )


def _norm(info: HeatmapInfo) -> Normalize:
    low, high = info.limits
    room = 0.0 if high > low else max(abs(high), 1.0) * 1e-3
    return Normalize(low - room, high + room, clip=True)


def _draw_cell(
    axes: Axes,
    info: HeatmapInfo,
    place: tuple[int, int],
    cell: RateSummary | None,
    colours: Colormap,
    norm: Normalize,
) -> None:
    if cell is None:
        return
    (r, c), written = place, cell_text(cell, info)
    value = None if cell.mean is None else float(norm(cell.mean))
    face = "#f4f4f5" if value is None else colours(value if info.maximize else 1 - value)
    axes.add_patch(Rectangle((c, r), 1, 1, facecolor=face, edgecolor="white", linewidth=1.5))
    if cell.diverged:
        axes.add_patch(
            Rectangle((c, r), 1, 1, fill=False, hatch="////", edgecolor="#00000030", linewidth=0)
        )
    axes.text(
        c + 0.5,
        r + 0.5,
        written,
        ha="center",
        va="center",
        color="#7f1d1d" if cell.diverged and cell.mean is None else "#14171c",
        fontsize=8.4 if "\n" not in written else 7.0,
        fontweight="bold" if r in info.winners[c] else "normal",
        linespacing=1.15,
    )


def _draw_label(axes: Axes, r: int, row: HeatmapRow, formula: str) -> None:
    """A baseline's name, or a candidate's number above its formula; the good rates at the right."""
    at = {"transform": axes.get_yaxis_transform(), "clip_on": False, "ha": "right"}
    if formula:
        axes.text(
            -0.012, r + 0.42, style.plain(row.label), va="bottom", color=style.CANDIDATE,
            fontsize=9, fontweight="bold", **at,
        )  # fmt: skip
        axes.text(
            -0.012, r + 0.47, formula, va="top", color=style.MUTED,
            fontsize=9 if formula.startswith("$") else 7, math_fontfamily="stix", **at,
        )  # fmt: skip
    else:
        axes.text(
            -0.012,
            r + 0.5,
            style.plain(row.label),
            va="center",
            color=style.INK,
            fontsize=9.5,
            **at,
        )
    at["ha"] = "left"
    axes.text(1.012, r + 0.5, row.tolerant, va="center", color=style.MUTED, fontsize=8, **at)


def _box(
    axes: Axes, place: tuple[int, int], colour: str, inset: float, column_width: float
) -> None:
    """A frame inside a cell, `inset` inches from its edges."""
    (r, c), across, down = place, inset / column_width, inset / ROW_HEIGHT
    axes.add_patch(
        Rectangle(
            (c + across, r + down), 1 - 2 * across, 1 - 2 * down, fill=False, edgecolor=colour,
            linewidth=1.7, zorder=4, joinstyle="miter",
        )
    )  # fmt: skip


def _column_width(info: HeatmapInfo) -> float:
    """Inches that hold the longest mean ± error in bold."""
    lines = (cell_text(cell, info).split("\n")[0] for row in info.rows for cell in row.cells)
    return max(1.12, 0.092 * max(len(line) for line in lines))


def _dress(axes: Axes, info: HeatmapInfo) -> None:
    axes.set(xlim=(0, len(info.rates)), ylim=(len(info.rows), 0), yticks=[])
    axes.set_xticks(
        [c + 0.5 for c in range(len(info.rates))], [rate_text(rate) for rate in info.rates]
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=9.5, colors=style.INK, pad=3)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.annotate(
        "learning rate", (0.5, 1), (0, 21), xycoords="axes fraction", textcoords="offset points",
        ha="center", fontsize=8.5, color=style.MUTED,
    )  # fmt: skip
    axes.annotate(
        "within 1 %\nof the best", (1, 1), (8, 4), xycoords="axes fraction",
        textcoords="offset points", ha="left", va="bottom", fontsize=7.5, color=style.MUTED,
    )  # fmt: skip


def title(info: HeatmapInfo) -> str:
    """`accuracy (%) by learning rate: mean ± standard error, n = 2 seeds`."""
    unit = " (%)" if info.scale.percent else ""
    seeds = "n per cell" if info.seeds is None else f"n = {info.seeds}"
    better = "higher is better" if info.maximize else "lower is better"
    error = "" if info.seeds == 1 else " ± standard error"
    where = "test " if info.fresh else ""
    over = "fresh seeds" if info.fresh else "seeds"
    return f"{where}{info.metric}{unit}, {better}: mean{error} over {over}, {seeds}"


def _legend(figure: Figure, info: HeatmapInfo) -> None:
    width, height = figure.get_size_inches()
    figure.text(
        0.12 / width, 1 - 0.17 / height, style.plain(title(info)), va="top", fontsize=style.TITLE,
        fontweight="bold", color=style.INK,
    )  # fmt: skip
    more = f"; {info.hidden} more candidates in the leaderboard" if info.hidden else ""
    box = {"facecolor": "none", "linewidth": 1.7}
    boxed = "rate frozen by the search" if info.fresh else "best of the row"
    marks = [
        Rectangle((0, 0), 1, 1, edgecolor="#000000", label="default rate", **box),
        Rectangle((0, 0), 1, 1, edgecolor=style.BEST, label=boxed, **box),
        Rectangle(
            (0, 0), 1, 1, facecolor="#f4f4f5", edgecolor="#00000055", hatch="////", linewidth=0,
            label="seeds diverged",
        ),
    ]  # fmt: skip
    figure.legend(
        handles=marks, loc="lower left", bbox_to_anchor=(0.05 / width, 0.05 / height), ncols=3,
        frameon=False, fontsize=8, labelcolor=style.INK, handlelength=1.3, handleheight=0.9,
        columnspacing=1.4,
        title=f"bold: best of the column{more}",
        title_fontsize=8, alignment="left",
    )  # fmt: skip


def _colour_bar(figure: Figure, info: HeatmapInfo, colours: Colormap, norm: Normalize) -> None:
    width, height = figure.get_size_inches()
    axes = figure.add_axes((1 - 2.75 / width, 0.4 / height, 2.5 / width, 0.11 / height))
    shades = colours if info.maximize else colours.reversed()
    low, high = info.limits
    means = [c.mean for row in info.rows for c in row.cells if c is not None and c.mean is not None]
    extend = {(True, False): "min", (False, True): "max"}.get((min(means) < low, max(means) > high))
    bar = figure.colorbar(
        ScalarMappable(norm, shades), cax=axes, orientation="horizontal", extend=extend or "neither"
    )
    bar.outline.set_visible(False)  # type: ignore[operator]
    ticks = [low, (low + high) / 2, high] if high > low else [low]
    bar.set_ticks(ticks, labels=[info.scale.text(tick) for tick in ticks])
    axes.tick_params(labelsize=7.5, length=2, colors=style.MUTED)
