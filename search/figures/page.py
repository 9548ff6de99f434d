"""The report as one HTML page that opens from disk: nothing is fetched, everything is escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from search.figures.board import MOST_UNFOLDED, board_row, formula_writer, leaderboard_heads
from search.figures.finals import FinalsInfo, finals_info
from search.figures.formulas import formula_sheet
from search.figures.leaderboard import LeaderboardInfo, Row
from search.figures.notation import Scale, count_text, duration_text, one_line
from search.figures.rejections import rejections_info
from search.figures.settings import ReportSettings
from search.figures.tables import difference_cell
from search.figures.verdict import gain, verdict
from search.promotion import spared_by_promotion
from search.records import Trial
from search.statistics import spared_share, time_in_activations

MOST_ROWS = 300
"""Rows of the page's leaderboard; leaderboard.csv has all."""
MOST_PICTURES = 100
"""Formulas set as mathematics; the rest is text. Each takes some milliseconds."""
SHOWN_ELSEWHERE = frozenset(
    ["metric", "maximize", "percent", "default_rate", "recipe", "options", "title", "seconds"]
)
"""Keys of environment.json that are told in other words."""
MOST_LISTED_BYTES = 1_800_000
"""Of the list of everything discovered; report/discovered.csv has all."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One figure of the page."""

    key: str
    title: str
    caption: str
    empty: str
    """Said when there is nothing to draw."""
    png: bytes | None
    width: int
    """On the page, in CSS pixels."""

    @property
    def image(self) -> str:
        """The picture in base64, or nothing."""
        return "" if self.png is None else base64.b64encode(self.png).decode("ascii")


def index_page(
    trials: Sequence[Trial],
    board: LeaderboardInfo,
    settings: ReportSettings,
    drawn: Sequence[Drawn],
) -> str:
    """The whole page."""
    rows = [*board.ranked, *board.unranked]
    scale = settings.scale.fitted(row.score for row in board.ranked)
    best = board.best_candidate or board.best_baseline
    finals = finals_info(board, settings)
    sheet = formula_sheet(row.trial.expression for row in rows[:MOST_PICTURES])
    formula = formula_writer(sheet)
    heads = leaderboard_heads(scale, formula, finals)
    reasons = rejections_info(trials, settings)
    listed = everything(trials, scale)
    return _template().render(
        name=settings.name,
        summary=summary(settings),
        sheet=sheet,
        formula=formula,
        verdict=verdict(board, settings),
        best=best,
        usage=_usage(best),
        tiles=tiles(board, settings, scale, finals),
        heads=heads,
        rows=[board_row(place, row, heads) for place, row in enumerate(rows[:MOST_ROWS])],
        folded=sum(row.trial.origin == "search" for row in rows[MOST_UNFOLDED:MOST_ROWS]) > 0,
        hidden_rows=max(0, len(rows) - MOST_ROWS),
        leaderboard_caption=_caption(settings, finals is not None),
        figures=drawn,
        reasons=reasons.reasons if reasons else (),
        everything=listed,
        everything_total=len(trials),
        settings_rows=settings.rows(),
        environment_rows=environment_rows(settings.environment),
        space_text=settings.space_text,
    )


def _template() -> Any:
    text = files("search.figures").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def _caption(settings: ReportSettings, fresh: bool) -> str:
    unit = " in %" if settings.percent else ""
    better = "higher" if settings.maximize else "lower"
    if fresh:
        return (
            f"{settings.metric.capitalize()}{unit}, {better} is better: mean ± standard error over "
            "seeds at the best learning rate of each activation. Fresh scores are of the test "
            "split, on seeds that the search never used; search scores are of the validation split."
        )
    return (
        f"Validation {settings.metric}{unit}, {better} is better: mean ± standard error over seeds "
        "at the best learning rate of each activation. Differences are paired by seed."
    )


def summary(settings: ReportSettings) -> str:
    """The study in one line: `digits · 5 rates × 2 seeds · sampler tpe, 40 trials`."""
    sampler = f"sampler {settings.sampler}" if settings.sampler else "no search: baselines alone"
    budget = "" if settings.budget is None else f", {count_text(settings.budget, 'trial')}"
    rates, seeds = len(settings.grid), len(settings.seeds)
    runs = f"{count_text(rates, 'rate')} × {count_text(seeds, 'seed')}" if rates and seeds else ""
    model = settings.options.get("model")
    parts = (settings.task, "" if model is None else str(model), runs, sampler + budget)
    return " · ".join(part for part in parts if part)


