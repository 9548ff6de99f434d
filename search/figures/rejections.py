"""Why candidates have no score: rejected by a gate, duplicates, pruned, diverged, failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from search.figures import style
from search.figures.notation import short
from search.figures.settings import ReportSettings
from search.records import Trial

COLOURS = {
    "rejected": "#8b93a1",
    "duplicate": "#b9c0cb",
    "pruned": "#d3a545",
    "diverged": "#d9683c",
    "failed": "#a3231f",
}
TOP = 14


@dataclass(frozen=True, slots=True)
class Rejection:
    """Trials without a score that share a state and a kind of reason."""

    state: str
    kind: str
    """The gate of a rejection, the error of a failure, else empty."""
    count: int
    example: str
    """The reason of the first of them in full."""

    @property
    def label(self) -> str:
        """`rejected: bounded`."""
        return f"{self.state}: {self.kind}" if self.kind else self.state


@dataclass(frozen=True, slots=True)
class RejectionsInfo:
    """Counts by reason, the most frequent first."""

    reasons: tuple[Rejection, ...]
    proposed: int
    """All trials of the search, baselines left out."""
    duplicates: int


def rejections_info(trials: Sequence[Trial], settings: ReportSettings) -> RejectionsInfo | None:
    """None when every trial has a score or is still running."""
    del settings
    lost = [trial for trial in trials if trial.state in COLOURS]
    if not lost:
        return None
    counts = Counter((trial.state, reason_kind(trial)) for trial in lost)
    examples: dict[tuple[str, str], str] = {}
    for trial in lost:
        examples.setdefault((trial.state, reason_kind(trial)), trial.reason)
    return RejectionsInfo(
        reasons=tuple(
            Rejection(state, kind, count, examples[state, kind])
            for (state, kind), count in counts.most_common()
        ),
        proposed=sum(trial.origin == "search" for trial in trials),
        duplicates=sum(trial.state == "duplicate" for trial in lost),
    )


def reason_kind(trial: Trial) -> str:
    """The gate that rejected (`bounded: f(1e4) is inf` → `bounded`) or the kind of error."""
    if trial.state not in ("rejected", "failed") or not trial.reason.strip():
        return ""
    return short(trial.reason.strip().splitlines()[0].split(":")[0], 40)


def draw_rejections(info: RejectionsInfo) -> Figure:
    """A bar per reason."""
    shown = info.reasons[:TOP]
    figure = style.new_figure(9.4, 0.7 + 0.3 * len(shown))
    axes = figure.add_subplot()
    style.dress(axes, "", "trials", grid="x")
    for height, reason in enumerate(shown):
        axes.barh(height, reason.count, 0.62, color=COLOURS[reason.state])
        axes.text(
            reason.count, height, f" {reason.count:,}", va="center", fontsize=style.SMALL,
            color=style.MUTED,
        )  # fmt: skip
    axes.set_yticks(range(len(shown)), [style.plain(reason.label) for reason in shown])
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlim=(0, 1.08 * shown[0].count))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(axis="y", length=0, labelcolor=style.INK)
    axes.spines["left"].set_visible(False)
    return figure
