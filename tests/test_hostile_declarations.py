"""Calls, declarations and penalties gone wrong, and names that cannot be."""

from __future__ import annotations

import pytest

from search.language.parser import RESERVED
from tests.hostile_cases import refusal

pytestmark = pytest.mark.usefixtures("no_hang")


@pytest.mark.parametrize(
    "text",
    [
        "sin(*x)",
        "sin(**x)",
        "sin(*(x,))",
        "sin(x, *x)",
        "sin(a=x)",
        "sin(x, axis=0)",
        "max(x)",
        "max(x, x, x)",
        "sin()",
        "clip(x, 1)",
        "select(x, x, x)",
        "select(x > 0, x)",
        "select(0 < x < 1, x, x)",
        "select(x == 0, x, x)",
        "select(not x > 0, x, x)",
        "select(x > 0 and u > 0, x, x)",
        "select((x > 0) > 0, x, x)",
        "max(x > 0, x)",
        "x * (x > 0)",
        "mean()",
        "mean(x, x)",
        "mean(x, over=x)",
        "mean(x, over='features')",
        "mean(x, over=[features])",
        "mean(x, over=features, over=sample)",
        "mean(x, detach=0)",
        "mean(x, detach=1)",
        "mean(x, detach=None)",
        "mean(x, detach=x)",
        "mean(x, detach==True)",
        "mean(x, True)",
        "mean(x, **x)",
        "mean(1)",
        "mean(pi)",
        "detach",
        "x * detach",
        "sin(x, detach)",
        "over",
        "features",
        "add(x, x)",
        "mul(x, x)",
        "neg(x)",
        "gt(x, 0)",
        "dy * x",
        "X",
        "Sin(x)",
    ],
)
def test_calls_gone_wrong(text: str):
    refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "x where",
        "x where ",
        "x where ,",
        "a * x where a = 1 per layer,",
        "a * x where , a = 1 per layer",
        "where a = 1 per layer",
        "a * x where a = 1 per layer where b = 1 per layer",
        "a * x where a = 1 where per layer",
        "a * x where a",
        "a * x where a = 1",
        "a * x where a per layer",
        "a * x where = 1 per layer",
        "a * x where a = per layer",
        "a * x where a == 1 per layer",
        "a * x where a := 1 per layer",
        "a * x where a = 1 per layer per channel",
        "a * x where a = 1 fixed fixed",
        "a * x where a = 1 per",
        "a * x where a = 1 per batch",
        "a * x where a = 1 Per Layer",
        "a * x where a = x per layer",
        "a * x where a = a per layer",
        "a * x where a = b per layer, b = 1 per layer",
        "a * x where a = 1/0 per layer",
        "a * x where a = 1e999 per layer",
        "a * x where a = nan per layer",
        "a * x where a = inf per layer",
        "a * x where a = (1 per layer",
        "a * x where a = 1) per layer",
        "a * x where a = mean(1) per layer",
        "a * x where a in [0, 1]",
        "a * x where a = 1 per layer; b = 2 fixed",
        "a * x where a = 1 per layer, a = 1 per layer",
        "a * x where a = 1 per layer, b = 1 per layer",
        "x where a = 1 per layer",
        "a * x",
        "a where a = 1 per layer",
        "x penalty",
        "x penalty ",
        "penalty x",
        "x penalty x penalty x",
        "x penalty a",
        "x penalty x where a = 1 per layer",
        "x penalty 1/0",
        "a * x where a = 1 per layer penalty b",
        "1",
        "pi * e",
    ],
)
def test_where_and_penalty_gone_wrong(text: str):
    refusal(text)


@pytest.mark.parametrize(
    "name",
    [
        *sorted(RESERVED),
        *("lambda", "if", "None", "True", "import", "class", "is", "not", "async"),
        *("_a", "__import__", "1a", "a.b", "a-b", "a b", "é", "a\u0301", "ａ", "", "*", "a[0]"),
    ],
)
def test_names_that_cannot_be_declared(name: str):
    refusal(f"x where {name} = 1 per layer")
    refusal(f"x * {name} where {name} = 1 per layer")


def test_long_names_are_shortened_in_messages():
    refusal("a" * 3_000)
    refusal("a" * 1_500 + "(x)")
    refusal("x where " + "a" * 1_500 + " = b per layer")
    refusal("x * " + "y" * 100 + "." + "z" * 3_000)
    refusal("std(x, over=" + "y" * 3_000 + ")")
    refusal("std(x, " + "y" * 3_000 + "=1)")
    refusal("sin(" + "y" * 3_000 + "=1)")
