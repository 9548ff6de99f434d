"""Score against cost: which activations no other one beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

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
        limits=robust_range([point.score for point in points], settings.maximize, reach=5),
        metric=settings.metric + (" (%)" if settings.percent else ""),
        factor=settings.scale.factor,
        maximize=settings.maximize,
    )


def draw_pareto(info: ParetoInfo) -> Figure:
    """A scatter; the front joined by steps and named."""
    figure = style.new_figure(9.4, 3.9)
    axes = figure.add_subplot()
    style.dress(
        axes,
        "",
        "time of a training step relative to ReLU",
        style.plain(f"validation {info.metric}"),
    )
    low, high = (info.factor * limit for limit in info.limits)
    room = 0.08 * (high - low) or 0.01 * abs(high) or 1.0
    axes.set_ylim(low - room, high + room)
    _draw_points(axes, info, True, "s", style.BASELINE, "baselines")
    _draw_points(axes, info, False, "o", style.CANDIDATE, "candidates")
    front = [p for p in info.points if p.front]
    axes.step(
        [p.cost for p in front], [info.factor * p.score for p in front], where="post",
        color=style.BEST, linewidth=1.4, zorder=2, label="no other is better in both",
    )  # fmt: skip
    for place, point in enumerate([p for p in info.points if p.front or p.baseline][:NAMED]):
        axes.annotate(
            style.plain(point.label), (point.cost, info.factor * point.score),
            (4, 5 if place % 2 == 0 else -11), textcoords="offset points",
            fontsize=style.SMALL, color=style.BEST if point.front else style.MUTED,
            fontweight="bold" if point.front else "normal",
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
    style.legend(axes, "lower right" if info.maximize else "upper right")
    return figure


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
