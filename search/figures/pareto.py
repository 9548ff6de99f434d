"""Score against cost: which activations no other one beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from search.figures import style
from search.figures.leaderboard import leaderboard_info
from search.figures.settings import ReportSettings
from search.records import Trial
from search.statistics import non_dominated, robust_range

NAMED = 24
"""At most so many points carry their name."""


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """One scored trial with a measured cost."""

    label: str
    baseline: bool
    cost: float
    """Step time relative to ReLU."""
    score: float
    front: bool
    """No other point is at least as good in both and better in one."""


@dataclass(frozen=True, slots=True)
class ParetoInfo:
    """All points, the cheapest first."""

    points: tuple[ParetoPoint, ...]
    limits: tuple[float, float]
    metric: str
    factor: float
    maximize: bool


def pareto_info(trials: Sequence[Trial], settings: ReportSettings) -> ParetoInfo | None:
    """None with fewer than two points that have both numbers."""
    sign = -1.0 if settings.maximize else 1.0
    rows = [
        (row, row.trial.cost, row.score)
        for row in leaderboard_info(trials, settings).ranked
        if row.trial.cost is not None and row.score is not None
    ]
    if len(rows) < 2:
        return None
    front = non_dominated([(cost, sign * score) for _, cost, score in rows])
    points = [
        ParetoPoint(row.label, row.trial.origin == "baseline", cost, score, on_front)
        for (row, cost, score), on_front in zip(rows, front, strict=True)
    ]
    return ParetoInfo(
        points=tuple(sorted(points, key=lambda point: (point.cost, sign * point.score))),
        limits=robust_range([point.score for point in points], settings.maximize, reach=3),
        metric=settings.metric + (" (%)" if settings.percent else ""),
        factor=settings.scale.factor,
        maximize=settings.maximize,
    )


def draw_pareto(info: ParetoInfo) -> Figure:
    """A scatter; the front joined by steps and named."""
    figure = style.new_figure(9.4, 4.2)
    axes = figure.add_subplot()
    metric = style.plain(f"validation {info.metric}")
    style.dress(axes, "", "time of a training step relative to ReLU", metric)
    low, high = (info.factor * limit for limit in info.limits)
    room = 0.08 * (high - low) or 0.01 * abs(high) or 1.0
    axes.set_ylim(low - room, high + room)
    _cost_axis(axes, [point.cost for point in info.points])
    _draw_points(axes, info, True, "s", style.BASELINE, "baselines")
    _draw_points(axes, info, False, "o", style.CANDIDATE, "candidates")
    front = [p for p in info.points if p.front]
    axes.step(
        [p.cost for p in front], [info.factor * p.score for p in front], where="post",
        color=style.BEST, linewidth=1.4, zorder=2, label="no other is better in both",
    )  # fmt: skip
    _draw_names(axes, info)
    figure.legend(
        loc="outside lower left", ncols=3, frameon=False, fontsize=style.SMALL,
        labelcolor=style.INK, columnspacing=1.4,
    )  # fmt: skip
    return figure


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


def _draw_names(axes: Axes, info: ParetoInfo) -> None:
    """Names of the front and of the baselines, the front first; one without room is left out."""
    placed: list[tuple[float, float, float, float]] = []
    inside = [p for p in info.points if info.limits[0] <= p.score <= info.limits[1]]
    named = sorted((p for p in inside if p.front or p.baseline), key=lambda p: not p.front)
    for point in named[:NAMED]:
        at = (point.cost, info.factor * point.score)
        x, y = axes.transData.transform(at) * 72 / axes.figure.dpi
        wide = 0.62 * style.SMALL * len(point.label)
        for dx, dy in ((4, 4), (4, -11), (-4 - wide, 4), (-4 - wide, -11)):
            box = (x + dx, y + dy, x + dx + wide, y + dy + style.SMALL)
            if any(_overlap(box, other) for other in placed):
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
    axes: Axes, info: ParetoInfo, baseline: bool, marker: str, colour: str, label: str
) -> None:
    kept = [point for point in info.points if point.baseline == baseline]
    if not kept:
        return
    low, high = info.limits
    beyond = sum(not low <= point.score <= high for point in kept)
    dense = len(info.points) > 400
    axes.scatter(
        [point.cost for point in kept], [info.factor * point.score for point in kept],
        marker=marker, s=10 if dense else 26, color=colour, alpha=0.75, linewidths=0,
        rasterized=dense, label=f"{label} ({beyond} worse ones not shown)" if beyond else label,
    )  # fmt: skip
