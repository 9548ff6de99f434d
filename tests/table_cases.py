"""Tables with known truth, for the tests of rankings and replays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.benchmarks.table import EMPTY, Header, Row, Table
from search.language.fingerprint import fingerprint
from search.space.grammar import Candidate, Grammar
from search.space.reading import parse_grammar

RULES = {
    "F": ["G + B", "G * B"],
    "G": ["x * sigmoid(s * x) where s in {0.5, 0.7, 1, 1.4, 2}"],
    "B": ["tanh(t * x) where t in {0.2, 0.3, 0.5, 0.8, 1.2, 2}"],
}
"""60 derivations, all different, every one as likely as another."""


def grammar() -> Grammar:
    return parse_grammar(RULES)


def header(
    seeds: int, rates: tuple[float, ...] = (0.1,), metric: str = "accuracy", default: float = 0.1
) -> Header:
    rules = grammar()
    space = {
        "activation": rules.text(),
        "depth": rules.depth,
        "learning_rate": {"grid": list(rates), "default": default, "extend": False},
        "seeds": list(range(seeds)),
        "by_loss": metric == "loss",
    }
    count = rules.count().derivations
    return Header(
        name="known",
        space=space,
        metric="accuracy",
        maximize=True,
        options={},
        recipe={},
        rates=rates,
        seeds=tuple(range(seeds)),
        checkpoints=(10,),
        derivations=count,
        distinct=count,
        environment={},
    )


def known_table(
    truth: NDArray[np.float64],
    noise: float = 0.0,
    seeds: int = 8,
    rejected: dict[int, str] | None = None,
    diverged: tuple[int, ...] = (),
) -> Table:
    """60 functions whose accuracies are `truth`, with normal noise a seed.

    rejected: reasons by place. diverged: places where every seed after the first diverges.
    """
    draw = np.random.default_rng(0)
    rows = []
    for place, candidate in enumerate(grammar().candidates()):
        scores = truth[place] + noise * draw.standard_normal((1, seeds, 1))
        if place in diverged:
            scores[:, 1:] = np.nan
        rows.append(_row(candidate, scores, (rejected or {}).get(place)))
    return Table(header(seeds), tuple(rows))


def _row(candidate: Candidate, scores: NDArray[np.float64], reason: str | None) -> Row:
    state = "complete" if reason is None else "rejected"
    kept = EMPTY if reason else scores
    return Row(
        expression=str(candidate.expression),
        fingerprint=fingerprint(candidate.expression),
        choices=candidate.choices,
        state=state,
        reason=reason or "",
        scores=kept,
        losses=-kept,
        cost=1.5,
    )
