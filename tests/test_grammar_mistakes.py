"""What a grammar's author is told."""

from __future__ import annotations

from typing import Any

import pytest

from search.errors import SpaceError
from search.language.parser import parse
from search.space import Grammar, parse_grammar

MISTAKES: list[tuple[dict[str, Any], int | None, str]] = [
    ({}, None, "no rules; expected a rule in capitals, such as F: [x * sigmoid(x)]"),
    ({"F": []}, None, "rule F is empty; expected at least one formula"),
    ({"f": ["x"]}, None, "rule 'f': expected a name in capitals; did you mean 'F'?"),
    (
        {"F": ["x * GATE"], "GATES": ["x"]},
        None,
        "F[0]: undefined rule 'GATE'; did you mean 'GATES'?",
    ),
    (
        {"F": ["x", "x*G"], "G": ["x", "sigmiod(x)"]},
        None,
        "G[1]: unknown primitive 'sigmiod'; did you mean 'sigmoid'?",
    ),
    ({"F": ["x * SIGMOID(x)"]}, None, "F[0]: unknown primitive 'SIGMOID'; did you mean 'sigmoid'?"),
    ({"F": ["x * G(x)"], "G": ["x"]}, None, "F[0]: rule G takes no argument; expected it alone"),
    ({"F": ["a * x"]}, None, "F[0]: unknown name 'a'; known: x, u, pi, e"),
    ({"F": ["x where b = 1 per layer"]}, None, "F[0]: 'b' is declared but never used"),
    ({"F": ["b*b*x where b = 1 per layer, b in [1, 2]"]}, None, "F[0]: 'b' is declared twice"),
    (
        {"F": ["b * x where b = 1 per layr"]},
        None,
        "F[0]: unknown scope 'per layr'; did you mean 'layer'?",
    ),
    (
        {"F": ["B * x where B = 1 per layer"]},
        None,
        "F[0]: 'B' is in capitals, which are rules; expected a lower-case name",
    ),
    (
        {"F": ["pi * x where pi in [1, 2]"]},
        None,
        "F[0]: 'pi' is a word of the language; choose another name",
    ),
    (
        {"F": ["s * x where s in [3, 1]"]},
        None,
        "F[0]: range of 's': `low <= high` must hold, but got (low=3, high=1)",
    ),
    (
        {"F": ["s * x where s in log[0, 1]"]},
        None,
        "F[0]: range of 's': `0 < low` must hold for log[…], but got (low=0)",
    ),
    ({"F": ["s * x where s in {}"]}, None, "F[0]: 's in {}' is empty or lacks a number at a comma"),
    ({"F": ["s * x where s in {1, 1.0}"]}, None, "F[0]: 's in {1, 1.0}' names a number twice"),
    (
        {"F": ["s * x where s in [1, 2, 3]"]},
        None,
        "F[0]: 's in [1, 2, 3]' has 3 numbers; expected two, low and high (or {a, b, c} for"
        " a choice)",
    ),
    (
        {"F": ["s * x where s in (1, 2)"]},
        None,
        "F[0]: cannot read 's in (1, 2)'; expected 's in [a, b]', 's in log[a, b]'"
        " or 's in {a, b, c}'",
    ),
    ({"F": ["s * x where s in [0, 1/0]"]}, None, "F[0]: '1/0' is inf; expected a finite number"),
    ({"F": ["x * x", "G", "x*x"], "G": ["x"]}, None, "F[2]: the same alternative as F[0]"),
    ({"F": ["x"], "G": ["x"]}, None, "rule G cannot be reached from the start rule F"),
    (
        {"F": ["x * G"], "G": ["sin(H)"], "H": ["cos(G)"]},
        5,
        "rule G never ends: every alternative leads back to it or to another such rule;"
        " expected one that does not",
    ),
    (
        {"F": ["x * G", "G"], "G": ["2"]},
        None,
        "F[1]: can end as a formula without its input x (by way of G); expected x in"
        " every derivation",
    ),
    (
        {"F": ["x * std(G)"], "G": ["x", "2"]},
        None,
        "F[0]: 'std(G)' can end as a statistic without x",
    ),
    (
        {"F": ["x + F", "x"]},
        None,
        "depth is missing; expected a bound, since F leads back to itself",
    ),
    ({"F": ["x"]}, 0, "depth: expected a whole number 1 … 32, got 0"),
    (
        {"F": ["x * G"], "G": ["sin(H)"], "H": ["x"]},
        2,
        "depth: no formula ends within 2; the least is 3",
    ),
    (
        {"E": ["x", "E + E"]},
        12,
        "depth 12: a formula can grow to 30,707 characters, the language reads 4,000; expected a"
        " smaller depth or shorter rules",
    ),
    (
        {"E": ["x", "tanh(sin(cos(tanh(E))))"]},
        30,
        "depth 30: a formula can be nested 146 deep, the language reads 100; expected a"
        " smaller depth",
    ),
]


