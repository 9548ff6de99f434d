"""Published activations against torch's modules and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special
from torch import nn

from search.language.catalog import CATALOG
from search.language.expression import Expression
from search.language.parser import parse
from tests.catalog_cases import (
    EPS,
    GRID,
    _expectation,
    at,
    slope,
    value,
)

# --- torch's own modules --------------------------------------------------------------------------


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


# --- identities -----------------------------------------------------------------------------------


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
