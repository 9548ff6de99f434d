"""Text to expressions and back, and what a user is told about a mistake."""

from __future__ import annotations

import numpy as np
import pytest

from search.errors import ExpressionError
from search.language.derivative import derivative
from search.language.expression import (
    STATISTICS,
    Call,
    Declaration,
    Parameter,
    Statistic,
    U,
    leaves,
    substitute,
    walk,
)
from search.language.parser import (
    ABBREVIATIONS,
    FUNCTIONS,
    parse,
    parse_declaration,
    parse_node,
    split_where,
)
from search.language.primitives import PRIMITIVES
from search.language.simplify import (
    canonical_expression,
    fold_fixed,
)
from tests.cases import (
    CASES,
    WRITTEN,
    expression,
)
from tests.language_cases import variables


def test_the_cases_cover_the_language():
    nodes = [node for name in WRITTEN for node in walk(expression(name).body)]
    assert {n.function for n in nodes if isinstance(n, Call)} == set(PRIMITIVES)
    statistics = [n for n in nodes if isinstance(n, Statistic)]
    assert {n.kind for n in statistics} == set(STATISTICS)
    assert {n.over for n in statistics} == {"features", "sample", "tensor"}
    assert {n.detach for n in statistics} == {True, False}
    scopes = {p.scope for name in WRITTEN for p in expression(name).parameters}
    assert scopes == {"layer", "channel", "fixed"}
    assert any(expression(name).penalty for name in WRITTEN)
    assert any(U in leaves(expression(name).body) for name in WRITTEN)
    assert all(f"{name}(" in " ".join(WRITTEN.values()) for name in (*FUNCTIONS, *ABBREVIATIONS))


# --- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_text_parses_back(name: str):
    e = expression(name)
    assert parse(str(e)) == e
    assert str(parse(str(e))) == str(e)
    for form in (fold_fixed(e), canonical_expression(e)):
        names = [p.name for p in form.parameters]
        assert parse_node(str(form.body), names) == form.body


@pytest.mark.parametrize("name", CASES)
def test_derivatives_parse_back(name: str):
    e = expression(name)
    names = [p.name for p in e.parameters]
    for leaf in variables(e):
        slope = derivative(e, leaf)
        assert parse_node(str(slope), names) == slope


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("x*sigmoid(b*x) where b=1 per layer", "x * sigmoid(b * x) where b = 1 per layer"),
        ("  x\n * \t sin( x )", "x * sin(x)"),
        ("-x**2", "-x ** 2"),
        ("(-x)**2", "(-x) ** 2"),
        ("(x**2)**3", "(x ** 2) ** 3"),
        ("x**2**3", "x ** 2 ** 3"),
        ("x**-2", "x ** -2"),
        ("x - (1 - x)", "x - (1 - x)"),
        ("x / (2 * x)", "x / (2 * x)"),
        ("x * 2 / x", "x * 2 / x"),
        ("-2 * x", "-2 * x"),
        ("-(2 * x)", "-(2 * x)"),
        ("+x - -1", "x - -1"),
        ("(-2)**x", "(-2) ** x"),
        ("1.50e+3 * x", "1500 * x"),
        ("1e-7 + x", "1e-07 + x"),
        ("((x))", "x"),
        ("std(x, detach)", "std(x, detach=True)"),
        ("std(x, over=features, detach=False)", "std(x)"),
        ("std(x, detach = True, over = tensor)", "std(x, over=tensor, detach=True)"),
        ("select(x>0, x, -x)", "select(x > 0, x, -x)"),
        ("silu(x)", "x * sigmoid(x)"),
        ("x*a where a=1/3 fixed", "x * a where a = 0.3333333333333333 fixed"),
        (
            "x*a where a = sqrt(2/pi)  per   channel",
            f"x * a where a = {(2 / np.pi) ** 0.5!r} per channel",
        ),
        ("x*a where a=-2 per layer penalty a**2", "x * a where a = -2 per layer penalty a ** 2"),
        ("x penalty mean(x)", "x penalty mean(x)"),
    ],
)
def test_the_normal_text(text: str, wanted: str):
    assert str(parse(text)) == wanted


def test_split_where_leaves_ranges_alone():
    text = "a * x where a = 1 per layer, s in log[0.5, 2], k in {1, 2} penalty x"
    parts = ("a * x", ["a = 1 per layer", "s in log[0.5, 2]", "k in {1, 2}"], "x")
    assert split_where(text) == parts


def test_declarations():
    assert parse_declaration("a = 1 per layer") == Declaration("a", 1.0, "layer")
    assert parse_declaration(" b=-1/4  per  channel ") == Declaration("b", -0.25, "channel")
    assert parse_declaration("m_2 = pi fixed") == Declaration("m_2", np.pi, "fixed")


def test_inputs_and_trainable_parameters():
    e = parse("u * x * a + b where a = 1 per layer, b = 2 fixed")
    assert e.inputs == ("x", "u") and parse("x").inputs == ("x",)
    assert [p.name for p in e.trainable] == ["a"]
    assert e.initial == {"a": 1.0, "b": 2.0}


def test_substitute_replaces_at_once():
    e = parse_node("a * x + b", ("a", "b"))
    swapped = substitute(e, {Parameter("a"): Parameter("b"), Parameter("b"): Parameter("a")})
    assert str(swapped) == "b * x + a"


# --- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ("x * sigmiod(x)", "f: unknown primitive 'sigmiod'; did you mean 'sigmoid'?"),
        ("x * bata where beta = 1 per layer", "f: unknown name 'bata'; did you mean 'beta'?"),
        ("x where a = 1 per layer", "f: 'a' is declared but never used"),
        ("a*x where a = 1 per layer, a = 2 fixed", "f: 'a' is declared twice"),
        (
            "a*x where a = 1",
            "f: cannot read 'a = 1'; expected 'name = value per layer', 'name = value per channel'"
            " or 'name = value fixed'",
        ),
        ("a*x where a = 1 per chanel", "f: unknown scope 'per chanel'; did you mean 'channel'?"),
        ("sin*x where sin = 1 fixed", "f: 'sin' is a word of the language; choose another name"),
        ("sin * x", "f: 'sin' is a function; expected 'sin(…)'"),
        ("sin(x, x)", "f: sin() takes 1 argument, got 2"),
        ("select(x, 1, x)", "f: select() begins with one comparison: > >= < or <=, as in 'x > 0'"),
        ("x > 0", "f: a comparison belongs inside select(…): 'select(x > 0, a, b)'"),
        ("std(x, over=batch)", "f: std(…, over=batch); known: features, sample, tensor"),
        ("std(x, detach=1)", "f: std(…, detach=1); expected True or False"),
        ("std(x, axis=1)", "f: std() has no option 'axis'; known: over, detach"),
        ("mean(2) * x", "f: mean() of something without x is no statistic"),
        ("mean(a) * x where a = 1 per channel", "f: 'mean(a)' is no statistic: it has no x"),
        ("1 + 2", "f: the formula does not use its input x"),
        ("x / 0 + 1 / 0", "f: '1 / 0' is inf; expected a finite number"),
        ("x * log(-1)", "f: 'log(-1)' is nan; expected a finite number"),
        ("a * x where a = x fixed", "f: 'x' must be a constant, without x or names"),
        (
            "x.real",
            "f: an attribute ('a.b') is not part of the language; it knows numbers, x, u, declared"
            " names, + - * / ** and the functions of its table",
        ),
    ],
)
def test_messages(text: str, message: str):
    with pytest.raises(ExpressionError) as caught:
        parse(text, "f")
    assert str(caught.value) == message
