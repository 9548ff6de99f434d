"""Every entry of the reference, its values and its slopes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize

from search.errors import ExpressionError
from search.language.catalog import CATALOG, equals, find_published, pending, read_activation
from search.language.derivative import derivative
from search.language.evaluate import evaluate
from search.language.expression import Parameter, U, X
from search.language.parser import parse
from tests.catalog_cases import (
    DATA,
    EPS,
    GRID,
    POINTWISE,
    ROUND_OFF,
    _expectation,
    at,
    declared_kinks,
    published,
    relative_error,
    slope,
    value,
)

# --- every entry of the reference is here ---------------------------------------------------------


def test_every_reference_entry_is_a_row_or_pending():
    rows = [e["row"] for part in ("pointwise", "rows", "pairs") for e in DATA[part].values()]
    assert not [row for row in rows if row not in CATALOG]
    assert set(DATA["pending"].values()) <= set(pending())
    assert len(POINTWISE) == len({e["row"] for e in POINTWISE.values()}) == 57
    assert len(DATA["pairs"]) == 10
    # Every entry once: VeLU's code has a second set of constants under the same row.
    statistics = {e["row"] for e in DATA["rows"].values()}
    assert len(POINTWISE) + len(statistics) + len(DATA["pairs"]) == 70
    assert len(DATA["pending"]) == 5


def test_every_row_stands_on_a_reference_entry_or_names_its_relative():
    rows = {e["row"] for part in ("pointwise", "rows", "pairs") for e in DATA[part].values()}
    assert sorted(set(CATALOG) - rows) == ["xatglu_order2", "xgeglu_order2", "xswiglu_order2"]


def test_names_and_aliases_are_unique_and_plain():
    aliases = [alias for row in CATALOG.values() for alias in row.aliases]
    names = [*CATALOG, *aliases, *pending()]
    assert len(names) == len(set(names))
    assert all(name == name.lower() and not set(name) & set(" '\"") for name in names)
    for row in CATALOG.values():
        assert row.title and row.paper
        assert not row.arxiv or len(row.arxiv) == 10
    assert all("\n" not in reason for reason in pending().values())


def test_names_are_found_with_a_near_miss():
    assert find_published("gelu_erf").name == "gelu"
    assert read_activation("golu") == CATALOG["golu"].expression
    with pytest.raises(ExpressionError, match="did you mean 'hard_swish'"):
        find_published("hard_swihs")
    with pytest.raises(ExpressionError, match="not available yet"):
        find_published("rrelu")


# --- values and slopes ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", POINTWISE)
def test_values_are_the_published_ones(name: str):
    error = relative_error(value(published(name), GRID), POINTWISE[name]["values"])
    assert error.max() <= 1e-12


@pytest.mark.parametrize("name", POINTWISE)
def test_slopes_are_the_published_ones(name: str):
    given = slope(published(name), GRID)
    for x, mine, theirs in zip(GRID, given, POINTWISE[name]["slopes"], strict=True):
        if theirs is None:
            assert declared_kinks(published(name), x), f"no kink declared at {x}"
            assert math.isfinite(mine)
        elif (name, x) in ROUND_OFF:
            assert abs(theirs) < 1e-30 and abs(mine) < EPS
        else:
            assert relative_error(mine, theirs) <= 1e-12, f"slope at {x}"


def test_the_number_of_verified_rows():
    """57 entries with 9 values and 9 slopes each, of which 20 are kinks and 2 round-off."""
    slopes = [s for entry in POINTWISE.values() for s in entry["slopes"]]
    assert all(len(e["values"]) == len(e["slopes"]) == 9 for e in POINTWISE.values())
    assert (len(slopes), slopes.count(None)) == (57 * 9, 20)


@pytest.mark.parametrize("name", [n for n, e in POINTWISE.items() if "minimum" in e])
def test_minima(name: str):
    x0, f0 = POINTWISE[name]["minimum"]
    f = published(name)
    around = (x0 - 0.3, x0 + 0.3)
    found = optimize.minimize_scalar(
        lambda x: float(value(f, x)), bounds=around, method="bounded", options={"xatol": 1e-12}
    )
    lowest: Any = found  # SciPy's stubs know no attribute of it
    assert lowest.fun == pytest.approx(f0, rel=1e-13, abs=1e-15)
    assert lowest.x == pytest.approx(x0, abs=1e-6)  # a minimum is flat: sqrt(eps) is all there is
    if not declared_kinks(f, x0):
        root = optimize.brentq(lambda x: float(slope(f, x)), *around, xtol=1e-15)
        assert root == pytest.approx(x0, abs=1e-13)
    grid = np.linspace(-8, 8, 1601)
    assert value(f, grid).min() >= f0 - 1e-13 * abs(f0)


@pytest.mark.parametrize("name", POINTWISE)
def test_monotonicity(name: str):
    f = published(name)
    y = value(f, np.linspace(-8, 8, 16001))
    steps = np.diff(y)
    noise = 4 * EPS * np.maximum(np.abs(y[1:]), 1.0)
    weakly = bool((steps >= -noise).all() or (steps <= noise).all())
    assert weakly == POINTWISE[name]["monotonic"]


@pytest.mark.parametrize("name", [n for n, e in POINTWISE.items() if "moments" in e])
def test_moments_under_a_standard_normal(name: str):
    f, wanted = published(name), POINTWISE[name]["moments"]
    mean, second = (_expectation(f, power) for power in (1, 2))
    assert mean == pytest.approx(wanted["mean"], abs=1e-11)
    assert second == pytest.approx(wanted["second_moment"], rel=1e-11)
    assert second - mean**2 == pytest.approx(wanted["var"], rel=1e-10)


# --- statistics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATA["rows"])
def test_rows_with_a_statistic(name: str):
    entry = DATA["rows"][name]
    assert relative_error(value(published(name), GRID), entry["values"]).max() <= 1e-12
    batch = value(published(name), np.stack([GRID, 0.1 * GRID]))
    assert relative_error(batch[0], entry["values"]).max() <= 1e-12  # a row of its own


def test_the_wasserstein_penalty_of_velu():
    f = published("VeLU_code")
    assert f.penalty is not None
    w2 = evaluate(f.penalty, {"x": GRID}, f.initial)
    assert w2.item() == pytest.approx(DATA["rows"]["VeLU_code"]["penalty"], rel=1e-13)
    other = evaluate(f.penalty, {"x": GRID}, {**f.initial, "lam": 3.0})
    assert other.item() == w2.item()  # taken before the factor lam
    y = value(published("VeLU_paper"), GRID)
    paper = published("VeLU_paper")
    assert paper.penalty is not None
    w2 = evaluate(paper.penalty, {"x": GRID}, paper.initial)
    assert w2.item() == pytest.approx(y.mean() ** 2 + (y.std() - 1) ** 2, rel=1e-13)


def test_the_figure_of_velu():
    f, figure = published("VeLU_code_figure"), DATA["velu_figure"]
    x = np.linspace(-1.5, 1.5, 300)
    y = value(f, x)
    assert y[-1] == pytest.approx(figure["right"], rel=1e-12)
    assert y[0] == pytest.approx(figure["left"], rel=1e-12)
    argmin, lowest = figure["minimum"]
    assert y.min() == pytest.approx(lowest, rel=1e-12)
    assert x[y.argmin()] == pytest.approx(argmin, rel=1e-12)


def test_the_paper_and_the_code_of_velu_move_apart_as_the_spread_grows():
    narrow, wide = 0.5 * GRID, 2 * GRID
    paper, code = published("VeLU_paper"), published("VeLU_code")
    for f, grows in ((paper, True), (code, False)):
        factors = [value(f, row)[-1] / value(at(f, gamma=0.0), row)[-1] for row in (narrow, wide)]
        assert (factors[1] > factors[0]) == grows


# --- gated pairs ----------------------------------------------------------------------------------


FACTORS = {
    "glu": "sigmoid",
    "bilinear": None,
    "reglu": "relu",
    "geglu": "gelu",
    "swiglu": "silu",
    "xatglu_order2": "xatlu",
    "xgeglu_order2": "xgelu",
    "xswiglu_order2": "xsilu",
    "dyn_glu": "silu",
}


@pytest.mark.parametrize("name", FACTORS)
def test_pairs_are_the_second_input_times_a_verified_factor(name: str):
    pair = CATALOG[name].expression
    factor = CATALOG[FACTORS[name]].expression if FACTORS[name] else parse("x")
    for alpha in (0.0, 0.25):
        if "alpha" in factor.initial:
            pair, factor = at(pair, alpha=alpha), at(factor, alpha=alpha)
        u = np.linspace(-3, 2, 9)
        np.testing.assert_allclose(value(pair, GRID, u=u), u * value(factor, GRID), rtol=1e-14)
        inner = u * slope(factor, GRID)
        np.testing.assert_allclose(slope(pair, GRID, u=u), inner, rtol=1e-13, atol=1e-16)
        outer = slope(pair, GRID, U, u=u)
        np.testing.assert_allclose(outer, value(factor, GRID), rtol=1e-14)


@pytest.mark.parametrize("order1", ["xatglu", "xgeglu", "xswiglu"])
def test_the_first_order_is_the_second_without_one_factor(order1: str):
    first, second = (at(CATALOG[n].expression, alpha=0.3) for n in (order1, f"{order1}_order2"))
    x, u = GRID[GRID != 0], np.linspace(-3, 2, 8)
    np.testing.assert_allclose(value(first, x, u=u) * x, value(second, x, u=u), rtol=1e-14)


def test_pairs_of_two_rectifiers_and_of_dyn_activation():
    x, u = np.meshgrid(GRID, GRID)
    drelu = value(CATALOG["drelu"].expression, x, u=u)
    np.testing.assert_array_equal(drelu, np.maximum(x, 0) * np.maximum(u, 0))
    f = at(CATALOG["dyn_glu"].expression, alpha=0.75, beta=-0.08)
    silu = x / (1 + np.exp(-x))
    np.testing.assert_allclose(value(f, x, u=u), u * (0.83 * silu - 0.08 * x), rtol=1e-13)


def test_first_order_gates_at_alpha_zero():
    assert equals(parse("u * sigmoid(x)")) == ("glu",)
    np.testing.assert_allclose(
        value(CATALOG["xswiglu"].expression, GRID, u=GRID),
        value(CATALOG["glu"].expression, GRID, u=GRID),
        rtol=1e-14,
    )


# --- far out --------------------------------------------------------------------------------------


FAR = np.concatenate([s * np.logspace(-4, 4, 400) for s in (-1, 1)] + [np.zeros(1)])


@pytest.mark.parametrize("name", CATALOG)
def test_value_and_slopes_are_finite_far_out(name: str):
    f = CATALOG[name].expression
    names = {"x": FAR, "u": np.ones_like(FAR)}
    leaves = [X, *(Parameter(p.name) for p in f.trainable)] + ([U] if "u" in f.inputs else [])
    for node in (f.body, *(derivative(f, leaf) for leaf in leaves)):
        assert np.isfinite(evaluate(node, names, f.initial)).all(), str(node)


@pytest.mark.parametrize("name", CATALOG)
def test_nan_comes_out_as_nan(name: str):
    f = CATALOG[name].expression
    y = evaluate(f.body, {"x": np.array([math.nan, 1.0]), "u": np.ones(2)}, f.initial)
    assert np.isnan(y[0])
