"""The language: text, derivatives, simplification, canonical form, fingerprints, LaTeX, values."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.mathtext import MathTextParser
from mpmath import mp
from numpy.typing import NDArray

from search.errors import ExpressionError
from search.language.catalog import CATALOG
from search.language.derivative import derivative, gradients, rule_node
from search.language.evaluate import evaluate, evaluate_expression
from search.language.expression import (
    COMPARISONS,
    DY,
    STATISTICS,
    Call,
    Constant,
    Declaration,
    Expression,
    Input,
    Node,
    Number,
    Parameter,
    Statistic,
    U,
    X,
    children,
    leaves,
    substitute,
    walk,
)
from search.language.fingerprint import family, fingerprint, probe_points
from search.language.latex import latex, latex_name, latex_number
from search.language.parser import (
    ABBREVIATIONS,
    FUNCTIONS,
    LONGEST_TEXT,
    negative,
    parse,
    parse_declaration,
    parse_node,
    split_where,
)
from search.language.primitives import PRIMITIVES
from search.language.simplify import (
    canonical,
    canonical_expression,
    fold_constants,
    fold_fixed,
    same_shape,
    simplify,
)
from tests.cases import (
    CASES,
    WRITTEN,
    expression,
    has_statistics,
    moved_parameters,
    sample_inputs,
)
from tests.exact import DIGITS, exact, exact_slope
from tests.exact import FUNCTIONS as EXACT_FUNCTIONS

EPS = np.finfo(np.float64).eps
POINTWISE = [name for name in CASES if not has_statistics(expression(name))]
WITH_STATISTICS = [name for name in CASES if name not in POINTWISE]


def variables(e: Expression) -> tuple[Node, ...]:
    """The inputs and the trainable parameters."""
    return (*map(Input, e.inputs), *(Parameter(p.name) for p in e.trainable))


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


# --- text ---------------------------------------------------------------------------------------


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


# --- values -------------------------------------------------------------------------------------

DOMAINS = {
    "log": (1e-3, 20.0),
    "sqrt": (1e-3, 20.0),
    "rsqrt": (1e-3, 20.0),
    "log1p": (-0.9, 20.0),
    "arcsin": (-0.99, 0.99),
    "arcsin_gate": (-0.99, 0.99),
    "gompertz": (-5.0, 30.0),
    "gumbel_pdf": (-5.0, 30.0),
}
UNARY = [row.name for row in PRIMITIVES.values() if row.arity == 1]


def points(function: str, n: int = 25) -> NDArray[np.float64]:
    """(arity, n) arguments in the function's domain, off its kinks."""
    low, high = DOMAINS.get(function, (-6.0, 6.0))
    rng = np.random.default_rng(sum(map(ord, function)))
    drawn = rng.uniform(low, high, (PRIMITIVES[function].arity, n))
    if function == "pow":
        drawn[0] = np.abs(drawn[0])
        drawn[0, :5], drawn[1, :5] = -2.5, [3, 2, 1, -1, -2]
    return drawn


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


def rounding(node: Node, names: dict) -> float:
    """eps × operations × largest intermediate, ×4 for the conditioning of the functions between."""
    values = [np.abs(evaluate(n, names)) for n in walk(node) if not is_condition(n)]
    largest = max(float(v[np.isfinite(v)].max(initial=1.0)) for v in map(np.atleast_1d, values))
    return 4 * EPS * len(values) * largest


def is_condition(node: Node) -> bool:
    return isinstance(node, Call) and node.function in COMPARISONS


def at_point(names: dict, i: int) -> dict:
    return {k: v[i] if isinstance(v, np.ndarray) else v for k, v in names.items()}


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


# --- derivatives --------------------------------------------------------------------------------


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


# --- simplification and canonical form ----------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_simplify_keeps_every_bit(name: str):
    e = expression(name)
    names = {**sample_inputs(), **moved_parameters(e)}
    wanted = evaluate(e.body, names)
    folded = fold_fixed(e).body
    for form in (simplify(e.body), folded, fold_constants(folded)):
        np.testing.assert_array_equal(evaluate(form, names), wanted)
        assert simplify(form) == form


