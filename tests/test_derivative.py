"""Derivatives of expressions, through statistics too."""

from __future__ import annotations

import numpy as np
import pytest
from mpmath import mp

from search.language.derivative import derivative, gradients, rule_node
from search.language.evaluate import evaluate
from search.language.expression import (
    COMPARISONS,
    DY,
    Expression,
    Node,
    Number,
    Parameter,
    Statistic,
    X,
    leaves,
    substitute,
    walk,
)
from search.language.parser import (
    parse,
)
from search.language.primitives import PRIMITIVES
from search.language.simplify import (
    fold_fixed,
)
from tests.cases import (
    expression,
    moved_parameters,
    sample_inputs,
)
from tests.exact import DIGITS, exact, exact_slope
from tests.exact import FUNCTIONS as EXACT_FUNCTIONS
from tests.language_cases import EPS, POINTWISE, WITH_STATISTICS, at_point, points, variables


@pytest.mark.parametrize("function", [f for f in PRIMITIVES if f not in (*COMPARISONS, "select")])
def test_rules_of_the_table(function: str):
    """25 points for each of 55 rules: more than 1,000."""
    row = EXACT_FUNCTIONS[function]
    with mp.workdps(DIGITS):
        for arguments in points(function).T:
            names = dict(zip("abc", arguments, strict=False))
            for i in range(len(arguments)):
                if function == "pow" and i == 1 and arguments[0] < 0:
                    continue  # (-2.5)**b is not a real function of b
                partial = (1 if k == i else 0 for k in range(len(arguments)))
                wanted = float(mp.diff(row, tuple(map(mp.mpf, arguments)), tuple(partial)))
                given = float(evaluate(rule_node(function, i), {}, names))
                assert abs(given - wanted) <= 32 * EPS * max(abs(wanted), 1.0)


def test_the_number_of_points_of_the_rules():
    rules = sum(row.arity for f, row in PRIMITIVES.items() if f not in (*COMPARISONS, "select"))
    assert 25 * rules - 5 >= 1_000


@pytest.mark.parametrize("name", POINTWISE)
def test_derivatives_by_every_variable(name: str):
    """Formula against difference quotient, both at 40 digits: only folded literals are rounded."""
    e = expression(name)
    names = {**sample_inputs((6,), seed=1), **moved_parameters(e)}
    constants: dict[Node, Node] = {
        Parameter(p.name): Number(p.initial) for p in e.parameters if p.scope == "fixed"
    }
    body = substitute(e.body, constants)
    with mp.workdps(DIGITS):
        for leaf in variables(e):
            slope = derivative(e, leaf)
            for i in range(6):
                place = at_point(names, i)
                wanted = exact_slope(body, str(leaf), place)
                assert abs(exact(slope, place) - wanted) <= 1e-13 * max(abs(wanted), 1), leaf


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_derivatives_through_statistics(name: str):
    """dy · f against central differences of every element, with detached statistics held."""
    e = fold_fixed(expression(name))
    inputs, dy = sample_inputs((2, 3, 4), seed=2), np.random.default_rng(3).normal(size=(2, 3, 4))
    names = {**inputs, **moved_parameters(e)}
    held = [n for n in walk(e.body) if isinstance(n, Statistic) and n.detach]
    body = substitute(e.body, {n: Parameter(f"held{i}") for i, n in enumerate(held)})
    constants = {f"held{i}": evaluate(n, names) for i, n in enumerate(held)}
    slopes = gradients(e, variables(e))

    def total(changed: dict) -> float:
        y = evaluate(body, {**names, **changed, **constants})
        return float((dy * np.broadcast_to(y, dy.shape)).sum())

    h = EPS ** (1 / 3)
    for leaf in variables(e):
        start = np.asarray(names[str(leaf)])
        given = np.broadcast_to(evaluate(slopes[leaf], {**names, "dy": dy}), dy.shape)
        given = given if start.ndim else given.sum(keepdims=True).reshape(())
        for index in np.ndindex(start.shape):
            step = np.zeros_like(start)
            step[index] = h
            wanted = (total({str(leaf): start + step}) - total({str(leaf): start - step})) / (2 * h)
            # h**2 from the third derivative, eps / h from round-off: both eps**(2/3).
            scale = max(1.0, abs(wanted), abs(total({})))
            assert abs(given[index] - wanted) <= 50 * EPS ** (2 / 3) * scale, (leaf, index)


def test_no_statistic_of_a_constant_is_left():
    assert derivative(parse("mean(x)"), X) == Number(1.0)
    assert str(derivative(parse("2 * mean(x**2)"), X)) == "2 * (2 * x)"


def test_the_derivative_of_a_choice_is_a_choice():
    slope = derivative(parse("select(x > 0, sqrt(x), exp(x))"), X)
    x = np.array([-800.0, -1.0, 4.0, 800.0])
    wanted = np.array([0.0, np.exp(-1.0), 0.25, 0.5 / np.sqrt(800.0)])
    np.testing.assert_allclose(evaluate(slope, {"x": x}), wanted, rtol=4 * EPS)


def test_the_slope_by_an_exponent_at_a_zero_base():
    slope = derivative(parse("relu(x)**p where p = 2 per layer"), Parameter("p"))
    given = evaluate(slope, {"x": [-1.0, 0.0, 3.0]}, {"p": 2.0})
    np.testing.assert_allclose(given, [0.0, 0.0, 9 * np.log(3.0)], rtol=4 * EPS)


@pytest.mark.parametrize("text", ["elu(x)", "select(x > 0, x, expm1(x))", "max(x, tanh(x))"])
def test_smooth_joints_have_their_slope(text: str):
    slope = float(evaluate(derivative(parse(text), X), {"x": 0.0}))
    assert slope == 1.0


@pytest.mark.parametrize(
    "text, at_zero",
    [
        ("relu(x)", 0),
        ("max(x, 0)", 0),
        ("abs(x)", 0),
        ("clip(x, 0, 1)", 0),
        ("leaky_relu(x)", 0.01),
    ],
)
def test_conventions_at_kinks_are_those_of_torch(text: str, at_zero: float):
    assert float(evaluate(derivative(parse(text), X), {"x": 0.0})) == at_zero


def test_upstream_multiplies():
    e = parse("u * sin(x)")
    (slope,) = gradients(e, (X,)).values()
    names = {**sample_inputs((7,)), "dy": np.linspace(-1, 1, 7)}
    wanted = names["dy"] * names["u"] * np.cos(names["x"])
    np.testing.assert_allclose(evaluate(slope, names), wanted, rtol=4 * EPS)
    assert derivative(e, Parameter("none")) == Number(0.0)
    assert DY in set(leaves(slope))


def test_second_derivatives():
    e = parse("x * gompertz(x)")
    second = derivative(Expression(derivative(e, X)), X)
    with mp.workdps(DIGITS):
        for x in (-1.5, -0.3, 0.0, 1.2, 4.0):
            wanted = float(mp.diff(lambda t: exact(e.body, {"x": t}), mp.mpf(x), 2))
            assert abs(float(evaluate(second, {"x": x})) - wanted) <= 64 * EPS
