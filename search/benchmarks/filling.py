"""Studies with made-up trials, many of them in little time: what a search has behind it.

Half of the candidates are drawn at random, half are changes of the best so far, as those of a
sampler that has found something. Their scores tell how near a function is to a hidden one, so that
a sampler has something to find, and asks for known functions again and again. Nothing trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import nlargest
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from search.database.attributes import candidate_attribute, launched, record_attribute, run_key
from search.database.opening import open_database
from search.database.rows import add_trials
from search.errors import SearchError
from search.integrity.sealing import sealed
from search.language.evaluate import evaluate
from search.language.expression import Expression
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.records import Point, Run, Trial, to_json
from search.samplers.derivations import drawn, mutated
from search.space.grammar import Candidate, Grammar
from search.space.settings import Space

HIDDEN = "x * gompertz(x)"
"""Without a number that is drawn: it was had long ago, and a sampler asks for it again."""
POINTS = np.linspace(-6.0, 6.0, 97)
BEST, LATEST = 50, 1000
"""Of so many best among so many latest candidates, new ones are changes."""
HOPELESS = 2000
"""Known functions in a row after which a space is taken for exhausted."""
WASTED = 1
"""Duplicates that are entered for every candidate, as a sampler asks for them."""


def height(expression: Expression) -> float:
    """In (0, 1]; the nearer to the hidden function, the larger."""
    away = _values(expression) - _values(parse(HIDDEN))
    return float(1.0 / (1.0 + np.sqrt(np.mean(np.clip(away, -1e3, 1e3) ** 2))))


def _values(expression: Expression) -> np.ndarray:
    inputs = {"x": POINTS, "u": np.cos(POINTS)}
    with np.errstate(all="ignore"):
        found = evaluate(expression.body, inputs, expression.initial)
    return np.nan_to_num(np.broadcast_to(found, POINTS.shape), nan=1e3)


def made_up_runs(space: Space, expression: Expression, epochs: int) -> list[Run]:
    """A run for every rate and seed, with a point for every epoch."""
    peak, found = height(expression), []
    for k, (rate, seed) in enumerate(product(space.learning_rate.grid, space.seeds)):
        score = 0.8 + 0.15 * peak + 1e-3 * ((k * 7919) % 13)
        curve = tuple(
            Point(8 * e, 0.5 / e + 1e-9 * k, 0.51 / e + 1e-9 * k, score * e / epochs)
            for e in range(1, epochs + 1)
        )
        found.append(
            Run(rate, seed, "complete", "", score, 0.51, None, curve, 8 * epochs, 0.1234567)
        )
    return found


def outcome(space: Space, expression: Expression) -> dict[str, Any]:
    """How such a trial ends: fields of its record."""
    score = 0.8 + 0.15 * height(expression)
    environment = {"device": "cpu", "made_up": True}
    return {
        "state": "complete",
        "score": score,
        "best_rate": space.learning_rate.default,
        "cost": 1.2,
        "seconds": 1.5,
        "environment": environment,
    }


def fill(folder: Path, space: Space, maximize: bool, count: int, epochs: int) -> None:
    """Append `count` trials, and as many duplicates, to the study in a folder; begun if need be."""
    assert space.grammar is not None, "a sampler has a grammar to search"
    database = open_database(folder, space, maximize)
    try:
        assert database.backend is not None, "a study in a folder has a database"
        known = database.search.get_trials(deepcopy=False)
        fingerprints = {t.user_attrs["candidate"]["fingerprint"] for t in known}
        made, before = islice(_new(space.grammar, fingerprints), count), len(fingerprints)
        while chunk := list(islice(made, 250)):
            trials = _entered(space, chunk, len(known), epochs)
            add_trials(database.backend, database.search._study_id, trials)
            known += trials
        if len(fingerprints) - before < count:
            raise SearchError("the space has no more candidates")
    finally:
        database.close()


@dataclass(frozen=True, slots=True)
class _Made:
    candidate: Candidate
    fingerprint: str
    height: float


def _new(grammar: Grammar, known: set[str]) -> Iterator[_Made]:
    """Candidates whose functions nobody had."""
    rng = np.random.default_rng(len(known))
    best: list[_Made] = []
    latest: list[_Made] = []
    misses = 0
    while misses < HOPELESS:
        parent = best[int(rng.integers(len(best)))] if best and rng.random() < 0.5 else None
        choices = parent.candidate.choices if parent else {}
        candidate = mutated(grammar, choices, rng) if parent else drawn(grammar, rng)
        own = fingerprint(candidate.expression)
        misses = misses + 1 if own in known else 0
        if misses:
            continue
        known.add(own)
        latest.append(_Made(candidate, own, height(candidate.expression)))
        if len(latest) % BEST == 0:
            latest = latest[-LATEST:]
            best = nlargest(BEST, latest, key=lambda made: made.height)
        yield latest[-1]


def _entered(space: Space, chunk: Sequence[_Made], first: int, epochs: int) -> list[FrozenTrial]:
    """Each as a trial that has ended, and the duplicates that came before it."""
    assert space.grammar is not None, "its candidates are a grammar's"
    found: list[FrozenTrial] = []
    for made in chunk:
        expression = made.candidate.expression
        given = _Given(made.candidate.choices)
        space.grammar.sample(given)
        number = first + len(found) + WASTED
        kept = candidate_attribute(
            "search", "", str(expression), made.fingerprint, "made up", made.candidate.choices
        )
        again = launched(number, kept)
        reason = {"state": "duplicate", "reason": f"the same function as trial {number}"}
        for k in range(WASTED):
            wasted = replace(again, number=number - WASTED + k, duplicate_of=number, **reason)
            found.append(_frozen(TrialState.FAIL, given, kept, wasted, []))
        runs = made_up_runs(space, expression, epochs)
        ended = replace(again, runs=tuple(runs), **outcome(space, expression))
        found.append(_frozen(TrialState.COMPLETE, given, kept, ended, runs))
    return found


def _frozen(
    state: TrialState, given: _Given, kept: dict[str, Any], trial: Trial, runs: Sequence[Run]
) -> FrozenTrial:
    now = datetime.now()
    attributes = {
        "candidate": kept,
        **({"begun": True} if runs else {}),
        **{run_key(run): sealed(to_json(run)) for run in runs},
        "record": record_attribute(trial),
    }
    return FrozenTrial(
        number=trial.number,
        state=state,
        value=trial.score,
        datetime_start=now,
        datetime_complete=now,
        params=dict(given.choices),
        distributions=dict(given.distributions),
        user_attrs=attributes,
        system_attrs={},
        intermediate_values={},
        trial_id=-1,
    )


class _Given:
    """Answers a derivation's questions from its choices, and notes what was asked."""

    def __init__(self, choices: dict[str, Any]):
        self.choices = choices
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.distributions[name] = CategoricalDistribution(choices)
        return self.choices[name]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.distributions[name] = FloatDistribution(low, high, log=log)
        return self.choices[name]