@pytest.mark.parametrize("name", CASES)
def test_canonical_keeps_the_value_to_rounding(name: str):
    e = expression(name)
    names = {**sample_inputs(), **moved_parameters(e)}
    form = canonical(fold_fixed(e).body)
    error = np.abs(evaluate(form, names) - evaluate(e.body, names)).max()
    assert error <= rounding(e.body, names) + rounding(form, names)
    assert canonical(form) == form


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("x + 0", "x"),
        ("0 + x * 1", "x"),
        ("0 - x", "-x"),
        ("x - -1 * x", "x + x"),
        ("-x * -x", "x * x"),
        ("x / -1", "-x"),
        ("-(x - 2)", "2 - x"),
        ("max(x, 0)", "relu(x)"),
        ("2 * 3 * x", "6 * x"),
        ("exp(0) * x", "x"),
        ("0 * x", "0 * x"),  # NaN and infinity must show
        ("x ** 1", "x"),
        ("select(x > 0, x, x)", "x"),
        ("select(2 > 1, x, exp(x))", "x"),
        ("select(2 <= 1, x, exp(x))", "exp(x)"),
        ("x * (1 / 3 + 2 / 3)", "x"),
        ("log(-1 + 0 * x)", "log(-1 + 0 * x)"),
    ],
)
def test_simplify(text: str, wanted: str):
    assert str(simplify(parse(text).body)) == wanted


@pytest.mark.parametrize(
    "left, right",
    [
        ("x + 1", "1 + x"),
        ("x * sin(x)", "sin(x) * x"),
        ("x + x", "2 * x"),
        ("x * x * x", "x ** 3"),
        ("(x * 2) ** 3", "8 * x ** 3"),
        ("(-x) ** 2", "x * x"),
        ("(-x) ** 3", "-x ** 3"),
        ("x / 2 / x ** 3", "0.5 / x ** 2"),
        ("1 / (1 / x)", "x"),
        ("x - (1 - x)", "2 * x - 1"),
        ("2 * (x + 1) + x", "3 * x + 2"),
        ("max(x, sin(x))", "max(sin(x), x)"),
        ("a * x + x * a where a = 1 per layer", "2 * a * x where a = 1 per layer"),
        ("k * x where k = 2 fixed", "x + x"),
    ],
)
def test_one_shape(left: str, right: str):
    assert same_shape(parse(left), parse(right))


@pytest.mark.parametrize(
    "left, right",
    [
        ("sqrt(x ** 2)", "x"),
        ("(x ** 2) ** 0.5", "x"),
        ("x ** 2", "x ** 3"),
        ("x - 1", "1 - x"),
        ("(-x) ** 3", "x ** 3"),
        ("a * x where a = 1 per layer", "a * x where a = 1 per channel"),
    ],
)
def test_another_shape(left: str, right: str):
    assert not same_shape(parse(left), parse(right))


@pytest.mark.parametrize(
    "text",
    [
        "1e200 * x * 1e200 * x",
        "(1e-200 * x) ** 2",
        "(1e200 * x) ** 2",
        "x / 1e-310",
        "1e308 * x + 1e308 * x",
        "((x ** 1e5) ** 1e5) ** 1e300",
        "(x ** 3) ** 1e300",
    ],
)
def test_canonical_leaves_alone_what_it_cannot_hold(text: str):
    body = parse(text).body
    x = {"x": np.array([1.0, 1e-100, -1e-3, 1e100])}
    given, wanted = evaluate(canonical(body), x), evaluate(body, x)
    np.testing.assert_allclose(given, wanted, rtol=8 * EPS)


# --- fingerprints -------------------------------------------------------------------------------

SWISH = "x * sigmoid(beta * x) where beta = 1 per layer"


