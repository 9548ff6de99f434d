"""Samplers on tables: what is still to be gained by trial, and trials to reach the best.

A table that was replayed with its baselines first, as a study has it, and without is one column:
its curves are those of the first, and below stand both.
"""

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


class Reached(NamedTuple):
    """Median trial that first trained one of the top; inf when half of the searches never did."""

    value: float
    low: float
    high: float


class Line(NamedTuple):
    """One sampler on one table."""

    sampler: str
    colour: str
    regret: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    reached: Reached
    without: Reached | None = None
    """Without baselines, where `reached` is with them."""


class Panel(NamedTuple):
    """One table."""

    title: str
    objective: str
    trials: int
    seeds: int
    lines: tuple[Line, ...]
    baselines: int = 0
    promotion: str = ""
    """What rungs spare; empty where nobody asked."""


def replay_info(text: str) -> tuple[Panel, ...]:
    """The panels of what `bench samplers replay` wrote: one a table."""
    contests = json.loads(text)["contests"]
    tables: dict[str, list[dict[str, Any]]] = {}
    for contest in sorted(contests, key=lambda c: not c["baselines"]):
        tables.setdefault(contest["table"], []).append(contest)
    names = list(dict.fromkeys(row["sampler"] for c in contests for row in c["standings"]))
    left = iter(OTHERS * len(names))
    colours = {name: COLOURS.get(name) or next(left) for name in names}
    order = dict.fromkeys(contest["table"] for contest in contests)
    return tuple(_panel(tables[table], colours) for table in order)


def _panel(contests: list[dict[str, Any]], colours: dict[str, str]) -> Panel:
    contest, *others = contests
    without = {row["sampler"]: _reached(row) for other in others for row in other["standings"]}
    lines = []
    for row in contest["standings"]:
        value, low, high = (
            tuple(at[part] for at in row["regret"]) for part in ("value", "low", "high")
        )
        name = row["sampler"]
        line = Line(name, colours[name], value, low, high, _reached(row), without.get(name))
        lines.append(line)
    return Panel(
        title=f"{contest['table']}: {contest['functions']} functions",
        objective=contest["objective"],
        trials=contest["conditions"]["trials"],
        seeds=contest["seeds"],
        lines=tuple(lines),
        baselines=len(contest["baselines"]),
        promotion=_promotion(contest["promotion"]),
    )


def _reached(row: dict[str, Any]) -> Reached:
    median = (row["median"][part] for part in ("value", "low", "high"))
    return Reached(*(math.inf if each is None else each for each in median))


def _promotion(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    if not found["rungs"]:
        return "too few checkpoints for rungs"
    share, lost = found["share"], found["lost"]
    return (
        f"rungs spare {share['value']:.0%} of the epochs ({share['low']:.0%} to"
        f" {share['high']:.0%}),\nregret {lost['value']:+.4f} ({lost['low']:+.4f} to"
        f" {lost['high']:+.4f})"
    )


def draw_replay(text: str) -> Figure:
    """A column a table: mean simple regret above, trials to the top 1 % below."""
    panels = replay_info(text)
    most = max(len(panel.lines) for panel in panels)
    below = 0.55 + (0.42 if any(line.without for p in panels for line in p.lines) else 0.27) * most
    below += 0.35 * any(panel.promotion for panel in panels)
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
    first = f", after {panel.baselines} baselines" if panel.baselines else ""
    dress(axes, panel.title, x=f"trials{first}", y=f"regret in {panel.objective}", grid="both")
    axes.legend(loc="upper right", frameon=False, fontsize=SMALL, labelcolor=INK, ncols=2)


def _draw_reached(axes: Axes, panel: Panel) -> None:
    for place, line in enumerate(panel.lines):
        apart = 0.2 if line.without else 0.0
        _mark(axes, place - apart, line.reached, line.colour, panel.trials, filled=True)
        if line.without:
            _mark(axes, place + apart, line.without, line.colour, panel.trials, filled=False)
    axes.set_yticks(range(len(panel.lines)), [line.sampler for line in panel.lines])
    axes.set_ylim(len(panel.lines) - 0.4, -0.6)
    axes.set_xlim(0, None)
    axes.margins(x=0.12)
    both = any(line.without for line in panel.lines)
    told = f"trials to the top 1 %, median of {panel.seeds} searches, 95 %"
    told += "\n(● baselines first, ○ without them)" if both else ""
    told += f"\n{panel.promotion}" if panel.promotion else ""
    dress(axes, "", x=told, grid="x")


def _mark(
    axes: Axes, place: float, reached: Reached, colour: str, most: int, *, filled: bool
) -> None:
    value, low, high = (min(each, most) for each in reached)
    axes.plot([low, high], [place, place], color=colour, linewidth=2.5, alpha=0.5)
    inside = colour if filled else "white"
    axes.plot([value], [place], "o", color=colour, markerfacecolor=inside, markersize=5)
    axes.annotate(
        f"> {most}" if math.isinf(reached.value) else f"{reached.value:.0f}",
        (high, place),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
        color=MUTED,
    )
