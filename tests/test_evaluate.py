"""Values of expressions against references."""

from __future__ import annotations

import numpy as np
import pytest
from mpmath import mp

from search.language.derivative import rule_node
from search.language.evaluate import evaluate, evaluate_expression
from search.language.expression import (
    COMPARISONS,
    STATISTICS,
    Call,
    X,
)
from search.language.parser import (
    parse,
)
from search.language.primitives import PRIMITIVES
from tests.cases import (
    expression,
    moved_parameters,
    sample_inputs,
)
from tests.exact import DIGITS, exact
from tests.exact import FUNCTIONS as EXACT_FUNCTIONS
from tests.language_cases import EPS, POINTWISE, at_point, points, rounding

UNARY = [row.name for row in PRIMITIVES.values() if row.arity == 1]


@pytest.mark.parametrize("function", [f for f in PRIMITIVES if f not in COMPARISONS])
def test_primitives_are_their_definitions(function: str):
    with mp.workdps(DIGITS):
        for arguments in points(function).T:
            given = float(PRIMITIVES[function].reference(*arguments))
            wanted = float(EXACT_FUNCTIONS[function](*map(mp.mpf, arguments)))
            # Relative, save at the zeros of waves: exp(t) of a rounded t is off by |t| eps.
            steps = 4 + 2 * abs(np.log(abs(wanted))) if wanted else 1
            scale = 1.0 if function in ("sin", "cos", "sinc") else abs(wanted)
            assert abs(given - wanted) <= steps * EPS * scale


@pytest.mark.parametrize("function", [*COMPARISONS])
def test_comparisons(function: str):
    assert [
        bool(PRIMITIVES[function].reference(np.float64(a), np.float64(0))) for a in (-1, 0, 1)
    ] == [EXACT_FUNCTIONS[function](a, 0) for a in (-1, 0, 1)]


@pytest.mark.parametrize(
    "function, low, high",
    [
        ("sigmoid", -700, 700),
        ("gompertz", -6.5, 700),
        ("normal_cdf", -37, 37),
        ("arctan_gate", -1e8, 1e8),
        ("gumbel_pdf", -6.5, 700),
        ("normal_pdf", -37, 37),
        ("softplus", -700, 700),
        ("erfc", -20, 26),
        ("expm1", -700, 700),
    ],
)
def test_gates_keep_their_digits_in_the_tails(function: str, low: float, high: float):
    """The value and the table's slope, relative: GoLU's left tail is 1e-64 and right to 1e-13."""
    for a in np.linspace(low, high, 41):
        with mp.workdps(130):  # a slope of 1e-100 beside a value of 1
            row = EXACT_FUNCTIONS[function]
            wanted, slope = row(mp.mpf(a)), mp.diff(row, mp.mpf(a))
            for node, true in ((Call(function, (X,)), wanted), (rule_node(function, 0), slope)):
                if abs(true) > 1e-100:
                    given = float(evaluate(node, {"x": a}, {"a": a}))
                    size = 8 + 8 * float(abs(mp.log(abs(true))))
                    assert abs(given - true) <= size * EPS * abs(true), a


@pytest.mark.parametrize("function", UNARY)
def test_nan_and_infinity(function: str):
    reference = PRIMITIVES[function].reference
    with np.errstate(all="ignore"):
        assert np.isnan(reference(np.float64(np.nan)))
        low, high = PRIMITIVES[function].range
        right = np.array([0.0, 0.5, 1.0, 40.0, 1e300, np.inf])
        values = reference(np.concatenate([-right[1:], right]))
        values = values[~np.isnan(values)]
        assert ((low <= values) & (values <= high)).all()


def test_saturated_gates_reach_their_ends():
    for gate in ("gompertz", "sigmoid", "normal_cdf", "arctan_gate", "arcsin_gate"):
        low, high = (float(PRIMITIVES[gate].reference(np.float64(a))) for a in (-np.inf, np.inf))
        assert (low, high) == PRIMITIVES[gate].range == (0, 1)


@pytest.mark.parametrize("name", POINTWISE)
def test_evaluation_of_whole_formulas(name: str):
    """Float64 against 40 digits, to the rounding of every operation at the largest intermediate."""
    e = expression(name)
    names = {**sample_inputs((12,)), **moved_parameters(e)}
    values = evaluate(e.body, names)
    tolerance = rounding(e.body, names)
    with mp.workdps(DIGITS):
        for i in range(12):
            wanted = float(exact(e.body, at_point(names, i)))
            assert abs(np.broadcast_to(values, 12)[i] - wanted) <= tolerance


def test_statistics_reduce_what_they_name():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    axes = {"features": (3,), "sample": (1, 2, 3), "tensor": (0, 1, 2, 3)}
    for over, axis in axes.items():
        wanted = {
            "mean": x.mean(axis, keepdims=True),
            "var": x.var(axis, keepdims=True),
            "std": x.std(axis, keepdims=True),
            "rms": np.sqrt((x**2).mean(axis, keepdims=True)),
        }
        for kind in STATISTICS:
            given = evaluate(parse(f"{kind}(x, over={over})").body, {"x": x})
            np.testing.assert_array_equal(given, wanted[kind])
    assert evaluate_expression(parse("mean(x) + 0 * x"), x=x).shape == x.shape
    assert evaluate_expression(parse("mean(x)"), x=x).shape == x.shape