@pytest.mark.parametrize(
    "left, right",
    [
        ("x + sin(x)**2 + cos(x)**2", "1 + x"),
        ("x * sigmoid(b * x) where b = 1 per layer", SWISH),
        ("sigmoid(x * q) * x where q = 2/2 per layer", SWISH),
        ("x * sigmoid(-(-b) * x) where b = 1 per layer", SWISH),
        ("silu(x)", "x / (1 + exp(-x))"),
        ("silu(x)", "x * (1 + tanh(x / 2)) / 2"),
        ("gelu(x)", "0.5 * x * (1 + erf(x / sqrt(2)))"),
        ("mish(x)", "x * tanh(log(1 + exp(x)))"),
        ("golu(x)", "x * exp(-exp(-x))"),
        ("elu(x)", "relu(x) + expm1(min(x, 0))"),
        ("relu(x)", "(x + abs(x)) / 2"),
        ("relu(x)", "select(x > 0, x, 0)"),
        ("leaky_relu(x)", "select(x > 0, x, x / 100)"),
        ("sinc(x)", "sin(x) / x"),
        ("x ** 3", "x * x * x"),
        ("0.1 * x + 0.2 * x", "0.3 * x"),
        ("x + 0.0009765625", "3 * (x / 3 + 0.00032552083333333335)"),
        ("k * x + sin(x) where k = 3 fixed", "3 * x + sin(x)"),
        (
            "a * x + b * sin(x) where a = 1 per layer, b = 2 per layer",
            "c * sin(x) + d * x where c = 2 per layer, d = 1 per layer",
        ),
        ("x / rms(x)", "x / sqrt(mean(x**2))"),
        ("x * std(x)", "x * sqrt(var(x))"),
        ("x * var(x)", "x * (mean(x**2) - mean(x)**2)"),
        ("u * silu(x)", "x * u * sigmoid(x)"),
        ("x + 0 * mean(x)", "x"),
        (
            "a * x where a = 1 per layer penalty mean(x)**2",
            "b * x where b = 1 per layer penalty mean(x) * mean(x)",
        ),
    ],
)
def test_equal_functions_share_a_fingerprint(left: str, right: str):
    assert fingerprint(parse(left)) == fingerprint(parse(right))


@pytest.mark.parametrize(
    "left, right",
    [
        ("silu(x)", SWISH),
        (SWISH, SWISH.replace("layer", "channel")),
        (SWISH, SWISH.replace("layer", "channel").replace("per channel", "fixed")),
        (SWISH, SWISH.replace("= 1", "= 1.0000001")),
        (SWISH, SWISH + " penalty mean(x)**2"),
        (
            SWISH + " penalty mean(x)**2",
            SWISH + " penalty mean(x)**4",
        ),
        ("relu(x)", "select(x > 0.001, x, 0 * x)"),
        ("relu(x)", "leaky_relu(x)"),
        ("relu(x)", "max(x, -1e-8)"),
        ("silu(x)", "silu(1.0000001 * x)"),
        ("sqrt(x)", "sqrt(abs(x))"),
        ("u * silu(x)", "x * silu(u)"),
        ("u * x", "x * x"),
        ("(a + b) * x where a = 1 per layer, b = 1 per layer", "2 * a * x where a = 1 per layer"),
        (
            "(a + b) * x where a = 1 per layer, b = 1 per layer",
            "(a + b) * x where a = 1 per layer, b = 1 fixed",
        ),
        ("x - mean(x)", "x - mean(x, detach)"),
        ("x - mean(x)", "x - mean(x, over=sample)"),
        ("x - mean(x)", "x - mean(x, over=tensor)"),
        ("x - mean(x, over=sample)", "x - mean(x, over=tensor)"),
        ("x * std(x)", "x * rms(x)"),
    ],
)
def test_different_functions_differ(left: str, right: str):
    assert fingerprint(parse(left)) != fingerprint(parse(right))


def test_a_family_forgets_the_start_only():
    assert family(parse(SWISH)) == family(parse(SWISH.replace("= 1", "= 2")))
    assert family(parse(SWISH)) != family(parse("silu(x)"))
    assert family(parse(SWISH)) != family(parse(SWISH.replace("layer", "channel")))
    assert fingerprint(parse(SWISH)) != fingerprint(parse(SWISH.replace("= 1", "= 2")))


