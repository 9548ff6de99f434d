"""The leaderboard as files, and the text of its cells."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from search.figures.finals import FinalsInfo, statements
from search.figures.formulas import latex_of
from search.figures.leaderboard import LeaderboardInfo, Row
from search.figures.notation import Scale, rate_text
from search.figures.settings import ReportSettings
from search.records import Trial
from search.statistics.comparison import Effect

COLUMNS: dict[str, Callable[[Row], Any]] = {
    "rank": lambda row: row.rank,
    "number": lambda row: row.trial.number,
    "name": lambda row: row.trial.name,
    "origin": lambda row: row.trial.origin,
    "state": lambda row: row.trial.state,
    "fresh_score": lambda row: row.fresh,
    "fresh_standard_error": lambda row: row.final.standard_error if row.final else None,
    "fresh_n": lambda row: row.final.n if row.final else None,
    "fresh_diverged": lambda row: row.final.diverged if row.final else None,
    "score": lambda row: row.score,
    "standard_error": lambda row: row.standard_error,
    "n": lambda row: row.n,
    "shrinkage": lambda row: row.shrinkage,
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
    "memory": lambda row: row.trial.memory,
    "runs": lambda row: row.runs,
    "diverged_runs": lambda row: row.diverged,
    "seconds": lambda row: row.trial.seconds,
    "fingerprint": lambda row: row.trial.fingerprint,
    "formula": lambda row: row.trial.expression,
    "latex": lambda row: latex_of(row.trial.expression),
    "reason": lambda row: row.trial.reason,
}
"""The columns of leaderboard.csv: plain numbers in full precision, empty where there is none."""

EFFECT_COLUMNS: dict[str, Callable[[Effect], Any]] = {
    "fresh_gain": lambda effect: effect.mean,
    "fresh_gain_standard_error": lambda effect: effect.standard_error,
    "fresh_gain_low": lambda effect: effect.interval.low,
    "fresh_gain_high": lambda effect: effect.interval.high,
    "fresh_pairs": lambda effect: effect.n,
    "p": lambda effect: effect.p,
    "p_after_holm": lambda effect: effect.adjusted_p,
    "claim": lambda effect: effect.claim,
}
"""Behind them, against the best baseline of the search: gains are positive where it is beaten."""


def range_text(row: Row, between: str = "–") -> str:
    """The rates within 1 % of the best: `0.003–0.03`, one rate alone, or nothing."""
    if row.tolerant is None:
        return ""
    low, high = (rate_text(rate) for rate in row.tolerant)
    return low if low == high else f"{low}{between}{high}"


def leaderboard_csv(info: LeaderboardInfo, finals: FinalsInfo | None = None) -> str:
    """Every trained trial as CSV, ranked ones first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *EFFECT_COLUMNS])
    for row in (*info.ranked, *info.unranked):
        effect = finals.effect(row) if finals else None
        values = [cell(row) for cell in COLUMNS.values()]
        values += [effect and cell(effect) for cell in EFFECT_COLUMNS.values()]
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def leaderboard_markdown(
    info: LeaderboardInfo, settings: ReportSettings, finals: FinalsInfo | None = None
) -> str:
    """Every trained trial as a Markdown table, for a README or an issue."""
    scale = settings.scale.fitted(row.score for row in info.ranked)
    columns = markdown_columns(scale, finals)
    unit, better = " in %" if settings.percent else "", "higher" if settings.maximize else "lower"
    told = "Search scores: not re-tested on fresh seeds."
    if finals is not None:
        told = "Fresh: on seeds that the search never used and the test split, at that rate."
    lines = [
        f"# {_escaped(settings.name)}: leaderboard",
        "",
        f"{settings.metric}{unit} on the validation split, {better} is better; mean ± standard "
        f"error over seeds at the best learning rate. {told}",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "|".join(" --- " for _ in columns) + "|",
    ]
    for row in (*info.ranked, *info.unranked):
        lines.append("| " + " | ".join(_escaped(cell(row)) for cell in columns.values()) + " |")
    for state, count in Counter(trial.state for trial in info.untrained).items():
        lines += ["", f"Not trained: {count} {state}."]
    if finals is not None:
        lines += ["", *(f"- {_escaped(text)}" for text in statements(finals, settings))]
    return "\n".join(lines) + "\n"


def markdown_columns(
    scale: Scale, finals: FinalsInfo | None = None
) -> dict[str, Callable[[Row], str]]:
    """Heads and cells of leaderboard.md; those of finalists where there are any."""
    first: dict[str, Callable[[Row], str]] = {
        "rank": lambda row: str(row.rank or "–"),
        "activation": lambda row: row.label,
        "formula": lambda row: f"`{row.trial.expression}`",
        "LaTeX": lambda row: _markdown_math(row.trial.expression),
        "origin": lambda row: row.trial.origin,
    }
    if finals is not None:
        against = finals.reference.label if finals.reference else "baseline"
        first |= {
            "fresh score": lambda row: fresh_cell(row, scale),
            "fresh n": lambda row: str(row.final.n) if row.final else "–",
            f"fresh gain over {against}": lambda row: effect_cell(finals.effect(row), scale),
            "shrinkage": lambda row: scale.text(row.shrinkage, sign=True),
        }
    return first | {
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


def fresh_cell(row: Row, scale: Scale) -> str:
    """Score on fresh seeds; says so when some diverged, failed or have not ended."""
    final = row.final
    if final is None:
        return "–"
    if final.diverged:
        return f"{final.diverged}/{len(final.outcomes)} diverged"
    if final.score is None:
        return "failed" if final.failure else "running"
    return scale.pair(final.score, final.standard_error)


def effect_cell(effect: Effect | None, scale: Scale) -> str:
    """Mean gain over the best baseline on fresh seeds, and whether it is claimed."""
    if effect is None or effect.mean is None:
        return "–"
    claim = f" ({effect.claim})" if effect.significant else ""
    return scale.pair(effect.mean, effect.standard_error, sign=True) + claim


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


FINALIST_COLUMNS = (
    "number", "origin", "name", "task", "budget", "learning_rate", "seed", "state", "test",
    "validation", "reason",
)  # fmt: skip
"""Of report/finalists.csv; the task is empty for the search's own."""


def finalists_csv(trials: Sequence[Trial]) -> str:
    """Every run of every finalist: the pairs behind all claims. Empty where there is none.

    The sweeps that found rates on further tasks are among them: they have no test score.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = [
        (
            trial.number, trial.origin, trial.name, final.task, final.budget, run.learning_rate,
            run.seed, run.state, run.test, run.score, run.reason,
        )
        for trial in trials
        for final in trial.finals
        for run in final.runs
    ]  # fmt: skip
    if not rows:
        return ""
    writer.writerow(FINALIST_COLUMNS)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return text.getvalue()


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
