"""Score against cost: which activations no other one beats in both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from search.figures import style
from search.figures.leaderboard import Row, leaderboard_info
from search.figures.settings import ReportSettings
from search.records import Trial
from search.statistics import non_dominated, robust_range

NAMED = 24
"""At most so many points carry their name."""
WIDTHS = {1: 9.4, 2: 9.8, 3: 11.4}
"""Inches, by the number of panels."""


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """One scored trial with a measured cost."""

    label: str
    baseline: bool
    cost: float
    """Relative to ReLU."""
    score: float
    error: float | None
    """Standard error of a score on fresh seeds."""
    front: bool
    """No other point is at least as good in both and better in one."""


@dataclass(frozen=True, slots=True)
class ParetoPanel:
    """The scores against one kind of cost, the cheapest first."""

    cost: str
    points: tuple[ParetoPoint, ...]


@dataclass(frozen=True, slots=True)
class ParetoInfo:
    """A panel for every kind of cost that was measured."""

    panels: tuple[ParetoPanel, ...]
    limits: tuple[float, float]
    """Of the scores."""
    score: str
    """What they are: `test accuracy (%), fresh seeds`."""
    factor: float
    maximize: bool


def pareto_info(trials: Sequence[Trial], settings: ReportSettings) -> ParetoInfo | None:
    """None with fewer than two points that have both numbers.

    Of fresh seeds where there are finalists: a front of search scores would be the luckiest's.
    """
    board = leaderboard_info(trials, settings)
    fresh = [row for row in board.ranked if row.fresh is not None]
    rows = fresh if len(fresh) > 1 else [row for row in board.ranked if row.score is not None]
    read = _fresh_score if len(fresh) > 1 else _search_score
    panels = [_panel(name, cost, rows, read, settings) for name, cost in _costs(board.rows())]
    found = tuple(panel for panel in panels if len(panel.points) > 1)
    if not found:
        return None
    unit = " (%)" if settings.percent else ""
    split, seeds = ("test", ", fresh seeds") if len(fresh) > 1 else ("validation", "")
    return ParetoInfo(
        panels=found,
        limits=robust_range([p.score for p in found[0].points], settings.maximize, reach=3),
        score=f"{split} {settings.metric}{unit}{seeds}",
        factor=settings.scale.factor,
        maximize=settings.maximize,
    )


Read = Callable[[Row], tuple[float, float | None]]


def _fresh_score(row: Row) -> tuple[float, float | None]:
    assert row.fresh is not None and row.final is not None
    return row.fresh, row.final.standard_error


def _search_score(row: Row) -> tuple[float, float | None]:
    assert row.score is not None
    return row.score, None


Cost = Callable[[Trial], float | None]


def _costs(rows: Sequence[Row]) -> list[tuple[str, Cost]]:
    relu = next((_kernel_time(row.trial) for row in rows if row.trial.name == "relu"), None)

    def in_activations(trial: Trial) -> float | None:
        own = _kernel_time(trial)
        return own / relu if own and relu else None

    return [
        ("time of a training step", lambda trial: trial.cost),
        ("time in activations", in_activations),
        ("memory kept for the backward pass", lambda trial: trial.memory),
    ]


def _kernel_time(trial: Trial) -> float | None:
    """Of a step's time in activations, in steps of the model with ReLU."""
    return None if trial.cost is None or trial.share is None else trial.cost * trial.share


def _panel(
    name: str, cost: Cost, rows: Sequence[Row], read: Read, settings: ReportSettings
) -> ParetoPanel:
    sign = -1.0 if settings.maximize else 1.0
    known = [(row, value, *read(row)) for row in rows if (value := cost(row.trial)) is not None]
    front = non_dominated([(value, sign * score) for _, value, score, _ in known])
    points = [
        ParetoPoint(row.label, row.trial.origin == "baseline", value, score, error, on_front)
        for (row, value, score, error), on_front in zip(known, front, strict=True)
    ]
    points.sort(key=lambda point: (point.cost, sign * point.score))
    return ParetoPanel(name, tuple(points))