@pytest.mark.parametrize("name", CASES)
def test_the_canonical_form_shares_the_fingerprint(name: str):
    e = expression(name)
    assert fingerprint(canonical_expression(e)) == fingerprint(e)


def test_catalogue_rows_collide_only_where_the_functions_are_equal():
    groups: dict[str, set[str]] = {}
    for name, row in CATALOG.items():
        groups.setdefault(fingerprint(row.expression), set()).add(name)
    assert [g for g in groups.values() if len(g) > 1] == [{"relu", "helu"}, {"elu", "celu"}]


def test_fingerprints_are_the_same_in_another_process():
    texts = [str(expression(name)) for name in ("all_scopes", "pair_statistic", "penalty", "deep")]
    program = (
        "import sys; from search.language.fingerprint import family, fingerprint\n"
        "from search.language.parser import parse\n"
        "for t in sys.argv[1:]: print(fingerprint(parse(t)), family(parse(t)))"
    )
    here = [f"{fingerprint(parse(t))} {family(parse(t))}" for t in texts]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", program, *texts]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.split("\n")[:-1] == here


def test_a_fingerprint_is_sixteen_hexadecimal_digits():
    assert all(len(fingerprint(expression(n))) == 16 for n in CASES)
    assert int(fingerprint(expression("deep")), 16) >= 0


def test_the_probes_reach_everywhere_but_zero():
    x = np.sort(probe_points().ravel())
    assert len(np.unique(x)) == x.size == 270
    assert x[0] == -100 and x[-1] == 100 and 0 not in x
    assert np.diff(x[np.abs(x) < 8]).max() < 0.1


# --- LaTeX --------------------------------------------------------------------------------------

MATHTEXT = MathTextParser("path")


def readable(text: str) -> None:
    """matplotlib can set it; a ValueError says where it cannot."""
    MATHTEXT.parse(f"${text}$")


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


# --- random compositions ------------------------------------------------------------------------

SMALL = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TAME = st.sampled_from([-2.0, -1.0, -0.5, 0.25, 0.5, 1.0, 2.0, 3.0, 0.1])
ANY = st.floats(allow_nan=False, allow_infinity=False)
FUNCTION_NAMES = [f for f in FUNCTIONS if PRIMITIVES[f].arity == 1]