@pytest.mark.parametrize(("rules", "depth", "line"), MISTAKES, ids=[m[2][:40] for m in MISTAKES])
def test_a_mistake_is_told_in_its_line(rules: dict[str, Any], depth: int | None, line: str) -> None:
    with pytest.raises(SpaceError) as error:
        parse_grammar(rules, depth)
    assert f"grammar: {line}" in error.value.problems
    assert all("\n" not in problem for problem in error.value.problems)


def test_one_mistake_is_one_line() -> None:
    told = [len(problems_of(rules, depth)) for rules, depth, _ in MISTAKES]
    assert sorted(told)[-2:] == [1, 2]  # two rules that never end are two


def problems_of(rules: dict[str, Any], depth: int | None) -> tuple[str, ...]:
    with pytest.raises(SpaceError) as error:
        parse_grammar(rules, depth)
    return error.value.problems


@pytest.mark.parametrize(
    "formula",
    ["x * (1 + x", "x *", "__import__('os')", "x.real", "x[0]", "(" * 9999, "lambda: x", ""],
)
def test_what_is_no_formula_is_told_with_its_alternative(formula: str) -> None:
    (line,) = problems_of({"F": ["x", formula]}, None)
    assert line.startswith("grammar: F[1]: ")
    assert len(line) < 250


def test_all_mistakes_are_told_at_once() -> None:
    rules = {
        "F": ["x * G", "sigmiod(x)", "c * x where c = 1 per layer, d = 2 per layer"],
        "G": ["HH"],
        "H": [],
    }
    assert problems_of(rules, 99) == (
        "grammar: rule H is empty; expected at least one formula",
        "grammar: F[1]: unknown primitive 'sigmiod'; did you mean 'sigmoid'?",
        "grammar: F[2]: 'd' is declared but never used",
        "grammar: G[0]: undefined rule 'HH'; did you mean 'H'?",
        "grammar: depth: expected a whole number 1 … 32, got 99",
    )


def test_the_bounds_of_size_hold_for_what_is_derived() -> None:
    """A grammar at the edge of the language's limits derives nothing that cannot be read."""
    grammar = parse_grammar({"E": ["x", "mish(E) * E"]}, 5)
    tallest = {"E": "mish(E) * E"}
    choices = fill(grammar, tallest)
    text = str(grammar.derive(choices).expression)
    assert parse(text) == grammar.derive(choices).expression
    assert len(text) > 500


def fill(grammar: Grammar, choice: dict[str, str]) -> dict[str, str]:
    """The choices of the derivation that always takes the same alternative while it can."""
    found: dict[str, str] = {}
    waiting = ["E"]
    while waiting:
        path = waiting.pop()
        if grammar.depth - path.count("/") > 1:
            found[path] = choice["E"]
            waiting += [f"{path}/E", f"{path}/E#2"]
    return found
