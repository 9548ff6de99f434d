"""Rules as text to a `Grammar`, with every mistake in them told at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from search.errors import shortened
from search.language.parser import DEEPEST_NESTING, LONGEST_TEXT
from search.space.document import Place, Problems, Value, shown
from search.space.fields import said
from search.space.grammar import Grammar
from search.space.productions import RULE_NAME, Rules, Written, read_rule
from search.space.rules import (
    constant_statistic,
    heights,
    lacks_input,
    longest,
    reachable,
    recursive,
    without_input,
)

DEEPEST = 32


def parse_grammar(rules: Mapping[str, Sequence[str] | str], depth: int | None = None) -> Grammar:
    """A grammar from rules in memory; the first is the start.

    Raises:
        SpaceError: every mistake, one a line.

    >>> rules = {"F": ["x * G"], "G": ["sigmoid(x)", "gompertz(s * x) where s in {1, 2}"]}
    >>> parse_grammar(rules).count().derivations
    3
    """
    problems = Problems()
    place = Place(0, "grammar")

    def value(lines: Sequence[str] | str) -> Value:
        if isinstance(lines, str):
            return Value(lines, place, lines)
        return Value([value(line) for line in lines], place)

    written = {rule: value(lines) for rule, lines in rules.items()}
    found = None if depth is None else Value(depth, place, str(depth))
    grammar = read_grammar(written, found, place, problems)
    problems.stop()
    assert grammar is not None, "without a problem there is a grammar"
    return grammar


def read_grammar(
    written: Mapping[str, Value], depth: Value | None, place: Place, problems: Problems
) -> Grammar | None:
    """The grammar of the rules, or None when a mistake was noted.

    depth: the bound as written, if it is. place: where the grammar's own mistakes are told.
    """
    before = len(problems)
    if not written:
        problems.add(place, "no rules; expected a rule in capitals, such as F: [x * sigmoid(x)]")
        return None
    start, known = next(iter(written)), list(written)
    lines = {rule: _lines(rule, value, problems) for rule, value in written.items()}
    rules = {rule: read_rule(rule, lines[rule], known, problems) for rule in written}
    if len(problems) == before:  # a broken line would make its rule look endless or unreachable
        _check_together(rules, start, written, lines, problems)
    bound = _depth(rules, start, depth, place, problems)
    if len(problems) > before or bound is None:
        return None
    _check_size(rules, start, bound, depth.place if depth else place, problems)
    return Grammar(rules, start, bound) if len(problems) == before else None


def _lines(rule: str, value: Value, problems: Problems) -> list[Written]:
    """The formulas of a rule; what is none is noted and left out."""
    if not RULE_NAME.fullmatch(rule):
        name = rule.upper()
        hint = f"; did you mean '{shortened(name)}'?" if RULE_NAME.fullmatch(name) else ""
        problems.add(value.place, f"rule {shown(rule)}: expected a name in capitals{hint}")
    items = value.data if isinstance(value.data, list) else [value]
    if not items or value.data is None:
        problems.add(value.place, f"rule {rule} is empty; expected at least one formula")
        return []
    found: list[Written] = []
    for i, item in enumerate(items):
        if isinstance(item.data, dict | list) or not item.text.strip():
            got = f"expected a formula, got {said(item)}; quote it if it holds ': '"
            problems.add(item.place, f"{rule}[{i}]: {got}")
        else:
            found.append((item.text, item.place))
    return found


def _check_together(
    rules: Rules,
    start: str,
    written: Mapping[str, Value],
    lines: Mapping[str, Sequence[Written]],
    problems: Problems,
) -> None:
    """Note rules that never end or are never used, and formulas that would lack their input."""
    used, loops = reachable(rules, start), recursive(rules)
    for rule, least in heights(rules).items():
        if rule not in used:
            problems.add(
                written[rule].place, f"rule {rule} cannot be reached from the start rule {start}"
            )
        if math.isinf(least) and rule in loops:  # the others only lead to such a rule
            problems.add(
                written[rule].place,
                f"rule {rule} never ends: every alternative leads back to it or to another such"
                " rule; expected one that does not",
            )
    free = without_input(rules)
    for rule, alternatives in rules.items():
        for i, alternative in enumerate(alternatives):
            place, here = lines[rule][i][1], f"{rule}[{i}]"
            if rule == start and lacks_input(alternative, free):
                names = ", ".join(dict.fromkeys(child.rule for child in alternative.children))
                where = f" (by way of {names})" if names else ""
                line = f"can end as a formula without its input x{where}"
                problems.add(place, f"{here}: {line}; expected x in every derivation")
            elif node := constant_statistic(alternative, free):
                problems.add(place, f"{here}: '{shortened(node)}' can end as a statistic without x")


def _depth(
    rules: Rules, start: str, depth: Value | None, place: Place, problems: Problems
) -> int | None:
    """The bound as written; for rules without recursion their own depth by default."""
    loops = sorted(recursive(rules) & reachable(rules, start))
    if depth is None:
        if not loops:
            return len(rules)
        problems.add(
            place, f"depth is missing; expected a bound, since {loops[0]} leads back to itself"
        )
        return None
    bound = depth.data
    if not isinstance(bound, int) or isinstance(bound, bool) or not 1 <= bound <= DEEPEST:
        shown_as = said(depth)
        problems.add(depth.place, f"depth: expected a whole number 1 … {DEEPEST}, got {shown_as}")
        return None
    least = heights(rules)[start]
    if bound < least < math.inf:
        problems.add(depth.place, f"depth: no formula ends within {bound}; the least is {least}")
    return bound


def _check_size(rules: Rules, start: str, depth: int, place: Place, problems: Problems) -> None:
    characters, nesting = longest(rules, heights(rules), depth, start)
    if characters > LONGEST_TEXT:
        problems.add(
            place,
            f"depth {depth}: a formula can grow to {characters:,} characters, the language reads"
            f" {LONGEST_TEXT:,}; expected a smaller depth or shorter rules",
        )
    if nesting > DEEPEST_NESTING:
        problems.add(
            place,
            f"depth {depth}: a formula can be nested {nesting} deep, the language reads"
            f" {DEEPEST_NESTING}; expected a smaller depth",
        )