def draw_pareto(info: ParetoInfo) -> Figure:
    """Scatters side by side; the fronts joined by steps and named."""
    figure = style.new_figure(WIDTHS[len(info.panels)], 4.2)
    places = figure.subplots(1, len(info.panels), sharey=True, squeeze=False)[0]
    for place, (axes, panel) in enumerate(zip(places, info.panels, strict=True)):
        metric = "" if place else style.plain(info.score)
        style.dress(axes, "", f"{panel.cost}, relative to nn.ReLU", metric)
        low, high = (info.factor * limit for limit in info.limits)
        room = 0.08 * (high - low) or 0.01 * abs(high) or 1.0
        axes.set_ylim(low - room, high + room)
        _draw_panel(axes, info, panel)
    handles, labels = places[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower left", ncols=3, frameon=False, fontsize=style.SMALL,
        labelcolor=style.INK, columnspacing=1.4,
    )  # fmt: skip
    return figure


def _draw_panel(axes: Axes, info: ParetoInfo, panel: ParetoPanel) -> None:
    _cost_axis(axes, [point.cost for point in panel.points])
    _draw_points(axes, info, panel, True, "s", style.BASELINE, "baselines")
    _draw_points(axes, info, panel, False, "o", style.CANDIDATE, "candidates")
    front = [p for p in panel.points if p.front]
    axes.step(
        [p.cost for p in front], [info.factor * p.score for p in front], where="post",
        color=style.BEST, linewidth=1.4, zorder=2, label="no other is better in both",
    )  # fmt: skip
    _draw_names(axes, info, panel)


def _cost_axis(axes: Axes, costs: Sequence[float]) -> None:
    """Logarithmic when one activation costs several times another."""
    low, high = min(costs), max(costs)
    if low > 0 and high > 4 * low:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.08, high * 1.15)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        room = 0.05 * (high - low) or 0.1
        axes.set_xlim(low - room, high + 2 * room)


def _draw_names(axes: Axes, info: ParetoInfo, panel: ParetoPanel) -> None:
    """Names of the front and of the baselines, the front first; one without room is left out."""
    placed: list[tuple[float, float, float, float]] = []
    right = axes.get_window_extent().x1 * 72 / axes.figure.dpi
    inside = [p for p in panel.points if info.limits[0] <= p.score <= info.limits[1]]
    named = sorted((p for p in inside if p.front or p.baseline), key=lambda p: not p.front)
    for point in named[:NAMED]:
        at = (point.cost, info.factor * point.score)
        x, y = axes.transData.transform(at) * 72 / axes.figure.dpi
        wide = 0.62 * style.SMALL * len(point.label)
        for dx, dy in ((4, 4), (4, -11), (-4 - wide, 4), (-4 - wide, -11)):
            box = (x + dx, y + dy, x + dx + wide, y + dy + style.SMALL)
            if box[2] > right or any(_overlap(box, other) for other in placed):
                continue
            placed.append(box)
            axes.annotate(
                style.plain(point.label), at, (dx, dy), textcoords="offset points",
                fontsize=style.SMALL, color=style.BEST if point.front else style.MUTED,
                fontweight="bold" if point.front else "normal",
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )  # fmt: skip
            break


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _draw_points(
    axes: Axes,
    info: ParetoInfo,
    panel: ParetoPanel,
    baseline: bool,
    marker: str,
    colour: str,
    label: str,
) -> None:
    kept = [point for point in panel.points if point.baseline == baseline]
    if not kept:
        return
    low, high = info.limits
    beyond = sum(not low <= point.score <= high for point in kept)
    dense = len(panel.points) > 400
    costs, scores = [p.cost for p in kept], [info.factor * p.score for p in kept]
    axes.errorbar(
        costs, scores, [info.factor * (p.error or 0.0) for p in kept], fmt="none", ecolor=colour,
        elinewidth=0.9, alpha=0.5, zorder=1,
    )  # fmt: skip
    axes.scatter(
        costs, scores,
        marker=marker, s=10 if dense else 26, color=colour, alpha=0.75, linewidths=0,
        rasterized=dense, label=f"{label} ({beyond} worse ones not shown)" if beyond else label,
    )  # fmt: skip
