"""The rules of a grammar: formulas in which CAPITALS stand for other rules.

    G: - gompertz(ARG)
       - (1 + 2 * k) * G - k   where k = 0 per layer
    ARG: - s * x               where s in log[0.5, 2]

`where` declares parameters (`k = 0 per layer`, `m = 0.9 fixed`) as in any formula, and numbers
drawn while a formula is derived: `s in [a, b]`, `s in log[a, b]`, `s in {a, b, c}`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from search.errors import ExpressionError, near_miss, shortened
from search.language.expression import Declaration, Input, Node, Parameter, leaves
from search.language.parser import (
    check_name,
    parse_constant,
    parse_declaration,
    parse_node,
    refuse_overflow,
    split_where,
)
from search.space.document import Place, Problems, shown

RULE_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
_RULE_IN_TEXT = re.compile(r"(?<![\w.])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*(?!\w)")
_RANGE = re.compile(r"(?P<name>\w+)\s+in\s+(?P<log>log\s*)?(?P<open>[\[{])(?P<items>.*)[\]}]")

Written = tuple[str, Place]
"""A text of the user with the place where it stands."""


@dataclass(frozen=True, slots=True)
class Interval:
    """`s in [low, high]`, uniform, or `s in log[low, high]`, uniform in the logarithm."""

    name: str
    low: float
    high: float
    log: bool = False

    @property
    def middle(self) -> float:
        """The arithmetic middle, of `log` the geometric one."""
        return math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2


@dataclass(frozen=True, slots=True)
class Choice:
    """`s in {a, b, c}`: one of a few numbers."""

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Child:
    """One occurrence of a rule in an alternative; every occurrence is an expansion of its own."""

    rule: str
    leaf: Parameter
    """The leaf of the body that the expansion takes the place of."""
    step: str
    """`G`, `G#2`, …: its step in the path of a choice."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One line of a rule."""

    text: str
    """As written, with single spaces: what a study stores as the choice."""
    body: Node
    children: tuple[Child, ...] = ()
    declarations: tuple[Declaration, ...] = ()
    ranges: tuple[Interval | Choice, ...] = ()
    penalty: Node | None = None

    @property
    def uses_input(self) -> bool:
        """Whether x or u stands in the line itself."""
        return any(isinstance(leaf, Input) for leaf in leaves(self.body))


Rules = Mapping[str, tuple[Alternative, ...]]


def read_rule(
    rule: str, lines: Sequence[Written], known: Sequence[str], problems: Problems
) -> tuple[Alternative, ...]:
    """The alternatives of `rule`, with every mistake in them noted."""
    found: list[Alternative] = []
    first: dict[tuple[object, ...], int] = {}
    for i, (text, place) in enumerate(lines):
        here = f"{rule}[{i}]"
        try:
            alternative = read_alternative(text, here, known)
        except ExpressionError as error:
            problems.add(place, *error.problems)
            continue
        earlier = first.setdefault(_meaning(alternative), len(found))
        if earlier < len(found):
            problems.add(place, f"{here}: the same alternative as {rule}[{earlier}]")
        found.append(alternative)
    return tuple(found)


def _meaning(a: Alternative) -> tuple[object, ...]:
    return a.body, a.declarations, a.ranges, a.penalty


def read_alternative(text: str, here: str, known: Sequence[str]) -> Alternative:
    """One line of a rule; `known` are the names of all rules.

    Raises:
        ExpressionError: every mistake of the line, each starting with `here`.
    """
    text = " ".join(text.split())
    body_text, clauses, penalty_text = split_where(text, here)
    names = [match[0] for clause in clauses if (match := re.match(r"\w+", clause))]
    occurrences = [rule for rule in _RULE_IN_TEXT.findall(body_text) if rule not in names]
    if called := [rule for rule in occurrences if rule in known and _called(rule, body_text)]:
        raise ExpressionError(f"{here}: rule {called[0]} takes no argument; expected it alone")
    problems = [
        f"{here}: undefined rule {shown(rule)}{near_miss(rule, known)}"
        for rule in dict.fromkeys(occurrences)
        if rule not in known and not _called(rule, body_text)
    ]
    declarations, ranges = _read_clauses(clauses, here, problems)
    problems.extend(_clause_problems(names, body_text, penalty_text, here))
    once = [rule for rule, n in Counter(occurrences).items() if n == 1]
    try:
        parse_node(body_text, {*names, *occurrences}, here)  # told with the text as written
        children, body = _read_body(body_text, names, here)
        penalty = parse_node(penalty_text, {*names, *once}, here) if penalty_text else None
        for part in (body, penalty):
            refuse_overflow(part, here)
    except ExpressionError as error:
        raise ExpressionError(*dict.fromkeys((*problems, *error.problems))) from None
    if problems:
        raise ExpressionError(*dict.fromkeys(problems))
    return Alternative(text, body, children, tuple(declarations), tuple(ranges), penalty)


