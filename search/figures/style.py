"""One look for every figure: matplotlib Figure objects with explicit sizes, colours and type."""

from __future__ import annotations

import io
import warnings
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#20242c"
MUTED = "#6b7280"
FAINT = "#c3c8d0"
HAIRLINE = "#e6e8ec"
PAPER = "#ffffff"
CANDIDATE = "#2757c9"
BASELINE = "#6b7280"
BEST = "#0a8a45"
BAD = "#c2410c"
LINES = ("#2757c9", "#d9730d", "#0a8a45", "#b0309a", "#0891b2", "#a16207")
"""Colours of candidates' curves, told apart by people with any colour vision."""
SMALL, TEXT, TITLE = 8.0, 9.0, 10.5
"""Type sizes in points."""
DOTS_PER_INCH = 180


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches on white."""
    figure = Figure(figsize=(width, height), facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, title: str = "", x: str = "", y: str = "", grid: str = "y") -> None:
    """Plain axes: two spines, small ticks, a hairline grid along `grid` (x, y, both or none)."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=MUTED, labelsize=SMALL, length=3, width=0.8)
    axes.tick_params(which="minor", colors=MUTED, labelsize=SMALL, length=2, width=0.6)
    axes.set_axisbelow(True)
    if grid in ("x", "y", "both"):
        axes.grid(axis=grid, color=HAIRLINE, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_xlabel(x, color=MUTED, fontsize=TEXT)
    axes.set_ylabel(y, color=MUTED, fontsize=TEXT)
    axes.set_title(title, loc="left", color=INK, fontsize=TITLE, fontweight="bold", pad=8)


def legend(axes: Axes, place: Literal["upper left", "upper right", "lower right"]) -> None:
    """A frameless legend in small type."""
    axes.legend(loc=place, frameon=False, fontsize=SMALL, labelcolor=INK, handlelength=1.6)


def plain(text: str) -> str:
    """Text that matplotlib must not read as mathematics."""
    return text.replace("$", r"\$")


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG."""
    return _bytes(figure, "png")


def pdf_bytes(figure: Figure) -> bytes:
    """The figure as a PDF, without a date: the same study gives the same bytes."""
    return _bytes(figure, "pdf")


def _bytes(figure: Figure, kind: str) -> bytes:
    stream = io.BytesIO()
    dated = {"CreationDate": None} if kind == "pdf" else {"Software": None}
    with warnings.catch_warnings():
        # A user's names may use letters that the font lacks; a box in their place says enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(stream, format=kind, dpi=DOTS_PER_INCH, metadata=dated)
    return stream.getvalue()
