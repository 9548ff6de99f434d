"""Sweeps side by side: model-steps per second of each way, by case and number of runs."""

from __future__ import annotations

import json
import statistics
from typing import NamedTuple

from matplotlib.figure import Figure

from search.figures.style import BASELINE, BEST, CANDIDATE, INK, SMALL, dress, new_figure

COLOURS = {"loop": BASELINE, "processes": CANDIDATE, "batched": BEST, "both": INK}
WORDS = {
    "loop": "plain loop",
    "processes": "two processes",
    "batched": "one program",
    "both": "one program in each of two processes",
}
"""What is drawn; the table has more."""


class SweepsInfo(NamedTuple):
    """Bars by group; a group is a case with a number of runs."""

    groups: tuple[str, ...]
    ratios: dict[str, tuple[float, ...]]
    """Median ratio to the plain loop of the same round, by way."""
    ranges: dict[str, tuple[tuple[float, float], ...]]
    """Least and most of the ratio."""
    rounds: int


def sweeps_info(text: str) -> SweepsInfo:
    """What `python -m search.bench sweeps --save` wrote."""
    rows = json.loads(text)["sweeps"]
    loops = {(row["case"], row["runs"]): row["speeds"] for row in rows if row["way"] == "loop"}
    drawn = [way for way in COLOURS if any(row["way"] == way for row in rows)]
    ratios: dict[str, tuple[float, ...]] = {way: () for way in drawn}
    ranges: dict[str, tuple[tuple[float, float], ...]] = {way: () for way in drawn}
    for row in rows:
        if row["way"] not in drawn:
            continue
        loop = loops[row["case"], row["runs"]]
        found = [a / b for a, b in zip(row["speeds"], loop, strict=True)]
        ratios[row["way"]] += (statistics.median(found),)
        ranges[row["way"]] += ((min(found), max(found)),)
    groups = tuple(f"{case}, {runs} runs" for case, runs in loops)
    return SweepsInfo(groups, ratios, ranges, len(next(iter(loops.values()), [])))


def draw_sweeps(text: str) -> Figure:
    """Horizontal bars: how many times as fast as the plain loop beside it."""
    info = sweeps_info(text)
    figure = new_figure(7.0, 1.1 + 0.75 * len(info.groups))
    axes = figure.subplots()
    height = 0.78 / len(info.ratios)
    for place, way in enumerate(info.ratios):
        for group, ratio in enumerate(info.ratios[way]):
            y = group + (place - (len(info.ratios) - 1) / 2) * height
            low, high = info.ranges[way][group]
            label = WORDS[way] if group == 0 else None
            axes.barh(y, ratio, height * 0.9, color=COLOURS[way], label=label)
            axes.plot([low, high], [y, y], color=INK, linewidth=0.8)
            axes.text(
                max(high, ratio), y, f"  {ratio:.2f}×", va="center", fontsize=SMALL, color=INK
            )
    axes.set_yticks(range(len(info.groups)), info.groups)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    unit = f"model-steps per second against the plain loop, median and range of {info.rounds}"
    dress(axes, "A sweep in one program", x=unit, grid="x")
    place, style = "outside lower right", {"fontsize": SMALL, "labelcolor": INK}
    figure.legend(loc=place, ncols=len(info.ratios), frameon=False, **style)
    return figure
