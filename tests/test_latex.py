"""Expressions as mathematics."""

from __future__ import annotations

import pytest

from search.language.derivative import derivative
from search.language.expression import (
    X,
)
from search.language.latex import latex, latex_name, latex_number
from search.language.parser import (
    parse,
)
from search.language.simplify import (
    canonical_expression,
)
from tests.cases import (
    CASES,
    WRITTEN,
    expression,
)
from tests.language_cases import readable


@pytest.mark.parametrize("name", CASES)
def test_matplotlib_reads_every_case(name: str):
    e = expression(name)
    readable(latex(e))
    readable(latex(canonical_expression(e)))
    if e.penalty:
        readable(latex(e.penalty))


@pytest.mark.parametrize("name", WRITTEN)
def test_matplotlib_reads_every_slope(name: str):
    readable(latex(derivative(expression(name), X)))


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("x * sigmoid(x)", r"x \, \sigma\left(x\right)"),
        ("(x + 1) * x", r"\left(x + 1\right) \, x"),
        ("x * -2", r"x \, \left(-2\right)"),
        ("x + -2", r"x + \left(-2\right)"),
        ("x - (1 - x)", r"x - \left(1 - x\right)"),
        ("-(-x)", r"-\left(-x\right)"),
        ("x * 2", r"x \cdot 2"),
        ("2 * 3 * x", r"2 \cdot 3 \, x"),
        ("-x**2", r"-x^{2}"),
        ("(-x)**2", r"\left(-x\right)^{2}"),
        ("(x**2)**3", r"\left(x^{2}\right)^{3}"),
        ("x / 2", r"\frac{x}{2}"),
        ("(x / 2)**2", r"\left(\frac{x}{2}\right)^{2}"),
        ("exp(x)**2", r"\left(e^{x}\right)^{2}"),
        ("1e-6**x", r"\left(10^{-6}\right)^{x}"),
        ("x * 3e20", r"x \cdot 3 \cdot 10^{20}"),
        ("rsqrt(x)**2", r"\left(\frac{1}{\sqrt{x}}\right)^{2}"),
        ("std(x, over=tensor)", r"\mathrm{std}_{\mathrm{tensor}}\left(x\right)"),
        ("beta1 * x where beta1 = 1 per layer", r"\beta_{1} \, x"),
    ],
)
def test_latex(text: str, wanted: str):
    assert latex(parse(text)) == wanted
    readable(wanted)


def test_latex_names_and_numbers():
    names = {
        "lam": r"\lambda",
        "w0": "w_{0}",
        "x_1": "x_{1}",
        "mu": r"\mu",
        "gain": r"\mathrm{gain}",
    }
    assert {name: latex_name(name) for name in names} == names
    numbers = {0.5: "0.5", 3.0: "3", 1e-6: "10^{-6}", 2e-7: r"2 \cdot 10^{-7}", 1 / 3: "0.333333"}
    assert {value: latex_number(value) for value in numbers} == numbers
    for name in ("a_b", "a_", "omicron", "Q", "alpha_12", "b2c", "in2"):
        readable(latex_name(name))
