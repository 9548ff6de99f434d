"""Candidates against one baseline, paired by seed: what may be claimed, and why not more.

A claim needs all of this: Holm-adjusted sign-flip p at most the level, a BCa interval that excludes
0 as well, differences that are not all the same, and no diverged seed on the side that it favours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from search.records import Run
from search.statistics.descriptive import mean, rate_key, standard_error
from search.statistics.inference import (
    LEVEL,
    Interval,
    bca_interval,
    fewest_seeds,
    holm,
    same,
    seeds_needed,
    sign_flip_test,
)

Outcomes = Mapping[int, float | None]
"""Score by seed; None where the run diverged."""
Claim = Literal["better", "worse", "undecided", "untested"]
USUAL_EFFECT = 0.5
"""Standard deviations: a medium effect, asked for when no smallest gain is declared."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The seeds that both sides completed, and those that are left out."""

    seeds: tuple[int, ...]
    gains: tuple[float, ...]
    """By how much the candidate is better: score minus the baseline's, or the reverse of a loss."""
    diverged: tuple[int, ...] = ()
    """Seeds on which the candidate diverged."""
    baseline_diverged: tuple[int, ...] = ()
    unmatched: tuple[int, ...] = ()
    """Seeds that only one side was trained with."""

    @property
    def n(self) -> int:
        """Pairs."""
        return len(self.seeds)


@dataclass(frozen=True, slots=True)
class Effect:
    """One candidate against the baseline; a positive mean is in the candidate's favour."""

    label: str
    pairs: Pairs
    mean: float | None
    standard_error: float | None
    size: float | None
    """Mean in standard deviations of the differences; None without a spread."""
    interval: Interval
    p: float | None
    """Two-sided sign-flip p; None without a pair."""
    least_p: float
    """The smallest p that these pairs could have given."""
    adjusted_p: float | None
    """After Holm over all candidates of the comparison."""
    claim: Claim
    reason: str
    """Why nothing is claimed; empty beside a claim."""
    wanted: float
    """Effect in standard deviations for which `needed` is counted."""
    needed: int | None
    """Seeds that would find it with a chance of 0.8; None beyond 10,000."""

    @property
    def n(self) -> int:
        """Pairs behind the mean."""
        return self.pairs.n

    @property
    def significant(self) -> bool:
        """Whether a difference is claimed."""
        return self.claim in ("better", "worse")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every candidate against one baseline, in the order they were given."""

    baseline: str
    effects: tuple[Effect, ...]
    level: float
    smallest_gain: float | None = None
    """The declared gain that matters, in units of the score."""

    @property
    def family(self) -> int:
        """Candidates that Holm's adjustment counts."""
        return len(self.effects)


def outcomes_by_seed(runs: Iterable[Run], rate: float) -> dict[int, float | None]:
    """The runs at one rate: score of a complete one, None for a diverged one; no pruned ones."""
    key = rate_key(rate)
    kept = [r for r in runs if rate_key(r.learning_rate) == key and r.state != "pruned"]
    return {r.seed: r.score if r.state == "complete" else None for r in kept}


def pair_by_seed(candidate: Outcomes, baseline: Outcomes, maximize: bool = True) -> Pairs:
    """Gains on the seeds that both completed; a score that is not finite counts as diverged."""
    shared = sorted(candidate.keys() & baseline.keys())
    sign = 1.0 if maximize else -1.0
    gains = {}
    for seed in shared:
        own, other = candidate[seed], baseline[seed]
        if own is not None and other is not None and math.isfinite(own) and math.isfinite(other):
            gains[seed] = sign * (own - other)
    return Pairs(
        seeds=tuple(gains),
        gains=tuple(gains.values()),
        diverged=_diverged(candidate),
        baseline_diverged=_diverged(baseline),
        unmatched=tuple(sorted(candidate.keys() ^ baseline.keys())),
    )


def _diverged(outcomes: Outcomes) -> tuple[int, ...]:
    lost = (seed for seed, score in outcomes.items() if score is None or not math.isfinite(score))
    return tuple(sorted(lost))


