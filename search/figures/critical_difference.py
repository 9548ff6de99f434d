"""Average ranks over tasks, with a bar over what cannot be told apart (Demšar 2006, JMLR 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from search.figures import style
from search.figures.notation import p_text, short
from search.statistics.ranks import RankComparison

ROW = 0.26
"""Inches between two names, and between two bars."""


@dataclass(frozen=True, slots=True)
class CriticalDifferenceInfo:
    """Methods by average rank, best first, and the groups that do not differ."""

    ranks: tuple[tuple[str, float], ...]
    cliques: tuple[tuple[int, ...], ...]
    """Places in `ranks`."""
    tasks: int
    text: str
    """`Friedman χ² = 9.4, p = 0.025; 14 tasks, Wilcoxon tests with Holm over 6 pairs`."""


def critical_difference_info(found: RankComparison) -> CriticalDifferenceInfo | None:
    """None unless the tests were earned; `found.reason` says why not."""
    if found.reason:
        return None
    places = {name: place for place, (name, _) in enumerate(found.ranks)}
    omnibus = ""
    if found.friedman is not None:
        omnibus = f"Friedman χ² = {found.friedman.statistic:.2f}, {p_text(found.friedman.p)}; "
    pairs = f"{len(found.pairs)} {'pair' if len(found.pairs) == 1 else 'pairs'}"
    return CriticalDifferenceInfo(
        ranks=found.ranks,
        cliques=tuple(tuple(places[name] for name in clique) for clique in found.cliques),
        tasks=len(found.tasks),
        text=f"{omnibus}{len(found.tasks)} tasks, Wilcoxon tests with Holm over {pairs}",
    )


def draw_critical_difference(info: CriticalDifferenceInfo) -> Figure:
    """Ranks on a line, best at the left; a bar joins methods of which no two differ, dots on it
    name them where the bar passes over another."""
    methods, bars = len(info.ranks), len(info.cliques)
    left = math.ceil(methods / 2)
    height = 0.95 + ROW * (bars + left + 1)
    figure = style.new_figure(9.4, height)
    axes = figure.add_subplot()
    _dress(axes, info)
    axes.set_ylim((height - 0.95) / ROW, 0)
    for row, clique in enumerate(info.cliques):
        _draw_bar(axes, row + 1.0, [info.ranks[place][1] for place in clique])
    for place in range(methods):
        row = place if place < left else methods - 1 - place
        _draw_name(axes, info, place, bars + 1.2 + row, place < left)
    return figure


def _dress(axes: Axes, info: CriticalDifferenceInfo) -> None:
    methods = len(info.ranks)
    style.dress(axes, "", "", "", grid="none")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.spines["top"].set_color(style.INK)
    axes.spines["top"].set_bounds(1, methods)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(
        f"average rank (1 is best)     {info.text}", color=style.MUTED, fontsize=style.SMALL
    )
    axes.set_xticks(range(1, methods + 1))
    axes.set_yticks([])
    room = 0.42 * (methods - 1)
    axes.set_xlim(1 - room, methods + room)


def _draw_bar(axes: Axes, height: float, ranks: list[float]) -> None:
    axes.plot(
        [ranks[0] - 0.02, ranks[-1] + 0.02], [height] * 2, color=style.CANDIDATE, linewidth=3.2,
        solid_capstyle="butt", zorder=3,
    )  # fmt: skip
    axes.plot(ranks, [height] * len(ranks), "o", color=style.CANDIDATE, markersize=5.5, zorder=4)


def _draw_name(
    axes: Axes, info: CriticalDifferenceInfo, place: int, height: float, on_left: bool
) -> None:
    """A line from the axis down to the name's row, then out to the name."""
    name, rank = info.ranks[place]
    methods = len(info.ranks)
    room = 0.1 * (methods - 1)
    end = 1 - room if on_left else methods + room
    axes.plot([rank, rank, end], [0, height, height], color=style.MUTED, linewidth=0.9, zorder=1)
    first = f"{style.plain(short(name, 26))}  {rank:.2f}"
    second = f"{rank:.2f}  {style.plain(short(name, 26))}"
    axes.annotate(
        first if on_left else second, (end, height), (-5 if on_left else 5, 0),
        textcoords="offset points", ha="right" if on_left else "left", va="center",
        fontsize=style.TEXT, color=style.INK,
    )  # fmt: skip
