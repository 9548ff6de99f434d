"""Which choices of the grammar matter: the share of the scores' variance that each explains.

For a choice among alternatives this is the correlation ratio η² (between-group over total sum of
squares), for a number from a range Spearman's ρ². Each path is judged alone, over the scored
trials that took it: no interactions, and paths that a sampler exploits are seen mostly at their
good values. η² grows with the number of alternatives by chance, so the level that pure chance
would reach, (k - 1) / (n - 1), stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from search.figures import style
from search.figures.leaderboard import leaderboard_info
from search.figures.notation import short
from search.figures.settings import ReportSettings
from search.records import Trial
from search.statistics import correlation_ratio, squared_rank_correlation

TOP = 15
FEWEST_TRIALS, FEWEST_VALUES = 8, 2


@dataclass(frozen=True, slots=True)
class Importance:
    """One choice path."""

    path: str
    share: float
    """η² or ρ², in [0, 1]."""
    chance: float
    """Expected share of a choice that does not matter."""
    n: int
    """Scored trials that made this choice."""
    values: int
    """Distinct values among them."""
    continuous: bool


@dataclass(frozen=True, slots=True)
class ImportanceInfo:
    """Every judged path, the most important first."""

    paths: tuple[Importance, ...]


def importance_info(trials: Sequence[Trial], settings: ReportSettings) -> ImportanceInfo | None:
    """None when no path has two values and eight scored trials."""
    scored = [(row.trial.choices, row.score) for row in leaderboard_info(trials, settings).ranked]
    taken: dict[str, list[tuple[object, float]]] = {}
    for choices, score in scored:
        for path, value in choices.items():
            if score is not None:
                taken.setdefault(path, []).append((value, score))
    judged = [_importance(path, pairs) for path, pairs in taken.items()]
    found = [item for item in judged if item is not None]
    found.sort(key=lambda item: (-item.share, item.path))
    return ImportanceInfo(tuple(found)) if found else None


def _importance(path: str, pairs: Sequence[tuple[object, float]]) -> Importance | None:
    values = [value if isinstance(value, float) else repr(value) for value, _ in pairs]
    scores = [score for _, score in pairs]
    n, distinct = len(values), len(set(values))
    if n < FEWEST_TRIALS or distinct < FEWEST_VALUES:
        return None
    numbers = [value for value in values if isinstance(value, float)]
    if len(numbers) == n and distinct > max(5, n // 2):  # from a range: hardly a value comes twice
        return Importance(
            path, squared_rank_correlation(numbers, scores), 1 / (n - 1), n, distinct, True
        )
    chance = min(1.0, (distinct - 1) / (n - 1))
    return Importance(path, correlation_ratio(values, scores), chance, n, distinct, False)


def draw_importance(info: ImportanceInfo) -> Figure:
    """A bar per path; the tick on it is the level of chance."""
    shown = info.paths[:TOP]
    reach = min(1.25, max(0.25, 1.3 * max(max(item.share, item.chance) for item in shown)))
    figure = style.new_figure(9.4, 0.75 + 0.3 * len(shown))
    axes = figure.add_subplot()
    style.dress(axes, "", "share of the scores' variance explained by this choice alone", grid="x")
    for height, item in enumerate(shown):
        clear = item.share > item.chance
        axes.barh(height, item.share, 0.62, color=style.CANDIDATE if clear else "#b9c4dd")
        axes.plot([item.chance] * 2, [height - 0.4, height + 0.4], color=style.INK, linewidth=1.2)
        kind = "ρ²" if item.continuous else f"η², {item.values} values"
        axes.text(
            max(item.share, item.chance) + 0.012 * reach, height,
            f"{item.share:.2f}  ({kind}, n = {item.n})",
            va="center", fontsize=style.SMALL, color=style.MUTED,
        )  # fmt: skip
    axes.set_yticks(range(len(shown)), [style.plain(short(item.path, 40)) for item in shown])
    axes.set(xlim=(0, reach), ylim=(len(shown) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0, labelcolor=style.INK)
    axes.spines["left"].set_visible(False)
    return figure