def compositions(numbers: st.SearchStrategy[float], statistics: bool) -> st.SearchStrategy[Node]:
    """Formulas as the parser builds them, from every row of the table."""
    leaf = st.one_of(
        st.just(X),
        st.just(X),
        st.sampled_from([U, Parameter("a"), Parameter("b"), Constant("pi"), Constant("e")]),
        numbers.map(Number),
    )

    def extend(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        binary = st.sampled_from(["add", "sub", "mul", "mul", "div", "max", "min", "pow"])
        comparison = st.builds(
            lambda f, a, b: Call(f, (a, b)), st.sampled_from([*COMPARISONS]), inner, inner
        )
        options = [
            st.builds(lambda f, a: Call(f, (a,)), st.sampled_from(FUNCTION_NAMES), inner),
            st.builds(lambda f, a, b: Call(f, (a, b)), binary, inner, inner),
            st.builds(
                lambda a, n: Call("pow", (a, Number(n))), inner, st.sampled_from([2.0, 3.0, -1.0])
            ),
            inner.map(negative),
            st.builds(lambda c, a, b: Call("select", (c, a, b)), comparison, inner, inner),
            st.builds(lambda a, b, c: Call("clip", (a, b, c)), inner, inner, inner),
        ]
        if statistics:
            options.append(
                st.builds(
                    lambda kind, a, over, detach: Statistic(
                        kind, Call("mul", (X, a)), over, detach
                    ),
                    st.sampled_from(STATISTICS),
                    inner,
                    st.sampled_from(["features", "sample", "tensor"]),
                    st.booleans(),
                )
            )
        return st.one_of(options)

    return st.recursive(leaf, extend, max_leaves=10)


def as_expression(node: Node) -> Expression:
    """The node with its parameters declared, and x added where it has no input."""
    if not any(leaf in (X, U) for leaf in leaves(node)):
        node = Call("add", (X, node))
    names = dict.fromkeys(leaf.name for leaf in leaves(node) if isinstance(leaf, Parameter))
    scopes = {"a": Declaration("a", 0.75, "layer"), "b": Declaration("b", -0.5, "channel")}
    return Expression(node, tuple(scopes[name] for name in names))


@SMALL
@given(compositions(ANY, statistics=True))
def test_any_composition_parses_back(node: Node):
    assert parse_node(str(node), ("a", "b")) == node


@SMALL
@given(compositions(TAME, statistics=True))
def test_no_pass_fails_on_any_composition(node: Node):
    e = as_expression(node)
    for leaf in variables(e):
        slope = derivative(e, leaf)
        assert len(str(slope)) > LONGEST_TEXT or parse_node(str(slope), ("a", "b")) == slope
    form = canonical_expression(e)
    assert parse_node(str(form.body), ("a", "b")) == form.body
    assert len(fingerprint(e)) == len(family(e)) == 16
    assert latex(e).count("{") == latex(e).count("}")


@settings(SMALL, max_examples=60)
@given(compositions(TAME, statistics=False))
def test_matplotlib_reads_any_composition(node: Node):
    readable(latex(node))


@SMALL
@given(compositions(TAME, statistics=True))
def test_simplify_keeps_every_bit_of_any_composition(node: Node):
    names = {**sample_inputs(), "a": 0.75, "b": -0.5}
    given_ = np.broadcast_to(evaluate(simplify(node), names), (2, 3, 5))
    np.testing.assert_array_equal(given_, np.broadcast_to(evaluate(node, names), (2, 3, 5)))


@settings(SMALL, max_examples=300)
@given(compositions(TAME, statistics=False))
def test_canonical_keeps_the_value_of_any_composition(node: Node):
    """Where nothing cancels, jumps or grows; a wrong rule is wrong by far more than 1e-9."""
    names = {**sample_inputs((40,)), "a": 0.75, "b": -0.5}
    tame, largest = tame_points(node, names)
    form = canonical(node)
    given_ = np.broadcast_to(evaluate(form, names), 40)[tame]
    wanted = np.broadcast_to(evaluate(node, names), 40)[tame]
    assert np.abs(given_ - wanted).max(initial=0.0) <= 1e-9 * largest
    again = np.broadcast_to(evaluate(canonical(form), names), 40)[tame]
    assert np.abs(again - wanted).max(initial=0.0) <= 1e-9 * largest


def tame_points(node: Node, names: dict) -> tuple[NDArray[np.bool_], float]:
    """Where every part is finite, at most 1e3, off its jumps and not what a cancellation left."""
    tame = np.ones(40, dtype=bool)
    largest = 1.0
    for part in walk(node):
        if is_condition(part):
            continue
        value = np.broadcast_to(evaluate(part, names), 40)
        tame &= np.isfinite(value) & (np.abs(value) < 1e3)
        for distance, scale in hazards(part, names):
            tame &= np.broadcast_to(np.abs(distance) > 1e-4 * scale, 40)
    for part in walk(node):
        if not is_condition(part) and tame.any():
            largest = max(largest, np.abs(np.broadcast_to(evaluate(part, names), 40)[tame]).max())
    return tame, float(largest)


def hazards(part: Node, names: dict) -> Iterator[tuple[NDArray, NDArray]]:
    """Differences that must not be small against their operands."""
    if not isinstance(part, Call):
        return
    values = [evaluate(c, names) for c in children(part) if not is_condition(c)]
    match part.function:
        case "add":
            yield values[0] + values[1], np.abs(values[0]) + np.abs(values[1])
        case "sub":
            yield values[0] - values[1], np.abs(values[0]) + np.abs(values[1])
        case "step" | "sign" | "div" | "log" | "sqrt" | "rsqrt" | "pow":
            yield values[-1 if part.function == "div" else 0], np.ones(())
        case "log1p":
            yield 1 + values[0], np.ones(())
        case "select":
            a, b = (evaluate(c, names) for c in children(part.arguments[0]))
            yield a - b, np.ones(())


# --- messages -----------------------------------------------------------------------------------


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
