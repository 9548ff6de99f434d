"""Samplers on tables: what is still to be gained by trial, and trials to reach the best."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from search.figures.style import BASELINE, INK, LINES, MUTED, SMALL, dress, new_figure

COLOURS = {"random": BASELINE, "tpe": LINES[1], "behaviour": LINES[0], "evolution": LINES[2]}
"""Of those that are most often compared; the others take what is left."""
OTHERS = (LINES[3], LINES[4], LINES[5], "#4b5563", "#be123c")


class Line(NamedTuple):
    """One sampler on one table."""

    sampler: str
    colour: str
    regret: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    reached: float
    """Median trial that first trained one of the top; inf when half of the searches never did."""
    reached_low: float
    reached_high: float


class Panel(NamedTuple):
    """One table."""

    title: str
    objective: str
    trials: int
    seeds: int
    lines: tuple[Line, ...]


def replay_info(text: str) -> tuple[Panel, ...]:
    """The panels of what `bench samplers replay` wrote."""
    contests = json.loads(text)["contests"]
    names = list(dict.fromkeys(row["sampler"] for c in contests for row in c["standings"]))
    left = iter(OTHERS * len(names))
    colours = {name: COLOURS.get(name) or next(left) for name in names}
    return tuple(_panel(contest, colours) for contest in contests)


def _panel(contest: dict[str, Any], colours: dict[str, str]) -> Panel:
    lines = []
    for row in contest["standings"]:
        value, low, high = (
            tuple(at[part] for at in row["regret"]) for part in ("value", "low", "high")
        )
        median = [_number(row["median"][part]) for part in ("value", "low", "high")]
        lines.append(Line(row["sampler"], colours[row["sampler"]], value, low, high, *median))
    title = f"{contest['table']}: {contest['functions']} functions"
    trials = contest["conditions"]["trials"]
    return Panel(title, contest["objective"], trials, contest["seeds"], tuple(lines))


def _number(value: float | None) -> float:
    return math.inf if value is None else value


def draw_replay(text: str) -> Figure:
    """A column a table: mean simple regret above, trials to the top 1 % below."""
    panels = replay_info(text)
    most = max(len(panel.lines) for panel in panels)
    below = 0.55 + 0.27 * most
    figure = new_figure(max(5.2, 4.4 * len(panels)), 3.4 + below)
    grid = figure.subplots(2, len(panels), squeeze=False, height_ratios=[3.4, below])
    for panel, regret, reached in zip(panels, *grid, strict=True):
        _draw_regret(regret, panel)
        _draw_reached(reached, panel)
    return figure


def _draw_regret(axes: Axes, panel: Panel) -> None:
    trials = range(1, panel.trials + 1)
    for line in panel.lines:
        axes.plot(trials, line.regret, color=line.colour, linewidth=1.5, label=line.sampler)
        axes.fill_between(trials, line.low, line.high, color=line.colour, alpha=0.15, linewidth=0)
    axes.set_yscale("log")
    axes.set_xlim(1, panel.trials)
    dress(axes, panel.title, x="trials", y=f"regret in {panel.objective}", grid="both")
    axes.legend(loc="upper right", frameon=False, fontsize=SMALL, labelcolor=INK, ncols=2)


def _draw_reached(axes: Axes, panel: Panel) -> None:
    for place, line in enumerate(panel.lines):
        low, value, high = (
            min(x, panel.trials) for x in (line.reached_low, line.reached, line.reached_high)
        )
        axes.plot([low, high], [place, place], color=line.colour, linewidth=2.5, alpha=0.5)
        axes.plot([value], [place], "o", color=line.colour, markersize=5)
        told = f"> {panel.trials}" if math.isinf(line.reached) else f"{line.reached:.0f}"
        axes.annotate(
            told,
            (high, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=MUTED,
        )
    axes.set_yticks(range(len(panel.lines)), [line.sampler for line in panel.lines])
    axes.set_ylim(len(panel.lines) - 0.4, -0.6)
    axes.set_xlim(0, None)
    axes.margins(x=0.12)
    dress(axes, "", x=f"trials to the top 1 %, median of {panel.seeds} searches, 95 %", grid="x")
