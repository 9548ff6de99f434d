"""The leaderboard on the page: heads, cells and rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from search.figures.finals import FinalsInfo
from search.figures.formulas import FormulaSheet
from search.figures.leaderboard import Row
from search.figures.notation import Scale, one_line, rate_text
from search.figures.tables import (
    cost_cell,
    default_cell,
    difference_cell,
    fresh_cell,
    range_text,
)
from search.language.expression import Declaration
from search.language.parser import parse
from search.statistics.comparison import Effect

MOST_UNFOLDED = 15
"""Rows shown before a click; baselines always are."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the leaderboard."""

    text: str
    style: str = ""
    key: float | str | None = None
    """What the column is sorted by; None sorts by the text, "" puts the row last."""


@dataclass(frozen=True, slots=True)
class Head:
    """One column of the leaderboard."""

    title: str
    meaning: str
    cell: Callable[[Row], Cell]
    left: bool = False


def formula_writer(sheet: FormulaSheet) -> Callable[[str], Markup]:
    """A function that shows a formula: as mathematics with its declarations, else as code.

    A penalty is only mentioned; it is in the list of everything discovered."""

    def show(text: str) -> Markup:
        formula, penalty, _ = text.partition(" penalty ")
        note = "with a penalty on the loss" if penalty else ""
        if text in sheet.pictures:
            declared = ", ".join(declaration_text(p) for p in parse(text).parameters)
            shown = Markup(sheet.pictures[text])
            note = " ".join(filter(None, (declared and f"where {declared}", note)))
        else:
            shown = Markup("<code class='wrap'>{}</code>").format(one_line(formula, 240))
        return shown + (Markup("<div class='where'>{}</div>").format(note) if note else "")

    return show


def declaration_text(declared: Declaration) -> str:
    """`s = 0.6219`, or `b = 1 per channel` when it is trained; four digits."""
    scope = "" if declared.scope == "fixed" else f" per {declared.scope}"
    return f"{declared.name} = {declared.initial:.4g}{scope}"


def leaderboard_heads(
    scale: Scale, formula: Callable[[str], Markup], finals: FinalsInfo | None = None
) -> list[Head]:
    """The columns of the page's leaderboard."""
    first = [
        Head("#", "rank by score", lambda r: Cell(str(r.rank or "–"), key=_key(r.rank))),
        Head("activation", "name or number, and formula", lambda r: _name_cell(r, formula), True),
    ]
    fresh = [] if finals is None else _fresh_heads(scale, finals)
    return [*first, *fresh, *_score_heads(scale, fresh=finals is not None), *_cost_heads()]


def _fresh_heads(scale: Scale, finals: FinalsInfo) -> list[Head]:
    return [
        Head(
            "fresh",
            "mean ± standard error over seeds that the search never used, on the test split",
            lambda r: Cell(
                fresh_cell(r, scale), "bad" if r.final and r.final.diverged else "", _key(r.fresh)
            ),
        ),
        Head(
            "n",
            "fresh seeds behind it",
            lambda r: Cell(str(r.final.n) if r.final else "–", key=r.final.n if r.final else ""),
        ),
        Head(
            f"vs {finals.reference.label}" if finals.reference else "vs baseline",
            "by how much it is better on fresh seeds, paired by seed; coloured where it is claimed",
            lambda r: _effect_cell(finals.effect(r), scale),
        ),
        Head(
            "shrinkage",
            "search score minus fresh score",
            lambda r: Cell(scale.text(r.shrinkage, sign=True), key=_key(r.shrinkage)),
        ),
    ]


def _effect_cell(effect: Effect | None, scale: Scale) -> Cell:
    if effect is None or effect.mean is None:
        return Cell("–", key="")
    style = {"better": "good", "worse": "bad"}.get(effect.claim, "same")
    return Cell(scale.pair(effect.mean, effect.standard_error, sign=True), style, effect.mean)


def _score_heads(scale: Scale, fresh: bool) -> list[Head]:
    return [
        Head(
            "search" if fresh else "score",
            "mean ± standard error over seeds at the best rate",
            lambda r: Cell(scale.pair(r.score, r.standard_error), "", _key(r.score)),
        ),
        Head("n", "seeds behind the score", lambda r: Cell(str(r.n), key=r.n)),
        *([] if fresh else [_difference_head(scale)]),
        Head("best rate", "learning rate with the best mean", _rate_cell),
        Head(
            "at default",
            "score at the default learning rate",
            lambda r: Cell(
                default_cell(r, scale),
                _default_style(r),
                _key(r.at_default.mean if r.at_default else None),
            ),
        ),
        Head(
            "within 1 %",
            "learning rates around the best whose score stays within 1 % of it",
            lambda r: Cell(range_text(r) or "–"),
        ),
    ]


def _difference_head(scale: Scale) -> Head:
    return Head(
        "vs best baseline",
        "score minus that of the best baseline, paired by seed",
        lambda r: Cell(difference_cell(r, scale), "", _difference_key(r)),
    )


def _cost_heads() -> list[Head]:
    return [
        Head(
            "parameters",
            "trainable numbers in the activations of the model",
            lambda r: Cell(f"{r.trial.parameters:,}", key=r.trial.parameters),
        ),
        Head(
            "step time",
            "seconds of a training step relative to torch's nn.ReLU",
            lambda r: Cell(cost_cell(r), key=_key(r.trial.cost)),
        ),
        Head(
            "diverged",
            "runs that ended in NaN, infinity or above the loss bound",
            lambda r: Cell(f"{r.diverged}/{r.runs}", "bad" if r.diverged else "", r.diverged),
        ),
        Head("state", "what became of the trial", lambda r: Cell(r.trial.state, "left"), True),
    ]


def _key(value: float | None) -> float | str:
    return "" if value is None else value


def _name_cell(row: Row, formula: Callable[[str], Markup]) -> Cell:
    label = Markup("<span class='name'>{}</span><br>").format(row.label)
    reason = ""
    if row.trial.reason:
        reason = Markup("<div class='sub'>{}</div>").format(one_line(row.trial.reason, 160))
    return Cell(label + formula(row.trial.expression) + reason, "left formula-cell")


def _difference_key(row: Row) -> float | str:
    return _key(row.difference.mean if row.difference else None)


def _rate_cell(row: Row) -> Cell:
    shown = Markup("{}").format(rate_text(row.trial.best_rate))
    if row.edge:
        shown += Markup("<br><span class='sub'>{} tried</span>").format(row.edge)
    return Cell(shown, "", _key(row.trial.best_rate))


def _default_style(row: Row) -> str:
    """Pale where it only repeats the score."""
    at, best = row.at_default, row.best
    return "same" if at and best and at.learning_rate == best.learning_rate else ""


def board_row(place: int, row: Row, heads: Sequence[Head]) -> dict[str, Any]:
    """A row's style and cells; `place` counts from 0 in the order of the leaderboard."""
    kinds = [
        "first" if row.rank == 1 else "",
        "baseline" if row.trial.origin == "baseline" else "",
        "" if row.rank else "unranked",
        "more" if place >= MOST_UNFOLDED and row.trial.origin == "search" else "",
    ]
    return {"kind": " ".join(filter(None, kinds)), "cells": [head.cell(row) for head in heads]}
