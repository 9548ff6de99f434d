"""Simplification keeps every value; equal functions share a form and a fingerprint."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from search.language.catalog import CATALOG
from search.language.evaluate import evaluate
from search.language.fingerprint import family, fingerprint, probe_points
from search.language.parser import (
    parse,
)
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
    expression,
    moved_parameters,
    sample_inputs,
)
from tests.language_cases import EPS, rounding

# --- simplification and canonical form ------------------------------------------------------------


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


# --- fingerprints ---------------------------------------------------------------------------------


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


def test_values_at_the_end_of_float64_have_a_fingerprint():
    texts = ("1.79e308 * tanh(x)", "-1.79e308 * tanh(x)", "1e300 * tanh(x)", "1e290 * tanh(x)")
    assert len({fingerprint(parse(text)) for text in texts[:2]}) == 2
    assert all(len(fingerprint(parse(text))) == 16 for text in texts)
