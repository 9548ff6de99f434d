"""The catalogue against published values, torch's own modules, identities, moments and minima."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import ArrayLike, NDArray
from scipy import integrate, optimize, special
from torch import nn

from search.errors import ExpressionError
from search.language.catalog import CATALOG, equals, find_published, pending, read_activation
from search.language.derivative import derivative
from search.language.evaluate import evaluate
from search.language.expression import Call, Expression, Node, Parameter, U, X, substitute, walk
from search.language.parser import parse, parse_node
from search.language.primitives import PRIMITIVES

DATA: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parent / "data" / "published.yaml").read_text(encoding="utf-8")
)
GRID = np.array(DATA["x"])
POINTWISE: dict[str, dict[str, Any]] = DATA["pointwise"]
EPS = np.finfo(np.float64).eps
# Slopes that are 0: the published 2e-43 and 1e-40 are the round-off of a 60-digit difference.
ROUND_OFF = {("CRReLU", -1.0), ("x_asinh2", 0.0)}


@cache
def published(name: str) -> Expression:
    """The row of an entry, started at the parameters of its reference values."""
    entry = POINTWISE.get(name) or DATA["rows"][name]
    return at(CATALOG[entry["row"]].expression, **entry.get("at", {}))


def at(expression: Expression, **values: float) -> Expression:
    """The expression with other initial values, its constants included."""
    assert set(values) <= {p.name for p in expression.parameters}
    parameters = (replace(p, initial=values.get(p.name, p.initial)) for p in expression.parameters)
    return Expression(expression.body, tuple(parameters), expression.penalty)


def value(expression: Expression, x: ArrayLike, **u: ArrayLike) -> NDArray[np.float64]:
    """f(x) at the initial parameters."""
    y = evaluate(expression.body, {"x": x, **u}, expression.initial)
    return np.broadcast_to(y, np.shape(x))


def slope(
    expression: Expression, x: ArrayLike, leaf: Node = X, **u: ArrayLike
) -> NDArray[np.float64]:
    """df/dleaf at the initial parameters."""
    y = evaluate(derivative(expression, leaf), {"x": x, **u}, expression.initial)
    return np.broadcast_to(y, np.shape(x))


def relative_error(given: ArrayLike, wanted: ArrayLike) -> NDArray[np.float64]:
    """|given - wanted| / |wanted|, absolute where 0 is wanted."""
    wanted = np.asarray(wanted, dtype=np.float64)
    return np.abs(np.asarray(given) - wanted) / np.where(wanted == 0, 1.0, np.abs(wanted))


def declared_kinks(expression: Expression, x: float) -> bool:
    """Whether the table declares a kink of some part of the formula at x."""
    for node in walk(expression.body):
        if isinstance(node, Call):
            places: dict[Node, Node] = {
                Parameter(n): a for n, a in zip("abc", node.arguments, strict=False)
            }
            for text in PRIMITIVES[node.function].kinks:
                formula = substitute(parse_node(text, "abc"), places)
                if abs(float(evaluate(formula, {"x": x}, expression.initial))) < 1e-12:
                    return True
    return False


# --- every entry of the reference is here ------------------------------------------------------


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


# --- values and slopes --------------------------------------------------------------------------


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


def _expectation(f: Expression, power: int) -> float:
    """E f(z)^power by adaptive quadrature, split at the kinks that the moments' entries have."""

    def integrand(z: float) -> float:
        return float(value(f, z)) ** power * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    edges = (-12.0, -2.0, 0.0, 2.0, 12.0)
    pieces = (integrate.quad(integrand, a, b, epsabs=1e-14, limit=200) for a, b in pairwise(edges))
    return sum(piece[0] for piece in pieces)


# --- statistics ---------------------------------------------------------------------------------


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


# --- gated pairs --------------------------------------------------------------------------------

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


# --- torch's own modules ------------------------------------------------------------------------

MODULES: dict[str, nn.Module] = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "leaky_relu": nn.LeakyReLU(),
    "prelu": nn.PReLU(dtype=torch.float64),
    "elu": nn.ELU(),
    "selu": nn.SELU(),
    "celu": nn.CELU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "swish": nn.SiLU(),
    "mish": nn.Mish(),
    "hard_swish": nn.Hardswish(),
    "hard_tanh": nn.Hardtanh(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "softplus": nn.Softplus(threshold=40),
    "softsign": nn.Softsign(),
}


@pytest.mark.parametrize("name", MODULES)
def test_torch_has_the_same_function_and_gradient_even_at_the_kinks(name: str):
    x = torch.arange(-2000, 2001, dtype=torch.float64).div(100).requires_grad_()  # and the kinks
    y = MODULES[name](x)
    (dx,) = torch.autograd.grad(y.sum(), x)
    f, points = CATALOG[name].expression, x.detach().numpy()
    scale = np.maximum(np.abs(points), 1.0)
    assert (np.abs(value(f, points) - y.detach().numpy()) / scale).max() <= 4 * EPS
    assert (np.abs(slope(f, points) - dx.numpy()) / scale).max() <= 4 * EPS


@pytest.mark.parametrize("name", ["glu", "swiglu", "geglu", "reglu"])
def test_torch_glu_takes_its_gate_from_the_second_half(name: str):
    x, u = np.linspace(-4, 4, 12), np.linspace(3, -2, 12)
    gates = {"glu": torch.sigmoid, "swiglu": nn.SiLU(), "geglu": nn.GELU(), "reglu": nn.ReLU()}
    wanted = gates[name](torch.tensor(x)) * torch.tensor(u)
    given = value(CATALOG[name].expression, x, u=u)
    np.testing.assert_allclose(given, wanted.numpy(), rtol=1e-14, atol=4 * EPS)
    if name == "glu":
        both = torch.cat([torch.tensor(u), torch.tensor(x)])
        np.testing.assert_allclose(given, nn.functional.glu(both, 0).numpy(), rtol=1e-14)


