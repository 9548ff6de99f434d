"""The leaderboard as files, and the text of its cells."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from search.figures.formulas import latex_of
from search.figures.leaderboard import LeaderboardInfo, Row
from search.figures.notation import Scale, rate_text
from search.figures.settings import ReportSettings
from search.records import Trial

COLUMNS: dict[str, Callable[[Row], Any]] = {
    "rank": lambda row: row.rank,
    "number": lambda row: row.trial.number,
    "name": lambda row: row.trial.name,
    "origin": lambda row: row.trial.origin,
    "state": lambda row: row.trial.state,
    "score": lambda row: row.score,
    "standard_error": lambda row: row.standard_error,
    "n": lambda row: row.n,
    "best_rate": lambda row: row.trial.best_rate,
    "edge": lambda row: row.edge,
    "default_score": lambda row: row.at_default.mean if row.at_default else None,
    "default_standard_error": lambda row: row.at_default.standard_error if row.at_default else None,
    "default_n": lambda row: row.at_default.n if row.at_default else None,
    "rates_within_1_percent": lambda row: range_text(row, "..") or None,
    "difference": lambda row: row.difference.mean if row.difference else None,
    "difference_standard_error": lambda row: (
        row.difference.standard_error if row.difference else None
    ),
    "difference_pairs": lambda row: row.difference.n if row.difference else None,
    "activation_parameters": lambda row: row.trial.parameters,
    "relative_step_time": lambda row: row.trial.cost,
    "activation_share": lambda row: row.trial.share,
    "activation_share_composed": lambda row: row.trial.composed_share,
    "runs": lambda row: row.runs,
    "diverged_runs": lambda row: row.diverged,
    "seconds": lambda row: row.trial.seconds,
    "fingerprint": lambda row: row.trial.fingerprint,
    "formula": lambda row: row.trial.expression,
    "latex": lambda row: latex_of(row.trial.expression),
    "reason": lambda row: row.trial.reason,
}
"""The columns of leaderboard.csv: plain numbers in full precision, empty where there is none."""


def range_text(row: Row, between: str = "–") -> str:
    """The rates within 1 % of the best: `0.003–0.03`, one rate alone, or nothing."""
    if row.tolerant is None:
        return ""
    low, high = (rate_text(rate) for rate in row.tolerant)
    return low if low == high else f"{low}{between}{high}"


def leaderboard_csv(info: LeaderboardInfo) -> str:
    """Every trained trial as CSV, ranked ones first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in (*info.ranked, *info.unranked):
        writer.writerow(["" if (v := cell(row)) is None else v for cell in COLUMNS.values()])
    return text.getvalue()


def leaderboard_markdown(info: LeaderboardInfo, settings: ReportSettings) -> str:
    """Every trained trial as a Markdown table, for a README or an issue."""
    scale = settings.scale.fitted(row.score for row in info.ranked)
    columns = markdown_columns(scale)
    lines = [
        f"# {_escaped(settings.name)}: leaderboard",
        "",
        f"{settings.metric}{' in %' if settings.percent else ''} on the validation split, "
        f"{'higher' if settings.maximize else 'lower'} is better; mean ± standard error over seeds "
        "at the best learning rate. Search scores: not re-tested on fresh seeds.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "|".join(" --- " for _ in columns) + "|",
    ]
    for row in (*info.ranked, *info.unranked):
        lines.append("| " + " | ".join(_escaped(cell(row)) for cell in columns.values()) + " |")
    for state, count in Counter(trial.state for trial in info.untrained).items():
        lines += ["", f"Not trained: {count} {state}."]
    return "\n".join(lines) + "\n"


def markdown_columns(scale: Scale) -> dict[str, Callable[[Row], str]]:
    """Heads and cells of leaderboard.md."""
    return {
        "rank": lambda row: str(row.rank or "–"),
        "activation": lambda row: row.label,
        "formula": lambda row: f"`{row.trial.expression}`",
        "LaTeX": lambda row: _markdown_math(row.trial.expression),
        "origin": lambda row: row.trial.origin,
        "score": lambda row: scale.pair(row.score, row.standard_error),
        "n": lambda row: str(row.n),
        "best rate": lambda row: rate_cell(row),
        "at default rate": lambda row: default_cell(row, scale),
        "within 1 %": lambda row: range_text(row) or "–",
        "vs best baseline": lambda row: difference_cell(row, scale),
        "parameters": lambda row: f"{row.trial.parameters:,}",
        "step time / ReLU": lambda row: cost_cell(row),
        "diverged": lambda row: f"{row.diverged}/{row.runs}",
        "state": lambda row: f"{row.trial.state} {row.trial.reason}".strip(),
    }


def rate_cell(row: Row) -> str:
    """The best rate, marked when it is the last one tried on its side."""
    mark = {"lowest": " (lowest tried)", "highest": " (highest tried)"}.get(row.edge, "")
    return rate_text(row.trial.best_rate) + mark


def default_cell(row: Row, scale: Scale) -> str:
    """Score at the default rate; says so when seeds diverged there."""
    at = row.at_default
    if at is None:
        return "–"
    if at.diverged:
        return f"{scale.pair(at.mean, at.standard_error)} ({at.diverged}/{at.runs} diverged)"
    return scale.pair(at.mean, at.standard_error)


def difference_cell(row: Row, scale: Scale) -> str:
    """Difference to the best baseline with its paired error."""
    if row.difference is None or row.difference.mean is None:
        return "–"
    return scale.pair(row.difference.mean, row.difference.standard_error, sign=True)


def cost_cell(row: Row) -> str:
    """Step time relative to ReLU."""
    return "–" if row.trial.cost is None else f"{row.trial.cost:.2f}×"


def _markdown_math(text: str) -> str:
    """The formula between dollars; its bars spelled, as a bar would end the cell."""
    source = latex_of(text)
    if source is None:
        return "–"
    return "$" + source.replace("|", "\\vert ") + "$"


def _escaped(text: str) -> str:
    """A cell of a Markdown table: no bar ends it, no line break leaves it."""
    return " ".join(text.split()).replace("|", "\\|")


def discovered_csv(trials: Sequence[Trial]) -> str:
    """Everything proposed: number, origin, name, state, reason, score, choices, formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ("number", "origin", "name", "state", "reason", "score", "duplicate_of")
    writer.writerow((*columns, "fingerprint", "choices", "formula"))
    for trial in trials:
        values = [getattr(trial, name) for name in columns]
        writer.writerow(
            [
                *("" if value is None else value for value in values),
                trial.fingerprint,
                json.dumps(trial.choices, default=str),
                trial.expression,
            ]
        )
    return text.getvalue()