def compare(
    candidates: Mapping[str, Outcomes],
    baseline: Outcomes,
    name: str,
    *,
    maximize: bool = True,
    level: float = LEVEL,
    smallest_gain: float | None = None,
    seed: int = 0,
) -> Comparison:
    """Every candidate against the baseline called `name`.

    `smallest_gain` is the declared gain that matters, in units of the score: the seeds needed are
    then counted for it, in the standard deviations seen; else for 0.5 standard deviations.
    Against several baselines, compare with each: better than *all* of them needs no further
    adjustment, as the largest of the p values decides.
    """
    pairs = {label: pair_by_seed(own, baseline, maximize) for label, own in candidates.items()}
    raw = [_measured(label, p, len(pairs), smallest_gain, seed) for label, p in pairs.items()]
    adjusted = holm([effect.p for effect in raw])
    tested = [replace(e, adjusted_p=p) for e, p in zip(raw, adjusted, strict=True)]
    judged = [_judged(effect, name, len(pairs), level) for effect in tested]
    return Comparison(name, tuple(judged), level, smallest_gain)


def _measured(
    label: str, pairs: Pairs, family: int, smallest_gain: float | None, seed: int
) -> Effect:
    """Everything but the adjusted p and the claim."""
    gains, error = pairs.gains, standard_error(pairs.gains)
    spread = None if error is None or same(gains) else error * math.sqrt(len(gains))
    center = mean(gains)
    wanted = abs(smallest_gain) / spread if smallest_gain and spread else USUAL_EFFECT
    test = sign_flip_test(gains, seed)
    return Effect(
        label=label,
        pairs=pairs,
        mean=center,
        standard_error=error,
        size=center / spread if spread and center is not None else None,
        interval=bca_interval(gains, seed=seed),
        p=test.p if gains else None,
        least_p=test.least,
        adjusted_p=None,
        claim="untested",
        reason="",
        wanted=wanted,
        needed=seeds_needed(wanted, family),
    )


def _judged(effect: Effect, name: str, family: int, level: float) -> Effect:
    reason = _untested(effect, name)
    if reason:
        return replace(effect, claim="untested", reason=reason)
    reason = _undecided(effect, name, family, level)
    if reason:
        return replace(effect, claim="undecided", reason=reason)
    return replace(effect, claim="better" if (effect.mean or 0.0) > 0 else "worse")


def _untested(effect: Effect, name: str) -> str:
    """Why there is no pair at all."""
    pairs = effect.pairs
    if pairs.n:
        return ""
    sides = ((effect.label, pairs.diverged), (name, pairs.baseline_diverged))
    lost = [f"{who} diverged on {_count(len(seeds))}" for who, seeds in sides if seeds]
    return " and ".join(lost) or "no seed was trained with both"


def _undecided(effect: Effect, name: str, family: int, level: float) -> str:
    """The first thing that stands in the way of a claim."""
    pairs = effect.pairs
    if pairs.n == 1:
        return "one seed shows nothing"
    if same(pairs.gains):
        what = "the scores are equal" if effect.mean == 0 else "the difference is the same"
        return f"{what} on all {pairs.n} seeds, which leaves no spread to test"
    if family * effect.least_p > level:
        return _out_of_reach(effect, family, level)
    if effect.adjusted_p is None or effect.adjusted_p > level:
        return "the difference is within the spread of the seeds"
    if not effect.interval.excludes(0.0):
        return effect.interval.reason or "the test and the interval disagree: the interval holds 0"
    favoured = (
        (effect.label, pairs.diverged)
        if (effect.mean or 0.0) > 0
        else (name, pairs.baseline_diverged)
    )
    if favoured[1]:
        who, seeds = favoured
        return f"{who} is ahead on the seeds it survived, but diverged on {_count(len(seeds))}"
    return ""


def _count(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def _out_of_reach(effect: Effect, family: int, level: float) -> str:
    """No outcome of so few pairs would have been significant."""
    n, ties = effect.n, sum(gain == 0 for gain in effect.pairs.gains)
    tied = f", {ties} of them tied," if ties else ""
    least = f"the least p that {n} seeds{tied} can give is {effect.least_p:.3g}"
    after = f", {min(1.0, family * effect.least_p):.3g} after Holm over {family}"
    enough = (
        f"{fewest_seeds(family, level)} seeds that differ are the least that could show anything"
    )
    return f"{least}{after if family > 1 else ''}; {enough}"
