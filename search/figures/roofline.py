"""How near each kernel comes to moving its bytes as fast as a copy does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from search.benchmarks.measured import COMPILED, COPY, DIRECTIONS, OURS, Measurement
from search.figures import style

MARKS = {
    OURS: ("o", style.CANDIDATE, 34, "ours"),
    COMPILED: ("D", "#b0309a", 18, "torch.compile"),
    "native": ("s", style.BEST, 20, "torch's operator"),
    "eager": ("^", "#d9730d", 20, "composed, eager"),
}
"""Marker, colour, size and name of every contestant."""


@dataclass(frozen=True, slots=True)
class RooflineRow:
    """One formula: bytes per second of every contestant as a share of the copy's."""

    label: str
    rate: float
    """Of ours, in GB/s."""
    shares: dict[str, float]
    """By contestant, medians of the rounds; ours is always there."""


@dataclass(frozen=True, slots=True)
class RooflinePanel:
    """One dtype and direction, rows in the picture's order; None where one did not run."""

    dtype: str
    direction: str
    copy_rate: float
    """GB/s: the roof, the median over the panel's copies."""
    rows: tuple[RooflineRow | None, ...]


class RooflineInfo(NamedTuple):
    """Panels side by side, all with the same formulas, the nearest to the roof on top."""

    elements: int
    labels: tuple[str, ...]
    panels: tuple[RooflinePanel, ...]


def roofline_info(measurements: Sequence[Measurement]) -> RooflineInfo | None:
    """Of the largest size; None where no case has both ours and the copy."""
    usable = [m for m in measurements if m.ratio(COPY) is not None]
    if not usable:
        return None
    elements = max(m.elements for m in usable)
    usable = [m for m in usable if m.elements == elements]
    rows = {(m.name, m.dtype, m.direction): _row(m) for m in usable}
    labels = _ordered(rows)
    dtypes = dict.fromkeys(m.dtype for m in usable)
    panels = [
        RooflinePanel(dtype, direction, _copy_rate(usable, dtype, direction), tuple(column))
        for dtype in dtypes
        for direction in DIRECTIONS
        if any(column := [rows.get((label, dtype, direction)) for label in labels])
    ]
    return RooflineInfo(elements, labels, tuple(panels))


def _row(measured: Measurement) -> RooflineRow:
    """A share of the copy's rate is the copy's time over the contestant's, round by round."""
    to_copy = measured.ratio(COPY)
    ours = measured.rate(OURS)
    assert to_copy is not None and ours is not None
    shares = {OURS: 1 / to_copy.median}
    for peer in MARKS:
        ratio = measured.ratio(peer) if peer != OURS else None
        if ratio is not None:
            shares[peer] = ratio.median / to_copy.median
    return RooflineRow(measured.name, ours, shares)


def _ordered(rows: dict[tuple[str, str, str], RooflineRow]) -> tuple[str, ...]:
    """Formulas by the least share that ours has in any panel, the largest first."""
    least: dict[str, float] = {}
    for (name, _, _), row in rows.items():
        least[name] = min(row.shares[OURS], least.get(name, row.shares[OURS]))
    return tuple(sorted(least, key=lambda name: (-least[name], name)))


def _copy_rate(measurements: Sequence[Measurement], dtype: str, direction: str) -> float:
    here = [m for m in measurements if (m.dtype, m.direction) == (dtype, direction)]
    rates = sorted(rate for m in here if (rate := m.rate(COPY)) is not None)
    return rates[len(rates) // 2]


def draw_roofline(info: RooflineInfo) -> Figure:
    """Points on a logarithmic axis, a column a dtype and direction; the roof is the line at 1."""
    columns = len(info.panels)
    figure = style.new_figure(max(7.0, 1.9 + 3.1 * columns), 1.8 + 0.21 * len(info.labels))
    grid = figure.subplots(1, columns, sharey=True, sharex=True, squeeze=False)
    for axes, panel in zip(grid[0], info.panels, strict=True):
        _draw_panel(axes, panel, info)
    figure.suptitle(
        f"Bytes per second against a copy, {info.elements:,} elements", x=0.01, ha="left",
        color=style.INK, fontsize=style.TITLE, fontweight="bold",
    )  # fmt: skip
    handles, names = _legend(grid[0])
    figure.legend(
        handles, names, loc="outside lower left", ncols=len(names), frameon=False,
        fontsize=style.SMALL, labelcolor=style.INK, columnspacing=1.4,
    )  # fmt: skip
    return figure


def _draw_panel(axes: Axes, panel: RooflinePanel, info: RooflineInfo) -> None:
    title = f"{panel.direction}, {panel.dtype}"
    style.dress(axes, "", f"{title}: share of {panel.copy_rate:.3g} GB/s", grid="both")
    axes.axvline(1.0, color=style.INK, linewidth=1.0, zorder=1)
    for contestant, (marker, colour, size, label) in reversed(MARKS.items()):
        points = [
            (row.shares[contestant], place)
            for place, row in enumerate(panel.rows)
            if row is not None and contestant in row.shares
        ]
        if points:
            shares, places = zip(*points, strict=True)
            axes.scatter(
                shares, places, marker=marker, s=size, color=colour, linewidths=0,
                label=label, zorder=3 if contestant == OURS else 2,
            )  # fmt: skip
    axes.set_yticks(range(len(info.labels)), [style.plain(_short(name)) for name in info.labels])
    axes.set_ylim(len(info.labels) - 0.4, -0.6)
    _share_axis(axes, info)


def _short(label: str) -> str:
    return label if len(label) <= 28 else f"{label[:27]}…"


def _share_axis(axes: Axes, info: RooflineInfo) -> None:
    """Decades alone where the shares span so many that the numbers between would touch."""
    rows = [row for panel in info.panels for row in panel.rows if row is not None]
    shares = [1.0, *(share for row in rows for share in row.shares.values())]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if max(shares) < 60 * min(shares) else (1,))
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _legend(panels: Sequence[Axes]) -> tuple[list, list[str]]:
    """Everybody who is in some panel, once, ours first."""
    found = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    names = [label for *_, label in MARKS.values() if label in found]
    return [found[name] for name in names], names
