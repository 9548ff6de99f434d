"""Whole derivations: drawn, changed in one choice, crossed. A derivation is its choices by path.

What may be chosen at a path depends on the path alone, so a choice that is kept fits wherever its
path still exists; what is missing is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from search.space.grammar import Candidate, Grammar

Choices = Mapping[str, Any]

STEP = 0.15
"""Standard deviation of a local step, as a share of the range (of its logarithm, where `log`)."""


class Guided:
    """Answers a derivation's questions: as kept where that fits, anew where it does not.

    It stands in for an Optuna trial in `Grammar.sample`.
    """

    def __init__(self, kept: Choices, rng: np.random.Generator, changed: str = ""):
        self.kept = kept
        self.rng = rng
        self.changed = changed
        """The path whose choice must become another one."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        old = self.kept.get(name)
        if name == self.changed:
            choices = [choice for choice in choices if choice != old] or choices
        elif old in choices:
            return old
        return choices[int(self.rng.integers(len(choices)))]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        old = self.kept.get(name)
        if not isinstance(old, float | int) or not low <= old <= high:
            return _from_unit(self.rng.random(), low, high, log)
        if name != self.changed:
            return float(old)
        moved = _to_unit(float(old), low, high, log) + STEP * self.rng.standard_normal()
        return _from_unit(_reflected(moved), low, high, log)


def _to_unit(value: float, low: float, high: float, log: bool) -> float:
    return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)


def _from_unit(u: float, low: float, high: float, log: bool) -> float:
    value = low * (high / low) ** u if log else low + u * (high - low)
    return min(high, max(low, float(value)))


def _reflected(u: float) -> float:
    """Into [0, 1], thrown back at its ends."""
    return 1.0 - abs(u % 2.0 - 1.0)


def drawn(grammar: Grammar, rng: np.random.Generator) -> Candidate:
    """A derivation at random, every choice uniform."""
    return grammar.sample(Guided({}, rng))


def mutated(grammar: Grammar, choices: Choices, rng: np.random.Generator) -> Candidate:
    """One choice made anew.

    A number of a range takes a local step. Below another alternative, half of the times all that
    still fits is kept, otherwise it is derived again.
    """
    if not choices:
        return drawn(grammar, rng)
    path = str(rng.choice(list(choices)))
    kept = dict(choices)
    if rng.random() < 0.5:
        kept = {p: value for p, value in kept.items() if p == path or not below(p, path)}
    return grammar.sample(Guided(kept, rng, changed=path))


def crossed(
    grammar: Grammar, first: Choices, second: Choices, rng: np.random.Generator
) -> Candidate | None:
    """`first` with one expansion taken from `second`, of the same rule; None if there is no such.

    What the depth bound forbids at its new place is drawn again.
    """
    places = [
        (here, there)
        for here in expansions(first)
        for there in expansions(second)
        if rule_of(here) == rule_of(there) and "/" in here
    ]
    if not places:
        return None
    here, there = places[int(rng.integers(len(places)))]
    kept = {path: value for path, value in first.items() if not below(path, here)}
    kept |= {here + p[len(there) :]: value for p, value in second.items() if below(p, there)}
    return grammar.sample(Guided(kept, rng))


def below(path: str, expansion: str) -> bool:
    """Whether the choice at `path` is made in `expansion` or below it.

    >>> below("F/G[1].s", "F/G"), below("F/G/ARG", "F/G"), below("F/G", "F/G")
    (True, True, True)
    >>> below("F/G#2", "F/G"), below("F", "F/G")
    (False, False)
    """
    return path == expansion or path.startswith((f"{expansion}/", f"{expansion}["))


def expansions(choices: Choices) -> list[str]:
    """The paths of all expansions that the choices tell of, in order.

    >>> expansions({"F": "x * G", "F/G/ARG[1].s": 2.0})
    ['F', 'F/G', 'F/G/ARG']
    """
    found: dict[str, None] = {}
    for path in choices:
        steps = path.split("[")[0].split("/")
        found |= dict.fromkeys("/".join(steps[: n + 1]) for n in range(len(steps)))
    return list(found)


def rule_of(expansion: str) -> str:
    """The rule of an expansion.

    >>> rule_of("F/G#2"), rule_of("F")
    ('G', 'F')
    """
    return expansion.rsplit("/", 1)[-1].split("#")[0]
