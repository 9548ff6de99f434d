"""Training curves at each activation's best rate: mean over seeds with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from search.figures import style
from search.figures.leaderboard import LeaderboardInfo, Row, leaderboard_info
from search.figures.notation import rate_text
from search.figures.settings import ReportSettings
from search.records import Point, Run, Trial
from search.statistics import mean, rate_key, standard_error

TOP = 4
"""Candidates drawn; baselines are drawn all, the best one dark."""
BAND = "band: ± standard error"


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity of one activation over the steps that all its seeds reached."""

    steps: tuple[int, ...]
    means: tuple[float, ...]
    errors: tuple[float, ...]
    """Standard errors; 0 for one seed."""


@dataclass(frozen=True, slots=True)
class Line:
    """The curves of one activation at its best rate."""

    label: str
    role: str
    """`candidate`, `best baseline` or `baseline`."""
    rate: float
    n: int
    score: Curve
    loss: Curve
    train_loss: Curve


@dataclass(frozen=True, slots=True)
class CurvesInfo:
    """Curves to draw, best first."""

    lines: tuple[Line, ...]
    metric: str
    factor: float
    """100 for percent."""
    maximize: bool


def curves_info(
    trials: Sequence[Trial], settings: ReportSettings, top: int = TOP
) -> CurvesInfo | None:
    """The `top` candidates and every baseline; None when no trial recorded two points."""
    board = leaderboard_info(trials, settings)
    shown = [*board.candidates()[:top], *board.baselines()]
    lines = tuple(line for row in shown if (line := _line(row, board)) is not None)
    if not lines:
        return None
    metric = settings.metric + (" (%)" if settings.percent else "")
    return CurvesInfo(lines, metric, settings.scale.factor, settings.maximize)


def _line(row: Row, board: LeaderboardInfo) -> Line | None:
    rate = row.trial.best_rate
    if rate is None:
        return None
    runs = [
        run
        for run in row.trial.runs
        if run.state == "complete" and rate_key(run.learning_rate) == rate_key(rate)
    ]
    score = mean_curve(runs, lambda point: point.score)
    if len(score.steps) < 2:
        return None
    is_best = (
        board.best_baseline is not None and row.trial.number == board.best_baseline.trial.number
    )
    role = (
        "candidate" if row.trial.origin == "search" else "best baseline" if is_best else "baseline"
    )
    return Line(
        label=row.label,
        role=role,
        rate=rate,
        n=len(runs),
        score=score,
        loss=mean_curve(runs, lambda point: point.loss),
        train_loss=mean_curve(runs, lambda point: point.train_loss),
    )


def mean_curve(runs: Sequence[Run], quantity: Callable[[Point], float]) -> Curve:
    """Mean and standard error over `runs` at every step that all of them recorded, if finite."""
    by_step: dict[int, list[float]] = {}
    for run in runs:
        for point in run.curve:
            by_step.setdefault(point.step, []).append(quantity(point))
    kept = {
        step: values
        for step, values in sorted(by_step.items())
        if len(values) == len(runs) and all(math.isfinite(value) for value in values)
    }
    return Curve(
        tuple(kept),
        tuple(mean(values) or 0.0 for values in kept.values()),
        tuple(standard_error(values) or 0.0 for values in kept.values()),
    )


def draw_curves(info: CurvesInfo) -> Figure:
    """Two panels: validation score, and validation loss with the training loss dotted."""
    figure = style.new_figure(10.2, 3.7)
    left, right = figure.subplots(1, 2)
    style.dress(left, style.plain(f"validation {info.metric}"), "step")
    style.dress(right, "loss: validation solid, training dotted", "step")
    colours = iter(style.LINES)
    for line in info.lines:
        look = _look(line.role, colours)
        _draw(left, line.score, info.factor, label=_label(line), **look)
        _draw(right, line.loss, 1.0, **look)
        if line.role != "baseline":
            _draw(right, line.train_loss, 1.0, **{**look, "linestyle": ":", "linewidth": 1.1})
    left.set_ylim(*_window([(line.score, info.factor) for line in info.lines]))
    _loss_axis(right, info)
    others = sum(line.role == "baseline" for line in info.lines)
    if others:
        left.plot([], [], label=f"other baselines ({others})", **_look("baseline", colours))
    handles, labels = left.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda index: not labels[index].startswith("#"))
    figure.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="outside right center",
        frameon=False, fontsize=style.SMALL, labelcolor=style.INK, alignment="left",
        title=f"at the best rate of each\n{BAND if max(line.n for line in info.lines) > 1 else ''}",
        title_fontsize=style.SMALL,
    )  # fmt: skip
    return figure


def _loss_axis(axes: Axes, info: CurvesInfo) -> None:
    """Logarithmic with plain numbers, if every loss allows it."""
    losses = [v for line in info.lines for v in (*line.loss.means, *line.train_loss.means)]
    if min(losses, default=0.0) <= 0:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if max(losses) < 1e3 * min(losses) else (1,))
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _label(line: Line) -> str:
    """Other baselines share one entry of the legend: matplotlib leaves out names with a _."""
    return (
        "_"
        if line.role == "baseline"
        else f"{style.plain(line.label)}  (rate {rate_text(line.rate)})"
    )


def _look(role: str, colours) -> dict:
    if role == "candidate":
        return {"color": next(colours), "linewidth": 1.6, "zorder": 4}
    if role == "best baseline":
        return {"color": style.INK, "linewidth": 1.6, "linestyle": "--", "zorder": 3}
    return {"color": "#aab0ba", "linewidth": 1.0, "zorder": 2}


def _draw(axes: Axes, curve: Curve, factor: float, label: str = "", **look) -> None:
    means = [factor * value for value in curve.means]
    errors = [factor * value for value in curve.errors]
    axes.plot(curve.steps, means, label=label or None, **look)
    if look["zorder"] > 2 and look.get("linestyle") != ":":
        low = [m - e for m, e in zip(means, errors, strict=True)]
        high = [m + e for m, e in zip(means, errors, strict=True)]
        axes.fill_between(curve.steps, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _window(curves: Sequence[tuple[Curve, float]]) -> tuple[float, float]:
    """Limits that hold the last three quarters of every curve: the first steps may leave."""
    seen = [
        factor * value
        for curve, factor in curves
        for step, value in zip(curve.steps, curve.means, strict=True)
        if step >= 0.25 * curve.steps[-1]
    ]
    room = 0.06 * (max(seen) - min(seen)) or 0.01 * abs(max(seen)) or 1.0
    return min(seen) - room, max(seen) + room
