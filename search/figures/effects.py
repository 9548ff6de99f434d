"""How much better each candidate is than one baseline, with intervals: what may be claimed."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from search.figures import style
from search.figures.conclusions import gain_scale
from search.figures.notation import Scale, p_text, short
from search.figures.settings import ReportSettings
from search.statistics.comparison import Claim, Comparison, Effect

TOP = 30
COLOURS: dict[Claim, str] = {
    "better": style.BEST,
    "worse": style.BAD,
    "undecided": style.MUTED,
    "untested": style.MUTED,
}


@dataclass(frozen=True, slots=True)
class EffectRow:
    """One candidate; a row without a mean says why."""

    label: str
    claim: Claim
    mean: float | None
    low: float | None
    high: float | None
    text: str
    """`+0.40 ± 0.10, p = 0.0039, n = 10`, or the reason why nothing is known."""


@dataclass(frozen=True, slots=True)
class EffectsInfo:
    """Rows in the units of the scores, the best mean first, those without one last."""

    baseline: str
    rows: tuple[EffectRow, ...]
    hidden: int
    family: int
    metric: str
    scale: Scale


def effects_info(found: Comparison, settings: ReportSettings, top: int = TOP) -> EffectsInfo | None:
    """None without a candidate."""
    if not found.effects:
        return None
    scale = gain_scale(found, settings.scale)
    ordered = sorted(found.effects, key=lambda e: (e.mean is None, -(e.mean or 0.0)))
    return EffectsInfo(
        baseline=found.baseline,
        rows=tuple(_row(effect, scale) for effect in ordered[:top]),
        hidden=max(0, len(ordered) - top),
        family=found.family,
        metric=settings.metric + (" (points)" if settings.percent else ""),
        scale=scale,
    )


def _row(effect: Effect, scale: Scale) -> EffectRow:
    if effect.mean is None:
        text = short(effect.reason, 56)
    else:
        seen = scale.pair(effect.mean, effect.standard_error, sign=True)
        p = "" if effect.adjusted_p is None else f", {p_text(effect.adjusted_p)}"
        text = f"{seen}{p}, n = {effect.n}"
        if effect.pairs.diverged:
            text += f", {len(effect.pairs.diverged)} diverged"
    low, high = effect.interval.low, effect.interval.high
    return EffectRow(effect.label, effect.claim, effect.mean, low, high, text)


def draw_effects(info: EffectsInfo) -> Figure:
    """A point and its interval a row, filled where the difference is claimed."""
    height = 1.25 + 0.3 * len(info.rows)
    figure = style.new_figure(9.4, height)
    axes = figure.add_subplot()
    after = f", after Holm over {info.family}" if info.family > 1 else ""
    style.dress(
        axes,
        "",
        style.plain(f"better than {info.baseline} by: {info.metric}, mean per seed"),
        grid="x",
    )
    axes.axvline(0, color=style.INK, linewidth=1.0, zorder=1)
    for place, row in enumerate(info.rows):
        _draw_row(axes, place, row, info.scale.factor)
    axes.set_yticks(range(len(info.rows)), [style.plain(short(row.label, 28)) for row in info.rows])
    for label, row in zip(axes.get_yticklabels(), info.rows, strict=True):
        label.set_color(COLOURS[row.claim])
        label.set_fontweight("bold" if row.claim in ("better", "worse") else "normal")
    axes.set_xlim(*_limits(info))
    axes.set_ylim(len(info.rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    _draw_legend(axes, figure, after)
    return figure


def _limits(info: EffectsInfo) -> tuple[float, float]:
    """Every mean and interval with 0, and a margin."""
    ends = [end for row in info.rows for end in (row.mean, row.low, row.high) if end is not None]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    room = 0.06 * (high - low) or 1.0
    return info.scale.factor * (low - room), info.scale.factor * (high + room)


def _draw_row(axes: Axes, place: int, row: EffectRow, factor: float) -> None:
    colour = COLOURS[row.claim]
    if row.low is not None and row.high is not None:
        axes.plot([factor * row.low, factor * row.high], [place] * 2, color=colour, linewidth=2.2)
    if row.mean is not None:
        filled = colour if row.claim in ("better", "worse") else style.PAPER
        axes.plot(
            factor * row.mean, place, marker="o", markersize=6.5, color=colour,
            markerfacecolor=filled, markeredgewidth=1.4, zorder=3,
        )  # fmt: skip
    axes.annotate(
        style.plain(row.text), (1, place), (8, 0), xycoords=axes.get_yaxis_transform(),
        textcoords="offset points", va="center", fontsize=style.SMALL,
        color=style.INK if row.mean is not None else style.MUTED,
    )  # fmt: skip


def _draw_legend(axes: Axes, figure: Figure, after: str) -> None:
    marks = (
        (f"better{after}", style.BEST, style.BEST),
        (f"worse{after}", style.BAD, style.BAD),
        ("not distinguishable", style.MUTED, style.PAPER),
    )
    for name, colour, face in marks:
        axes.plot([], [], "o-", color=colour, markerfacecolor=face, linewidth=2.2, label=name)
    figure.legend(
        loc="outside lower left", ncols=3, frameon=False, fontsize=style.SMALL,
        labelcolor=style.INK, columnspacing=1.4,
    )  # fmt: skip
