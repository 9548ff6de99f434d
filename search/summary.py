"""What a search prints when it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.figures.finals import finals_info, statements
from search.figures.leaderboard import leaderboard_info
from search.figures.notation import rate_text
from search.figures.settings import ReportSettings
from search.figures.tables import fresh_cell
from search.promotion import spared_by_promotion
from search.records import Trial
from search.statistics import spared_share, time_in_activations

TOP = 10


def print_summary(
    console: Console, trials: Sequence[Trial], settings: ReportSettings, page: Path
) -> None:
    """The top of the leaderboard, what was not trained and why, and where the report lies."""
    board = leaderboard_info(trials, settings)
    finals = finals_info(board, settings)
    table = Table(title=f"{settings.name}: {settings.metric}, mean over seeds at the best rate")
    fresh = () if finals is None else ("fresh", "n")
    for name in ("#", *fresh, "score" if finals is None else "search", "n", "rate", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    # The formula gives way on a narrow terminal: the other columns take at most 54 characters.
    width = max(20, console.width - (54 if finals is None else 76))
    table.add_column("activation", no_wrap=True, overflow="ellipsis", max_width=width)
    best = board.best_baseline
    shown = board.ranked[:TOP]
    for row in shown if best is None or best in shown else (*shown, best):
        cost = "–" if row.trial.cost is None else f"{row.trial.cost:.2f}"
        rate = "–" if row.trial.best_rate is None else rate_text(row.trial.best_rate)
        score = settings.scale.pair(row.score, row.standard_error)
        what = Text(f"{row.label}  ", style="bold" if row.trial.name else "")
        what.append(row.trial.expression, style="")
        what.overflow = "ellipsis"
        edge = " at edge" if row.edge else ""
        again = (fresh_cell(row, settings.scale), str(row.final.n) if row.final else "–")
        cells = (*(again if fresh else ()), score, str(row.n), rate + edge, cost)
        table.add_row(str(row.rank), *cells, what)
    console.print(table)
    for text in statements(finals, settings) if finals else ():
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    for text in notes(trials):
        console.print(text, markup=False, highlight=False)
    console.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)


def notes(trials: Sequence[Trial]) -> list[str]:
    """Duplicates, rejections by gate, what else has no score, the steps that halving spared, and
    the activations' share of time.

    >>> notes([])
    []
    """
    search = [trial for trial in trials if trial.origin == "search"]
    states = Counter(trial.state for trial in search)
    told = []
    if states["duplicate"]:
        share = states["duplicate"] / len(search)
        told.append(f"duplicates: {states['duplicate']} of {len(search)} proposals ({share:.0%})")
    gates = Counter(t.reason.partition(":")[0] for t in search if t.state == "rejected")
    if gates:
        by = ", ".join(f"{number} by {gate}" for gate, number in gates.most_common())
        told.append(f"rejected: {states['rejected']} ({by})")
    for state in ("diverged", "pruned", "failed"):
        if states[state]:
            told.append(f"{state}: {states[state]}")
    if spared := spared_share(trials):
        told.append(f"halving spared {spared:.0%} of the steps")
    if spared := spared_by_promotion(trials):
        told.append(f"rungs spared {spared:.0%} of the steps")
    if shares := time_in_activations(trials):
        own, composed = shares
        told.append(
            f"{own:.0%} of a training step in activations, {composed:.0%} as composed torch"
        )
    return told
