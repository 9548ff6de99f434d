"""A grammar of activation functions: sample it, replay it, count it, list it.

A derivation starts at the first rule and replaces every CAPITAL by one of its alternatives. Its
choices are flat and named by their path, as Optuna wants them:

    F                  which alternative of the start rule, by its text
    F/G                which alternative of the G in it
    F/G#2              of the second G of the same line
    F/G/ARG[1].s       the number `s` of alternative 1 of that ARG

What may be chosen at a path depends on the path alone (the depth that is left is the depth bound
minus the path's length), so one name always has the same choices. A choice with one possibility
has no name at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any, Protocol

import numpy as np

from search.errors import SpaceError, near_miss
from search.language.evaluate import evaluate
from search.language.expression import (
    Call,
    Declaration,
    Expression,
    Node,
    Number,
    Parameter,
    map_nodes,
)
from search.language.fingerprint import fingerprint
from search.language.parser import negative
from search.space.document import shown
from search.space.productions import Alternative, Choice, Interval, Rules
from search.space.rules import height, heights

PROBE = np.array([-7.3, -2.1, -0.9, -0.2, 0.4, 1.3, 2.6, 6.1])


class Suggesting(Protocol):
    """What sampling needs of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A formula of the grammar and the choices that derived it."""

    expression: Expression
    choices: dict[str, Any]
    """By path: the text of an alternative, or a number as it was drawn."""


@dataclass(frozen=True, slots=True)
class Count:
    """The size of a grammar."""

    derivations: int
    """How many there are, taking every continuous range as one possibility."""
    continuous: int
    """The most continuous ranges in one derivation; 0 for a finite space."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """Checked rules, a start and a depth bound. Built by `search.space.reading`."""

    rules: Rules
    start: str
    depth: int
    """The most expansions nested in each other."""
    heights: Mapping[str, float] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "heights", heights(self.rules))

    def available(self, rule: str, remaining: int) -> list[tuple[int, Alternative]]:
        """The alternatives of `rule` that can end within `remaining` nested expansions."""
        return [
            (i, alternative)
            for i, alternative in enumerate(self.rules[rule])
            if height(alternative, self.heights) <= remaining
        ]

    def sample(self, trial: Suggesting) -> Candidate:
        """A formula drawn by an Optuna trial."""
        return _derive(self, _Drawn(trial))

    def derive(self, choices: Mapping[str, Any]) -> Candidate:
        """The formula that recorded choices give.

        Raises:
            SpaceError: a choice is missing, unknown, out of its range, or left over.
        """
        replay = _Replayed(choices)
        candidate = _derive(self, replay)
        left = [path for path in choices if path not in candidate.choices]
        if left:
            known = list(candidate.choices)
            raise SpaceError(*(f"{p}: not a choice here{near_miss(p, known)}" for p in left))
        return candidate

    def count(self) -> Count:
        """The number of derivations, exactly, without listing them."""
        return count(self)

    def candidates(self) -> Iterator[Candidate]:
        """Every derivation, low ones first; a continuous range stands at its middle."""
        for level in range(1, self.depth + 1):
            for found, choices in _listed(self, self.start, self.start, self.depth, level):
                if found == level:
                    yield self.derive(choices)

    def find(self, expression: Expression, limit: int = 5000) -> dict[str, Any] | None:
        """The choices of a derivation that is the same function, among the first `limit`."""
        wanted = fingerprint(expression)
        values = _values(expression)
        for candidate in islice(self.candidates(), limit):
            # Values at eight points first: a fingerprint differentiates, at fifty times the cost.
            near = np.allclose(_values(candidate.expression), values, 1e-6, 1e-8, equal_nan=True)
            if near and fingerprint(candidate.expression) == wanted:
                return candidate.choices
        return None

    def text(self) -> dict[str, list[str]]:
        """The rules as they stand in a space file."""
        return {rule: [a.text for a in alternatives] for rule, alternatives in self.rules.items()}


def _values(expression: Expression) -> np.ndarray:
    inputs = {"x": PROBE, "u": np.cos(PROBE)}
    return np.broadcast_to(evaluate(expression.body, inputs, expression.initial), PROBE.shape)


# --- one derivation -----------------------------------------------------------------------------


class _Chooser(Protocol):
    """Where the choices of a derivation come from; notes those that it made."""

    choices: dict[str, Any]

    def among(self, path: str, options: Sequence[Any]) -> Any: ...
    def number(self, path: str, interval: Interval) -> float: ...


class _Drawn:
    """Choices drawn by an Optuna trial."""

    def __init__(self, trial: Suggesting):
        self.trial = trial
        self.choices: dict[str, Any] = {}

    def among(self, path: str, options: Sequence[Any]) -> Any:
        self.choices[path] = self.trial.suggest_categorical(path, options)
        return self.choices[path]

    def number(self, path: str, interval: Interval) -> float:
        low, high, log = interval.low, interval.high, interval.log
        self.choices[path] = self.trial.suggest_float(path, low, high, log=log)
        return self.choices[path]


class _Replayed:
    """Choices read from a record."""

    def __init__(self, recorded: Mapping[str, Any]):
        self.recorded = recorded
        self.choices: dict[str, Any] = {}

    def among(self, path: str, options: Sequence[Any]) -> Any:
        value = self._recorded(path)
        if value not in options or isinstance(value, bool):
            near = near_miss(str(value), [str(option) for option in options])
            raise SpaceError(f"{path}: {shown(value)} is no choice here{near}")
        self.choices[path] = value
        return value

    def number(self, path: str, interval: Interval) -> float:
        value = self._recorded(path)
        low, high = interval.low, interval.high
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise SpaceError(
                f"{path}: expected a number in [{low:g}, {high:g}], got {shown(value)}"
            )
        if not low <= value <= high:
            raise SpaceError(
                f"{path}: `low <= value <= high` must hold, but got (low={low:g}, value={value:g},"
                f" high={high:g})"
            )
        self.choices[path] = value
        return float(value)

    def _recorded(self, path: str) -> Any:
        if path not in self.recorded:
            raise SpaceError(f"{path}: this choice is missing{near_miss(path, self.recorded)}")
        return self.recorded[path]


def _derive(grammar: Grammar, chooser: _Chooser) -> Candidate:
    declared: dict[str, Declaration] = {}
    penalties: list[Node] = []
    body = _expand(grammar, grammar.start, grammar.start, chooser, declared, penalties)
    penalty = penalties[0] if penalties else None
    for other in penalties[1:]:
        penalty = Call("add", (penalty, other)) if penalty else other
    return Candidate(Expression(body, tuple(declared.values()), penalty), chooser.choices)


def _expand(
    grammar: Grammar,
    rule: str,
    path: str,
    chooser: _Chooser,
    declared: dict[str, Declaration],
    penalties: list[Node],
) -> Node:
    """The node of one expansion; its parameters go to `declared`, under names of their own."""
    i, alternative = _pick(grammar, rule, path, chooser)
    leaves: dict[Node, Node] = {}
    for declaration in alternative.declarations:
        leaves[Parameter(declaration.name)] = Parameter(_declare(declaration, declared))
    for number in alternative.ranges:
        value = _draw(number, f"{path}[{i}].{number.name}", chooser)
        leaves[Parameter(number.name)] = Number(value)
    for child in alternative.children:
        step = f"{path}/{child.step}"
        leaves[child.leaf] = _expand(grammar, child.rule, step, chooser, declared, penalties)
    if alternative.penalty is not None:
        penalties.append(_filled(alternative.penalty, leaves))
    return _filled(alternative.body, leaves)


def _pick(grammar: Grammar, rule: str, path: str, chooser: _Chooser) -> tuple[int, Alternative]:
    options = grammar.available(rule, remaining(grammar, path))
    if len(options) == 1:
        return options[0]
    texts = [alternative.text for _, alternative in options]
    return options[texts.index(chooser.among(path, texts))]


def remaining(grammar: Grammar, path: str) -> int:
    """How many nested expansions are left at `path`, its own included."""
    return grammar.depth - path.count("/")


def _declare(declaration: Declaration, declared: dict[str, Declaration]) -> str:
    """A name of its own for a parameter: k, k2, k3 …; equal `fixed` ones share theirs."""
    name, n = declaration.name, 1
    while name in declared:
        known = declared[name]
        if declaration.scope == known.scope == "fixed" and declaration.initial == known.initial:
            return name
        n += 1
        name = f"{declaration.name}{n}"
    declared[name] = Declaration(name, declaration.initial, declaration.scope)
    return name


def _draw(number: Interval | Choice, path: str, chooser: _Chooser) -> float:
    if isinstance(number, Interval):
        return rounded(chooser.number(path, number), number)
    if len(number.values) == 1:
        return number.values[0]
    return chooser.among(path, list(number.values))


def rounded(value: float, interval: Interval) -> float:
    """Four significant digits, inside the interval: formulas that can be read and repeated."""
    return min(max(float(f"{value:.4g}"), interval.low), interval.high)


def _filled(node: Node, leaves: Mapping[Node, Node]) -> Node:
    """`node` with its leaves replaced; a sign before a number becomes part of it, as in parsing."""

    def replace(current: Node) -> Node:
        match current:
            case Call("neg", (Number() as number,)):
                return negative(number)
            case _:
                return leaves.get(current, current)

    return map_nodes(node, replace)


# --- all derivations ----------------------------------------------------------------------------


def count(grammar: Grammar) -> Count:
    """Level by level: what a rule can do within n expansions, from what it can within n - 1."""
    below = dict.fromkeys(grammar.rules, Count(0, 0))
    for level in range(1, grammar.depth + 1):
        now = {}
        for rule in grammar.rules:
            parts = [_count_one(a, below) for _, a in grammar.available(rule, level)]
            total = sum(part.derivations for part in parts)
            now[rule] = Count(total, max((part.continuous for part in parts), default=0))
        below = now
    return below[grammar.start]


def _count_one(alternative: Alternative, below: Mapping[str, Count]) -> Count:
    derivations = 1
    continuous = sum(isinstance(number, Interval) for number in alternative.ranges)
    for number in alternative.ranges:
        derivations *= len(number.values) if isinstance(number, Choice) else 1
    for child in alternative.children:
        derivations *= below[child.rule].derivations
        continuous += below[child.rule].continuous
    return Count(derivations, continuous)


def _listed(
    grammar: Grammar, rule: str, path: str, left: int, level: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Height and choices of every expansion of `rule` no higher than `level`."""
    options = grammar.available(rule, left)
    for i, alternative in options:
        if height(alternative, grammar.heights) > level:
            continue
        picked = {path: alternative.text} if len(options) > 1 else {}
        for drawn in product(*(_numbers(n, f"{path}[{i}]") for n in alternative.ranges)):
            own = picked | {name: value for pair in drawn for name, value in pair.items()}
            steps = [(child.rule, f"{path}/{child.step}") for child in alternative.children]
            for tallest, below in _together(grammar, steps, left - 1, level - 1):
                yield 1 + tallest, own | below


def _numbers(number: Interval | Choice, path: str) -> list[dict[str, float]]:
    name = f"{path}.{number.name}"
    if isinstance(number, Interval):
        return [{name: number.middle}]
    return [{name: value} for value in number.values] if len(number.values) > 1 else [{}]


def _together(
    grammar: Grammar, steps: Sequence[tuple[str, str]], left: int, level: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every combination of the expansions of several rules; lazily, for they can be many."""
    if not steps:
        yield 0, {}
        return
    (rule, path), *rest = steps
    for tallest, first in _listed(grammar, rule, path, left, level):
        for other, others in _together(grammar, rest, left, level):
            yield max(tallest, other), first | others
