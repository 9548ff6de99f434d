"""The sampler's progress: every trial's score by number, and the best so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from search.figures import style
from search.figures.leaderboard import leaderboard_info
from search.figures.settings import ReportSettings
from search.records import Trial
from search.statistics import robust_range

UNSCORED = {
    "rejected": style.MUTED,
    "duplicate": style.MUTED,
    "pruned": "#a16207",
    "diverged": style.BAD,
    "failed": style.BAD,
}
"""Colours of the trials without a score."""


@dataclass(frozen=True, slots=True)
class ProgressInfo:
    """Scores by trial number."""

    candidates: tuple[tuple[int, float], ...]
    baselines: tuple[tuple[int, float], ...]
    best_so_far: tuple[tuple[int, float], ...]
    """A candidate's number and the best candidate's score once it had finished."""
    reference: tuple[str, float] | None
    """The best baseline's label and score."""
    unscored: dict[str, tuple[int, ...]]
    """Numbers of trials without a score, by state."""
    first: int
    last: int
    limits: tuple[float, float]
    metric: str
    factor: float
    maximize: bool


def progress_info(trials: Sequence[Trial], settings: ReportSettings) -> ProgressInfo | None:
    """None before the first score of a candidate."""
    board = leaderboard_info(trials, settings)
    if not board.candidates():
        return None
    candidates = _by_number(board.candidates())
    baselines = _by_number(board.baselines())
    best = board.best_baseline
    return ProgressInfo(
        candidates=candidates,
        baselines=baselines,
        best_so_far=best_so_far(candidates, settings.maximize),
        reference=None if best is None or best.score is None else (best.label, best.score),
        unscored={
            state: numbers
            for state in UNSCORED
            if (numbers := tuple(trial.number for trial in trials if trial.state == state))
        },
        first=min(trial.number for trial in trials),
        last=max(trial.number for trial in trials),
        limits=robust_range([s for _, s in (*candidates, *baselines)], settings.maximize, reach=3),
        metric=settings.metric + (" (%)" if settings.percent else ""),
        factor=settings.scale.factor,
        maximize=settings.maximize,
    )


def _by_number(rows) -> tuple[tuple[int, float], ...]:
    return tuple(sorted((row.trial.number, row.score) for row in rows))


def best_so_far(
    points: Sequence[tuple[int, float]], maximize: bool
) -> tuple[tuple[int, float], ...]:
    """The running best of (number, score), in order of number."""
    better = max if maximize else min
    best: list[tuple[int, float]] = []
    for number, score in points:
        best.append((number, better(score, best[-1][1]) if best else score))
    return tuple(best)


def draw_progress(info: ProgressInfo) -> Figure:
    """Scores above with the best so far as steps; below, the trials that have no score."""
    states = list(info.unscored)
    figure = style.new_figure(9.4, 3.6 + 0.2 * len(states))
    if states:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.0, 0.2 * len(states)])
        _draw_unscored(below, info)
    else:
        axes, below = figure.add_subplot(), None
    style.dress(axes, "", "" if below else "trial", style.plain(f"validation {info.metric}"))
    dense = len(info.candidates) > 400
    _points(axes, info.baselines, info, "s", style.BASELINE, "baselines", dense)
    _points(axes, info.candidates, info, "o", style.CANDIDATE, "candidates", dense)
    _draw_best(axes, info)
    low, high = (info.factor * limit for limit in info.limits)
    room = 0.06 * (high - low) or 0.01 * abs(high) or 1.0
    edge = 0.5 + 0.02 * (info.last - info.first)
    axes.set(ylim=(low - room, high + room), xlim=(info.first - edge, info.last + edge))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Baselines that the grammar cannot express have negative numbers, which say nothing.
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:.0f}" if n >= 0 else ""))
    figure.legend(
        loc="outside lower left", ncols=5, frameon=False, fontsize=style.SMALL,
        labelcolor=style.INK, columnspacing=1.4,
    )  # fmt: skip
    return figure


def _draw_best(axes: Axes, info: ProgressInfo) -> None:
    if info.best_so_far:
        numbers, scores = zip(*info.best_so_far, strict=True)
        axes.step(
            (*numbers, info.last), [info.factor * s for s in (*scores, scores[-1])], where="post",
            color=style.CANDIDATE, linewidth=1.6, label="best candidate so far",
        )  # fmt: skip
    if info.reference is not None:
        label, score = info.reference
        axes.axhline(
            info.factor * score, color=style.INK, linewidth=1.1, linestyle="--",
            label=style.plain(f"best baseline: {label}"),
        )  # fmt: skip


def _draw_unscored(axes: Axes, info: ProgressInfo) -> None:
    style.dress(axes, "", "trial", "", grid="")
    for height, (state, numbers) in enumerate(info.unscored.items()):
        axes.scatter(
            numbers, [height] * len(numbers), marker="|", s=34, color=UNSCORED[state],
            linewidths=1.3, rasterized=len(numbers) > 400,
        )  # fmt: skip
    labels = [f"{state} ({len(numbers)})" for state, numbers in info.unscored.items()]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _points(
    axes: Axes,
    points: Sequence[tuple[int, float]],
    info: ProgressInfo,
    marker: str,
    colour: str,
    label: str,
    dense: bool,
) -> None:
    """Scores beyond the limits stand on the limit, hollow."""
    if not points:
        return
    low, high = info.limits
    inside = [(n, s) for n, s in points if low <= s <= high]
    beyond = [(n, min(max(s, low), high)) for n, s in points if not low <= s <= high]
    look = {"s": 10 if dense else 24, "rasterized": dense, "zorder": 3}
    axes.scatter(
        [n for n, _ in inside], [info.factor * s for _, s in inside], marker=marker, color=colour,
        alpha=0.75, linewidths=0, label=label, **look,
    )  # fmt: skip
    if beyond:
        axes.scatter(
            [n for n, _ in beyond], [info.factor * s for _, s in beyond], marker=marker,
            facecolors="none", edgecolors=colour, linewidths=0.9, label=f"{label}, beyond the axis",
            **look,
        )  # fmt: skip
