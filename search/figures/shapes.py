"""Shapes of activations: f, its derivative and the gate f(x) / x, beside GELU and Swish."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from search.errors import ExpressionError, SearchError
from search.figures import style
from search.figures.formulas import fitted_formula
from search.figures.leaderboard import leaderboard_info
from search.figures.settings import ReportSettings
from search.language.catalog import CATALOG
from search.language.expression import Expression
from search.language.facts import functions
from search.language.parser import parse
from search.records import Trial

TOP = 8
REFERENCES = ("gelu", "silu")
REACH, POINTS = 4.0, 600
"""The grid has an even number of points, so that f(x) / x never meets x = 0."""
LIMITS = {"f": (-2.0, 5.0), "slope": (-1.0, 2.5), "gate": (-1.0, 2.5)}
"""No panel reaches farther: an exploding candidate must not flatten its neighbours."""
QUANTITIES = {"f": "f(x)", "slope": "f′(x)", "gate": "gate f(x) / x"}

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shape:
    """One activation on the grid, at its initial parameters; NaN where it is not finite."""

    label: str
    formula: str
    f: Values
    slope: Values
    gate: Values


@dataclass(frozen=True, slots=True)
class ShapeInfo:
    """An activation beside references."""

    x: Values
    shape: Shape
    references: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class ShapesInfo:
    """Several activations beside the same references."""

    x: Values
    shapes: tuple[Shape, ...]
    references: tuple[Shape, ...]


def grid() -> Values:
    """The inputs that every panel shows."""
    return np.linspace(-REACH, REACH, POINTS)


def shape(expression: Expression, label: str) -> Shape:
    """Values of f, f' and f / x on the grid; u is 1, statistics are those of N(0, 1)."""
    x = grid()
    value, derivative = functions(expression)
    f, slope = _finite(value(x)), _finite(derivative(x))
    return Shape(label, str(expression), f, slope, f / x)


def _finite(values: Values) -> Values:
    return np.where(np.isfinite(values), values, np.nan)


def references(names: Sequence[str] = REFERENCES) -> tuple[Shape, ...]:
    """Published activations to compare with."""
    return tuple(shape(CATALOG[name].expression, CATALOG[name].title) for name in names)


def shape_info(expression: Expression, names: Sequence[str] = REFERENCES) -> ShapeInfo:
    """One activation beside the published ones called `names`."""
    return ShapeInfo(grid(), shape(expression, "f"), references(names))


def shapes_info(
    trials: Sequence[Trial], settings: ReportSettings, top: int = TOP
) -> ShapesInfo | None:
    """The `top` candidates, or, in an ablation without candidates, the best baselines."""
    board = leaderboard_info(trials, settings)
    drawn = []
    for row in (board.candidates() or board.baselines())[:top]:
        try:
            drawn.append(shape(parse(row.trial.expression), row.label))
        except ExpressionError:  # written by a version of the language that is not this one
            continue
    return ShapesInfo(grid(), tuple(drawn), references()) if drawn else None


def draw_shape(info: ShapeInfo) -> Figure:
    """Three panels: f, f' and the gate."""
    figure = style.new_figure(10.2, 3.7)
    panels = figure.subplots(1, 3)
    for axes, (quantity, title) in zip(panels, QUANTITIES.items(), strict=True):
        limits = window((info.shape, *info.references), quantity)
        _draw_panel(axes, info.x, info.shape, info.references, quantity, limits)
        style.dress(axes, title, "x", grid="both")
    style.legend(panels[0], "upper left")
    formula = fitted_formula(info.shape.formula, 9.6 * 72, 12)
    figure.suptitle(
        formula, x=0.012, ha="left", color=style.INK, fontsize=12, math_fontfamily="stix"
    )
    return figure


def draw_shapes(info: ShapesInfo) -> Figure:
    """A column per activation: f above, f' below; four columns a band, one scale for all."""
    columns = min(4, max(3, len(info.shapes)))
    bands = math.ceil(len(info.shapes) / columns)
    figure = style.new_figure(2.55 * columns, 3.7 * bands + 0.25)
    axes = figure.subplots(2 * bands, columns, squeeze=False, sharex=True, sharey="row")
    drawn = (*info.shapes, *info.references)
    windows = {quantity: window(drawn, quantity) for quantity in ("f", "slope")}
    for place in range(bands * columns):
        band, column = divmod(place, columns)
        pair = axes[2 * band, column], axes[2 * band + 1, column]
        if place < len(info.shapes):
            _draw_column(pair, info, info.shapes[place], windows)
        else:
            pair[0].set_axis_off()
            pair[1].set_axis_off()
    for band in range(bands):
        axes[2 * band, 0].set_ylabel("f", fontsize=style.TEXT, color=style.MUTED)
        axes[2 * band + 1, 0].set_ylabel("f′", fontsize=style.TEXT, color=style.MUTED)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    labels[-1] = "the activation at its initial parameters"
    figure.legend(
        handles, labels, loc="outside upper right", ncols=3, frameon=False, fontsize=style.SMALL,
        labelcolor=style.INK,
    )  # fmt: skip
    return figure


def _draw_column(
    pair: tuple[Axes, Axes],
    info: ShapesInfo,
    drawn: Shape,
    windows: Mapping[str, tuple[float, float]],
) -> None:
    for axes, (quantity, limits) in zip(pair, windows.items(), strict=True):
        style.dress(axes, grid="both")
        _draw_panel(axes, info.x, drawn, info.references, quantity, limits)
    above = pair[0]
    above.set_title(
        style.plain(f"{drawn.label}\n"), loc="left", fontsize=9.5, fontweight="bold", pad=3
    )
    above.text(
        0, 1.03, fitted_formula(drawn.formula, 2.3 * 72, 8.5), transform=above.transAxes,
        fontsize=8.5, color=style.MUTED, va="bottom", math_fontfamily="stix",
    )  # fmt: skip


def _draw_panel(
    axes: Axes,
    x: Values,
    drawn: Shape,
    beside: Sequence[Shape],
    quantity: str,
    limits: tuple[float, float],
) -> None:
    for line, reference in zip(("-", "--"), beside, strict=False):
        axes.plot(
            x, getattr(reference, quantity), color="#9aa1ac", linestyle=line, linewidth=1.1,
            label=reference.label,
        )  # fmt: skip
    axes.plot(x, getattr(drawn, quantity), color=style.CANDIDATE, linewidth=1.9, label=drawn.label)
    axes.axhline(0, color=style.FAINT, linewidth=0.8, zorder=1)
    axes.axvline(0, color=style.FAINT, linewidth=0.8, zorder=1)
    axes.set(xlim=(-REACH, REACH), ylim=limits)


def window(shapes: Sequence[Shape], quantity: str) -> tuple[float, float]:
    """Limits that hold all `shapes`, inside `LIMITS`, with a little room."""
    values = np.concatenate([getattr(s, quantity) for s in shapes])
    values = np.clip(values[np.isfinite(values)], *LIMITS[quantity])
    room = 0.05 * float(np.ptp(values)) or 1.0
    return float(values.min()) - room, float(values.max()) + room


def draw_expression(expression: Expression, path: Path) -> None:
    """Write the picture of one activation to `path` (.png, .pdf, .svg).

    Raises:
        SearchError: the file cannot be written, or its ending names no picture format.
    """
    figure = draw_shape(shape_info(expression))
    try:
        figure.savefig(path, dpi=style.DOTS_PER_INCH)
    except (OSError, ValueError) as error:
        raise SearchError(f"{path}: cannot write the picture: {error}") from None