def _read_body(text: str, names: Sequence[str], here: str) -> tuple[tuple[Child, ...], Node]:
    """The body with its rules told apart: `G + G` is read as `G + G__2`.

    Told apart in the text, since `mish(G)` writes one expansion in two places of the tree.
    """
    children: list[Child] = []
    seen: Counter[str] = Counter()

    def rename(match: re.Match[str]) -> str:
        rule = match[0]
        seen[rule] += 1
        n = seen[rule]
        leaf, step = (rule, rule) if n == 1 else (f"{rule}__{n}", f"{rule}#{n}")
        children.append(Child(rule, Parameter(leaf), step))
        return leaf

    renamed = _RULE_IN_TEXT.sub(rename, text)
    body = parse_node(renamed, {*names, *(child.leaf.name for child in children)}, here)
    return tuple(children), body


def _called(rule: str, body: str) -> bool:
    return re.search(rf"(?<!\w){rule}\s*\(", body) is not None


def _clause_problems(
    names: Sequence[str], body: str, penalty: str | None, here: str
) -> Iterator[str]:
    words = set(re.findall(r"\w+", f"{body} {penalty or ''}"))
    for name, n in Counter(names).items():
        if n > 1:
            yield f"{here}: '{shortened(name)}' is declared twice"
        if name not in words:
            yield f"{here}: '{shortened(name)}' is declared but never used"
        if RULE_NAME.fullmatch(name):
            told = f"'{shortened(name)}' is in capitals, which are rules"
            yield f"{here}: {told}; expected a lower-case name"


def _read_clauses(
    clauses: Sequence[str], here: str, problems: list[str]
) -> tuple[list[Declaration], list[Interval | Choice]]:
    declarations: list[Declaration] = []
    ranges: list[Interval | Choice] = []
    for clause in clauses:
        try:
            if re.match(r"\w+\s+in\b", clause):
                ranges.append(read_range(clause, here))
            else:
                declarations.append(parse_declaration(clause, here))
        except ExpressionError as error:
            problems.extend(error.problems)
    return declarations, ranges


def read_range(clause: str, here: str) -> Interval | Choice:
    """`s in [a, b]`, `s in log[a, b]` or `s in {a, b, c}`; the numbers may be constant formulas.

    Raises:
        ExpressionError: not a range, empty, reversed, or a logarithm of what is not positive.
    """
    match = _RANGE.fullmatch(clause)
    closes = {"[": "]", "{": "}"}
    if match is None or not clause.endswith(closes[match["open"]]) or _log_of_set(match):
        raise ExpressionError(
            f"{here}: cannot read {shown(clause)}; expected 's in [a, b]', 's in log[a, b]'"
            " or 's in {a, b, c}'"
        )
    check_name(match["name"], here)
    values = [parse_constant(item, here) for item in _items(match["items"], clause, here)]
    if match["open"] == "{":
        return _choice(match["name"], values, clause, here)
    return _interval(match["name"], values, bool(match["log"]), clause, here)


def _log_of_set(match: re.Match[str]) -> bool:
    return bool(match["log"]) and match["open"] == "{"


def _items(text: str, clause: str, here: str) -> list[str]:
    """The items between the commas outside brackets."""
    items, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            items.append("")
        else:
            items[-1] += character
    if not all(item.strip() for item in items):
        raise ExpressionError(f"{here}: {shown(clause)} is empty or lacks a number at a comma")
    return items


def _choice(name: str, values: list[float], clause: str, here: str) -> Choice:
    if len(set(values)) < len(values):
        raise ExpressionError(f"{here}: {shown(clause)} names a number twice")
    return Choice(name, tuple(values))


def _interval(
    name: str, values: list[float], log: bool, clause: str, here: str
) -> Interval | Choice:
    if len(values) != 2:
        raise ExpressionError(
            f"{here}: {shown(clause)} has {len(values)} numbers; expected two, low and high"
            " (or {a, b, c} for a choice)"
        )
    low, high = values
    told = f"{here}: range of '{shortened(name)}'"
    if low > high:
        got = f"(low={low:g}, high={high:g})"
        raise ExpressionError(f"{told}: `low <= high` must hold, but got {got}")
    if log and low <= 0:
        raise ExpressionError(f"{told}: `0 < low` must hold for log[…], but got (low={low:g})")
    return Interval(name, low, high, log) if low < high else Choice(name, (low,))
