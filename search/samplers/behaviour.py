"""Bayesian optimisation over what candidates do.

A Gaussian process learns the scores from the features of `features.py`; of a pool of derivations
(`pool.py`) and of variations of the best, the one with the largest expected improvement per second
is proposed. Scores are warped, so that neither an outlier nor a diverged candidate bends the model.

It learns from baselines too, whether the grammar can express them or not. With the seven of the
shipped spaces trained first there is no start at random. But published activations are much alike,
and what is learned from them alone misled it on text (31 trials to the top 1 %, TPE 26): the first
two candidates after them are those whose scores are least known, not the most promising.

How far it is ahead of others, and on which data it was tuned, is in results/records/*_tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.samplers import BaseSampler
from scipy.special import ndtr

from search.language.fingerprint import fingerprint
from search.samplers.asking import Asking
from search.samplers.derivations import mutated
from search.samplers.features import behaviour
from search.samplers.history import History, Past, utilities
from search.samplers.pool import Members, Pool, joined
from search.samplers.surrogate import LIKELY, Points, likeliest, predict, settings, together
from search.samplers.whole import Proposed, WholeSampler
from search.space.grammar import Grammar

Array = NDArray[np.floating[Any]]

START = 4
"""Trials with a value before the model is asked."""
EXPLORED = 2
"""Candidates after the baselines that are chosen for how little is known of their scores."""
OBSERVED = 200
"""Trials that the model learns from, at most: the better half, and others spread over the rest."""
VARIED, PARENTS = 40, 8
"""Variations of so many best candidates, anew for every proposal; of a space that is not whole."""
COSTED = 5
"""Trials with a measured cost before costs are predicted."""


def behaviour_sampler(asking: Asking) -> BaseSampler:
    """Quasi-random until four trials have told a value, baselines among them."""
    start = max(2, min(START, asking.trials // 4))
    model = BehaviourModel(asking.rules, asking.seed, start)
    return WholeSampler(model, History(asking.rules, asking.baselines), asking.seed)


class BehaviourModel:
    """Proposes candidates; what it decides follows from seed, trial number and past."""

    def __init__(self, grammar: Grammar, seed: int, start: int = START):
        self.grammar = grammar
        self.seed = seed
        self.start = start
        self.pool = Pool(grammar, seed)

    def propose(self, number: int, past: Sequence[Past]) -> Proposed | None:
        """The best of the pool that no trial has had; None while there is too little to learn."""
        told = [trial for trial in past if trial.outcome == "value"]
        if len(told) < self.start:
            return None
        rng = np.random.default_rng([self.seed, number, 4])
        data = observations(past, utilities(told, rng))
        members = self._members(number, data, rng)
        running = self._points([trial for trial in past if trial.outcome == "running"])
        mean, deviation, best = self._predicted(data, running, members.points)
        costs = predicted_costs(past, members.counts)
        own = sum(trial.outcome in ("value", "running") for trial in past if not trial.baseline)
        gain = expected_improvement(mean, deviation, best)
        gains = (deviation if own < EXPLORED else gain) / costs
        chosen = first_new(members, np.argsort(-gains, kind="stable"), past)
        if chosen is None:
            return None
        why = {
            "by": "behaviour",
            "least_known": own < EXPLORED,
            "predicted": float(mean[chosen]),
            "deviation": float(deviation[chosen]),
            "best": best,
            "cost": float(costs[chosen]),
            "acquisition": float(gains[chosen]),
            "pool": len(members.candidates),
        }
        return Proposed(members.candidates[chosen].choices, why)

    def _points(self, past: Sequence[Past]) -> Points:
        return self.pool.points([(trial.choices, behaviour(trial.expression)) for trial in past])

    def _predicted(
        self, data: Observations, running: Points, wanted: Points
    ) -> tuple[Array, Array, float]:
        """Mean and deviation at `wanted`, and the largest mean at what was observed.

        The mean and not the score: with two seeds the best score is luck too.
        """
        points, shift = self._points(data.trials), float(data.values.mean())
        few = slice(None, None, 1 + (len(data.values) - 1) // LIKELY)
        grid = settings(points.at(few), data.values[few] - shift)
        grid = grid if len(data.values) <= LIKELY else likeliest(grid)
        both = together([wanted, self._points(data.best)])
        mean, deviation = predict(points, data.values - shift, running, both, grid)
        n = len(wanted)
        return mean[:n] + shift, deviation[:n], float(mean[n:].max()) + shift

    def _members(self, number: int, data: Observations, rng: np.random.Generator) -> Members:
        pool = self.pool.at(number)
        if self.pool.whole:
            return pool
        parents = [data.best[int(k)] for k in rng.integers(len(data.best), size=VARIED)]
        varied = [mutated(self.grammar, parent.choices, rng) for parent in parents]
        return joined([pool, self.pool.members(varied)])


@dataclass(frozen=True, slots=True)
class Observations:
    """What the model learns from."""

    trials: tuple[Past, ...]
    values: Array
    """Warped."""
    best: tuple[Past, ...]
    """The best of them, best first."""


def observations(past: Sequence[Past], utility: Array) -> Observations:
    """Of trials that told a value, and of bad ones as worse than the worst of those.

    A model of the chance of a value, beside that of the value, explored what diverges: of 20
    proposals 14 instead of 3, where a sixth of the candidates did.
    """
    told = [trial for trial in past if trial.outcome == "value"]
    valued = {trial.fingerprint for trial in told}
    bad = [t for t in past if t.outcome == "bad" and t.fingerprint not in valued]
    values = warped(utility)
    best = tuple(told[k] for k in np.argsort(-values, kind="stable")[:PARENTS])
    values = np.concatenate([values, np.full(len(bad), values.min() - 1.0)])
    kept, trials = thinned(values, OBSERVED), [*told, *bad]
    return Observations(tuple(trials[k] for k in kept), values[kept], best)


def thinned(values: Array, most: int) -> NDArray[np.intp]:
    """Indices of the better half of `most`, and of others evenly through the rest."""
    order = np.argsort(-values, kind="stable")
    if len(order) <= most:
        return np.sort(order)
    rest = order[most // 2 :]
    spread = rest[np.linspace(0, len(rest) - 1, most - most // 2).round().astype(int)]
    return np.sort(np.concatenate([order[: most // 2], spread]))


def warped(utility: Array) -> Array:
    """asinh of the distance from the median in units of 1.5 median distances: monotone, and an
    outlier counts by its logarithm."""
    centred = utility - np.median(utility)
    unit = 1.5 * float(np.median(np.abs(centred))) or float(np.abs(centred).max()) or 1.0
    return np.arcsinh(centred / unit)


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """E max(0, f - best) for f ~ N(mean, deviation²)."""
    z = (mean - best) / deviation
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    return deviation * (z * ndtr(z) + density)


def predicted_costs(past: Sequence[Past], wanted: Array) -> Array:
    """Cost of a training step relative to ReLU, by ridge regression of its logarithm on counts.

    1 for all while fewer than five trials have told theirs.
    """
    costed = [trial for trial in past if trial.cost is not None and trial.cost > 0]
    if len(costed) < COSTED:
        return np.ones(len(wanted))
    counts = np.array([behaviour(trial.expression).blocks[-1] for trial in costed], dtype=float)
    logs = np.log([trial.cost or 1.0 for trial in costed])
    centre = counts.mean(axis=0)
    inner = (counts - centre).T @ (counts - centre) + np.eye(counts.shape[1])
    slopes = np.linalg.solve(inner, (counts - centre).T @ (logs - logs.mean()))
    return np.exp(np.clip(logs.mean() + (wanted - centre) @ slopes, logs.min(), logs.max()))


def first_new(members: Members, order: NDArray[np.intp], past: Sequence[Past]) -> int | None:
    """The first in this order that is no function of any trial."""
    fingerprints = {trial.fingerprint for trial in past}
    expressions = {trial.expression for trial in past}
    for k in order:
        expression = members.candidates[int(k)].expression
        if expression not in expressions and fingerprint(expression) not in fingerprints:
            return int(k)
    return None
