"""What a study's trials say to a sampler of whole derivations. There is no other memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.errors import SpaceError
from search.language.expression import Expression
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.space.grammar import Grammar

Outcome = Literal["value", "bad", "running", "unknown"]
"""Bad: diverged, or refused by a gate. Unknown: it says nothing, but the candidate is known."""


@dataclass(frozen=True, slots=True)
class Past:
    """A trial of the study whose choices derive a candidate; or a baseline's."""

    number: int
    """Of the baselines that no choices derive -1, -2, …"""
    choices: dict[str, Any]
    """None of such a baseline."""
    expression: Expression
    fingerprint: str
    outcome: Outcome
    values: tuple[float, ...] = ()
    """Larger is better; one for every objective."""
    cost: float | None = None
    """Seconds of a training step relative to ReLU, where it was measured."""
    ended: float = math.inf
    """Seconds since 1970."""
    baseline: bool = False


class History:
    """Reads a study; a trial that has ended is read once.

    Args:
        baselines: the study with baselines that the grammar cannot express, to read them as well.
            Of what else is in it, placebos and finalists, a sampler must not learn.
    """

    def __init__(self, grammar: Grammar, baselines: Study | None = None):
        self.grammar = grammar
        self.baselines = baselines
        self._study = ""
        self._ended: dict[int, Past | None] = {}

    def read(self, study: Study, before: int) -> list[Past]:
        """The baselines, and the trials with lower numbers than `before`, by number."""
        if study.study_name != self._study:
            self._study, self._ended = study.study_name, {}
        aside = [] if self.baselines is None else self.baselines.get_trials(deepcopy=False)
        read = [self._past(frozen, study.directions, -1 - frozen.number) for frozen in aside[::-1]]
        for frozen in study.get_trials(deepcopy=False):
            if frozen.number < before:
                read.append(self._past(frozen, study.directions, frozen.number))
        return [past for past in read if past is not None]

    def _past(
        self, frozen: FrozenTrial, directions: Sequence[StudyDirection], number: int
    ) -> Past | None:
        if number in self._ended:
            return self._ended[number]
        past = self._read(frozen, directions, number)
        if frozen.state.is_finished():
            self._ended[number] = past
        return past

    def _read(
        self, frozen: FrozenTrial, directions: Sequence[StudyDirection], number: int
    ) -> Past | None:
        candidate = frozen.user_attrs.get("candidate", {})
        if number < 0 and candidate.get("origin") != "baseline":
            return None
        choices = candidate.get("choices") or frozen.params
        try:
            expression = (
                parse(candidate["expression"])
                if number < 0
                else self.grammar.derive(choices).expression
            )
        except SpaceError:  # of another grammar, or cut off while it was asked for
            return None
        outcome, values = _outcome(frozen, directions)
        record = frozen.user_attrs.get("record", {})
        end = frozen.datetime_complete
        return Past(
            number,
            dict(choices),
            expression,
            candidate.get("fingerprint") or fingerprint(expression),
            outcome,
            values,
            _finite(record.get("cost")),
            math.inf if end is None else end.timestamp(),
            candidate.get("origin") == "baseline",
        )


def _finite(value: Any) -> float | None:
    return value if isinstance(value, float) and math.isfinite(value) else None


def _outcome(
    frozen: FrozenTrial, directions: Sequence[StudyDirection]
) -> tuple[Outcome, tuple[float, ...]]:
    if not frozen.state.is_finished():
        return "running", ()
    values: Sequence[float] = ()
    if frozen.state == TrialState.COMPLETE:
        values = frozen.values
    elif frozen.state == TrialState.PRUNED:
        steps = frozen.intermediate_values
        values = [steps[max(steps)]] if steps else ()
    if values and all(map(math.isfinite, values)):
        pairs = zip(values, directions, strict=True)
        return "value", tuple(v if d == StudyDirection.MAXIMIZE else -v for v, d in pairs)
    return _without_value(frozen), ()


def _without_value(frozen: FrozenTrial) -> Outcome:
    """A study of ours has a record of what happened; in another a failure is the candidate's."""
    record = frozen.user_attrs.get("record")
    if record is None:
        return "unknown" if frozen.state == TrialState.PRUNED else "bad"
    return "bad" if record["state"] in ("diverged", "rejected") else "unknown"


def utilities(told: Sequence[Past], rng: np.random.Generator) -> np.ndarray:
    """One number for each trial with values; larger is better.

    Several objectives are ranked, and joined by the worst of them under random weights (augmented
    Chebyshev, Knowles 2006): each draw looks at another part of the front.
    """
    values = np.array([past.values for past in told])
    if values.shape[1] == 1:
        return values[:, 0]
    ranks = values.argsort(axis=0).argsort(axis=0) / max(1, len(told) - 1)
    weighted = rng.dirichlet(np.ones(values.shape[1])) * (ranks - 1.0)
    return weighted.min(axis=1) + 0.05 * weighted.sum(axis=1)