def _usage(best: Row | None) -> str:
    if best is None:
        return ""
    text = json.dumps(best.trial.expression, ensure_ascii=False)
    return f"from search import Activation\n\nactivation = Activation({text})"


def tiles(
    board: LeaderboardInfo, settings: ReportSettings, scale: Scale, finals: FinalsInfo | None = None
) -> list[tuple[str, str]]:
    """The numbers at the top: (number, what it is)."""
    shown = []
    for row, what in ((board.best_candidate, "candidate"), (board.best_baseline, "baseline")):
        if row is not None and row.final is not None and row.fresh is not None:
            score = scale.pair(row.fresh, row.final.standard_error) + scale.unit
            shown.append((score, f"{what} {row.label}, {count_text(row.final.n, 'fresh seed')}"))
        elif row is not None:
            score = scale.pair(row.score, row.standard_error) + scale.unit
            shown.append((score, f"best {what}: {row.label}"))
    best = board.best_candidate
    effect = finals.effect(best) if finals and best else None
    if finals is not None:
        if effect is not None and effect.mean is not None:
            written = scale.pair(effect.mean, effect.standard_error, sign=True)
            shown.append((written, f"gain, {count_text(effect.n, 'fresh pair')}"))
    elif gain(board) is not None and best is not None and best.difference is not None:
        seeds = count_text(best.difference.n, "paired seed")
        shown.append((difference_cell(best, scale), f"difference, {seeds}"))
    rows = (*board.ranked, *board.unranked)
    trials = len(rows) + len(board.untrained)
    runs, diverged = sum(row.runs for row in rows), sum(row.diverged for row in rows)
    shown.append((f"{len(board.ranked):,} of {trials:,}", "trials with a score"))
    shown.append((f"{runs:,}", f"training runs, {diverged:,} diverged"))
    if spared := spared_share(row.trial for row in rows):
        shown.append((f"{spared:.0%}", "of the steps spared by halving"))
    if spared := spared_by_promotion(row.trial for row in rows):
        shown.append((f"{spared:.0%}", "of the steps spared by rungs"))
    if shares := time_in_activations(row.trial for row in rows):
        own, composed = shares
        what = f"of a step in activations; {composed:.0%} as composed torch operations"
        shown.append((f"{own:.0%}", what))
    wall = settings.environment.get("seconds")
    if isinstance(wall, int | float):
        shown.append((duration_text(wall), "wall time"))
    else:
        shown.append((duration_text(sum(row.trial.seconds for row in rows)), "spent in trials"))
    return shown


def environment_rows(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a study wrote about its machine, flattened; what the settings show is left out."""
    rows = [
        (key.replace("_", " "), _value_text(value))
        for key, value in environment.items()
        if key not in SHOWN_ELSEWHERE and value not in (None, "")
    ]
    if isinstance(wall := environment.get("seconds"), int | float):
        rows.append(("wall time", duration_text(wall)))
    return rows


def _value_text(value: Any) -> str:
    """A list, as of sessions, is told by its length, other values by themselves."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        plain = not any(isinstance(item, Mapping) for item in value)
        return ", ".join(str(item) for item in value) if plain else str(len(value))
    return str(value)


def everything(trials: Iterable[Trial], scale: Scale) -> list[dict[str, Any]]:
    """Every trial in short, as many as fit the page."""
    listed: list[dict[str, Any]] = []
    room = MOST_LISTED_BYTES
    for trial in trials:
        origin = "" if trial.origin == "search" else f"{trial.origin}, "
        item = {
            "number": trial.number,
            "state": origin + trial.state,
            "score": scale.text(trial.score),
            "key": "" if trial.score is None else trial.score,
            "formula": trial.expression,
            "choices": choices_text(trial),
            "reason": one_line(trial.reason, 240),
        }
        room -= 220 + sum(len(str(value)) for value in item.values())
        if room < 0:
            break
        listed.append(item)
    return listed


def choices_text(trial: Trial) -> str:
    """`F = x * G; F/G = gompertz(ARG)`: the derivation of a candidate, the name of a baseline."""
    if trial.name:
        return trial.name
    return "; ".join(
        f"{path} = {value:.5g}" if isinstance(value, float) else f"{path} = {value}"
        for path, value in trial.choices.items()
    )