# --- identities ---------------------------------------------------------------------------------

DENSE = np.linspace(-20, 20, 2001)


def row(name: str, **values: float) -> Expression:
    return at(CATALOG[name].expression, **values)


@pytest.mark.parametrize(
    "left, right",
    [
        (row("aglu", lam=1.0, kappa=1.0), row("silu")),
        (row("aptx", beta=0.85), row("swish", beta=1.7)),
        (row("xatlu", alpha=0.0), parse("x * arctan_gate(x)")),
        (row("xgelu", alpha=0.0), row("gelu")),
        (row("xsilu", alpha=0.0), row("silu")),
        (row("gsmelu", gm=0.0, gp=1.0, alpha=2.0, beta=2.0, t=0.0), row("smelu")),
        (row("smelu", beta=1e-9), row("relu")),
        (row("dyn_mish"), row("mish")),
        (row("dyn_mish", alpha=0.5, beta=0.5), parse("0.5 * x")),
        (row("swish", beta=0.0), parse("x / 2")),
        (row("swish", beta=1.702), row("quick_gelu")),
        (row("elu"), row("celu")),
        (row("prelu", a=0.01), row("leaky_relu")),
        (row("xatlu", alpha=0.25), row("xatlu_a025")),
        (row("poly_relu", w0=0.0, w1=1.0, w2=0.0), row("squared_relu")),
        (row("star_relu", s=1.0, b=0.0), row("squared_relu")),
        (row("aria2", a=1.0, b=1.0), row("silu")),
        (row("squareplus", b=0.0), row("relu")),
        (row("sau"), row("leaky_relu", a=0.15)),
    ],
    ids=lambda e: str(e)[:40],
)
def test_equal_functions(left: Expression, right: Expression):
    x = DENSE[np.abs(DENSE) > 1e-2]
    np.testing.assert_allclose(value(left, x), value(right, x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(slope(left, x), slope(right, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name, flipped", [("fmish", "mish"), ("silu", "silu"), ("gelu", "gelu")])
def test_a_flipped_gate_adds_x(name: str, flipped: str):
    wanted = DENSE + value(row(flipped), -DENSE)
    np.testing.assert_allclose(value(row(name), DENSE), wanted, rtol=0, atol=8e-15)


def test_mish_and_its_flip_share_their_mean():
    means = [_expectation(row(name), 1) for name in ("mish", "fmish")]
    assert means == [pytest.approx(0.2404038883747915, rel=1e-12)] * 2


def test_aglu_tends_to_golu():
    golu = value(row("golu"), GRID)
    distances = [
        np.abs(value(row("aglu", lam=lam, kappa=1.0), GRID) - golu).max() for lam in (1e-3, 1e-4)
    ]
    assert distances[0] == pytest.approx(10 * distances[1], rel=1e-2)
    # The row holds lam above 1e-4, as the released code does; the formula itself goes on.
    free = at(parse("x * exp(-softplus(log(l) - x) / l) where l = 1 per layer"), l=1e-8)
    assert np.abs(value(free, GRID) - golu).max() == pytest.approx(2.4e-9, rel=0.02)


def test_apa_is_the_gate_of_aglu():
    np.testing.assert_allclose(
        value(row("aglu"), DENSE), DENSE * value(row("apa_gate"), DENSE), rtol=1e-14
    )


def test_the_minimum_of_golu_is_at_minus_the_omega_constant():
    omega = special.lambertw(1).real
    assert float(slope(row("golu"), -omega)) == pytest.approx(0, abs=2 * EPS)
    assert float(value(row("golu"), -omega)) == pytest.approx(-0.09726013122763941, rel=1e-15)
    assert float(slope(row("golu"), 0.0)) == pytest.approx(1 / math.e, rel=1e-15)


def test_the_minimum_of_silu():
    x0 = -1.2784645427610738
    assert float(value(row("silu"), x0)) == pytest.approx(x0 + 1, rel=1e-15)
    assert float(slope(row("silu"), x0)) == pytest.approx(0, abs=2 * EPS)


def test_the_slope_of_fmish_at_zero():
    assert float(slope(row("fmish"), 0.0)) == pytest.approx(0.4, rel=1e-15)


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_sau_is_a_leaky_relu_under_gaussian_noise(beta: float):
    leaky = row("leaky_relu", a=0.15)
    for x in (-2.0, -0.3, 0.0, 0.7, 3.0):

        def integrand(z: float, x: float = x) -> float:
            return float(value(leaky, x + z / beta)) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        kink = -x * beta
        pieces = ((-12.0, kink), (kink, 12.0))
        wanted = sum(integrate.quad(integrand, a, b, epsabs=1e-14)[0] for a, b in pieces)
        given = float(value(row("sau", alpha=0.15, beta=beta), x))
        assert given == pytest.approx(wanted, rel=1e-12, abs=1e-14)


def test_star_relu_standardises_a_normal():
    mean, second = (_expectation(row("star_relu"), power) for power in (1, 2))
    assert mean == pytest.approx(0, abs=1e-14)
    assert second == pytest.approx(0.99994, abs=5e-6)


def test_the_self_normalising_constants():
    assert float(value(row("gsmelu"), -0.1)) == pytest.approx(-0.001, rel=1e-14)  # f(-alpha) = t
    assert float(value(row("squareplus", b=4 * math.log(2) ** 2), 0.0)) == pytest.approx(
        float(value(row("softplus"), 0.0)), rel=1e-15
    )


# --- far out ------------------------------------------------------------------------------------

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
