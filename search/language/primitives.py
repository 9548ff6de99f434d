"""THE table: every function the language knows, one row each.

A row holds everything the project knows about a function: its derivative rules *in the language*
(over `a`, `b`, `c`, the arguments in order), its float64 reference, its text for every rendering,
its kinks and its range. Nothing elsewhere names a primitive, save the operators' own syntax.

One table in one file, however long: who adds a function sees all that a row needs beside its kin.

Rules are written so that no unselected or saturated branch can make `0 * inf`: gates carry a stable
derivative of their own (gompertz' = gumbel_pdf) and every guard is exact in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

Array = Any  # a float64 ndarray or scalar; NumPy's own typing of ufuncs is wider than ours


@dataclass(frozen=True, slots=True)
class Primitive:
    """One function of the language."""

    name: str
    derivatives: tuple[str, ...]
    """d/da, d/db, … as formulas; their number is the arity."""
    reference: Callable[..., Array]
    """float64, NumPy."""
    torch: str
    """Text with {0}, {1}, … for the arguments."""
    latex: str
    torch_number: str = ""
    """Text to use when every argument after the first is a literal, where torch needs another."""
    kinks: tuple[str, ...] = ()
    """Formulas whose zeros are the points where a derivative jumps or does not exist."""
    range: tuple[float, float] = (-math.inf, math.inf)
    """Smallest and largest value; a finite end of a gate is where it saturates."""
    c: str = ""
    """Text in terms of C and of search/kernels/c_math.h."""
    c_number: str = ""
    """Text to use when every argument after the first is a literal."""
    triton: str = ""
    """Text in terms of `tl` and of the functions of search/kernels/triton_{functions,gates}.py."""

    @property
    def arity(self) -> int:
        return len(self.derivatives)


def _special(name: str) -> Callable[[Array], Array]:
    """A function of scipy.special, imported when it is called: kernels run where SciPy is not."""

    def reference(a: Array) -> Array:
        return getattr(import_module("scipy.special"), name)(a)

    return reference


def _gumbel_pdf(a: Array) -> Array:
    # Below -7, exp(-(a + exp(-a))) < 1e-470: zero in float64; the clamp keeps -inf from inf - inf.
    safe = np.maximum(a, -7.0)
    return np.where(a < -7.0, 0.0, np.exp(-(safe + np.exp(-safe))))


def _step(a: Array) -> Array:
    return np.where(np.isnan(a), a, np.where(a > 0, 1.0, 0.0))


def _sinc(a: Array) -> Array:
    return np.sinc(a / np.pi)


# sinc' = (cos a - sinc a) / a; its Taylor series below 0.5, where the difference cancels.
_SINC_SLOPE = (
    "select(abs(a) < 0.5, a * (-1/3 + a*a * (1/30 + a*a * (-1/840 + a*a * (1/45360"
    " + a*a * (-1/3991680 + a*a / 518918400))))),"
    " (cos(a) - sinc(a)) / select(abs(a) < 0.5, 1, a))"
)
_ARCSIN_SLOPE = "rsqrt(max((1 - a) * (1 + a), 1e-12))"
_ROWS = (
    # arithmetic ----------------------------------------------------------------------------------
    Primitive(
        "add", ("1", "1"), np.add, "{0} + {1}", "{0} + {1}", c="{0} + {1}", triton="{0} + {1}"
    ),
    Primitive(
        "sub", ("1", "-1"), np.subtract, "{0} - {1}", "{0} - {1}", c="{0} - {1}", triton="{0} - {1}"
    ),
    Primitive(
        "mul",
        ("b", "a"),
        np.multiply,
        "{0} * {1}",
        "{0} \\, {1}",
        c="{0} * {1}",
        triton="{0} * {1}",
    ),
    Primitive(
        "div",
        ("1 / b", "-(a / b) / b"),
        np.divide,
        "{0} / {1}",
        "\\frac{{{0}}}{{{1}}}",
        c="{0} / {1}",
        triton="{0} / {1}",
    ),
    Primitive(
        "pow",
        # 0 ** b * log(0) would be 0 * -inf: the slope by the exponent is 0 at a = 0.
        ("b * a ** (b - 1)", "a ** b * log(select(abs(a) > 0, a, 1))"),
        np.power,
        "torch.pow({0}, {1})",
        "{0}^{{{1}}}",
        c="POW({0}, {1})",
        triton="power({0}, {1})",
    ),
    Primitive("neg", ("-1",), np.negative, "-{0}", "-{0}", c="-{0}", triton="-{0}"),
    # choices -------------------------------------------------------------------------------------
    Primitive(
        "gt",
        ("0", "0"),
        np.greater,
        "{0} > {1}",
        "{0} > {1}",
        kinks=("a - b",),
        c="{0} > {1}",
        triton="{0} > {1}",
    ),
    Primitive(
        "ge",
        ("0", "0"),
        np.greater_equal,
        "{0} >= {1}",
        "{0} \\geq {1}",
        kinks=("a - b",),
        c="{0} >= {1}",
        triton="{0} >= {1}",
    ),
    Primitive(
        "lt",
        ("0", "0"),
        np.less,
        "{0} < {1}",
        "{0} < {1}",
        kinks=("a - b",),
        c="{0} < {1}",
        triton="{0} < {1}",
    ),
    Primitive(
        "le",
        ("0", "0"),
        np.less_equal,
        "{0} <= {1}",
        "{0} \\leq {1}",
        kinks=("a - b",),
        c="{0} <= {1}",
        triton="{0} <= {1}",
    ),
    # The derivative of a choice is the choice of the derivatives (search.language.derivative).
    Primitive(
        "select",
        ("0", "select(a, 1, 0)", "select(a, 0, 1)"),
        np.where,
        "torch.where({0}, {1}, {2})",
        "\\mathrm{{select}}\\left({0},\\ {1},\\ {2}\\right)",
        c="{0} ? {1} : {2}",
        triton="tl.where({0}, {1}, {2})",
    ),
    Primitive(
        "max",
        ("step(a - b)", "1 - step(a - b)"),
        np.maximum,
        "torch.maximum({0}, {1})",
        "\\max\\left({0},\\ {1}\\right)",
        torch_number="torch.clamp_min({0}, {1})",
        kinks=("a - b",),
        c="maximum({0}, {1})",
        c_number="at_least({0}, {1})",
        triton="larger({0}, {1})",
    ),
    Primitive(
        "min",
        ("step(b - a)", "1 - step(b - a)"),
        np.minimum,
        "torch.minimum({0}, {1})",
        "\\min\\left({0},\\ {1}\\right)",
        torch_number="torch.clamp_max({0}, {1})",
        kinks=("a - b",),
        c="minimum({0}, {1})",
        c_number="at_most({0}, {1})",
        triton="smaller({0}, {1})",
    ),
    Primitive(
        "clip",
        # The upper bound wins when the two have crossed, as in torch and NumPy.
        ("step(a - b) * step(c - a)", "step(b - a) * step(c - b)", "step(max(a, b) - c)"),
        np.clip,
        "torch.minimum(torch.maximum({0}, {1}), {2})",
        "\\mathrm{{clip}}\\left({0},\\ {1},\\ {2}\\right)",
        torch_number="torch.clamp({0}, {1}, {2})",
        kinks=("a - b", "a - c"),
        c="minimum(maximum({0}, {1}), {2})",
        c_number="at_most(at_least({0}, {1}), {2})",
        triton="smaller(larger({0}, {1}), {2})",
    ),
    # 1 above 0, 0 at and below it, NaN for NaN: the derivative of relu, torch's convention at 0.
    Primitive(
        "step",
        ("0",),
        _step,
        "torch.where(torch.isnan({0}), {0}, ({0} > 0).to({0}.dtype))",
        "\\mathbf{{1}}_{{{0} > 0}}",
        kinks=("a",),
        range=(0, 1),
        c="step({0})",
        triton="step({0})",
    ),
    Primitive(
        "relu",
        ("step(a)",),
        lambda a: np.maximum(a, 0.0),
        "torch.relu({0})",
        "\\mathrm{{relu}}\\left({0}\\right)",
        kinks=("a",),
        range=(0, math.inf),
        c="relu({0})",
        triton="larger({0}, 0.0)",
    ),
    Primitive(
        "abs",
        ("sign(a)",),
        np.abs,
        "torch.abs({0})",
        "\\left|{0}\\right|",
        kinks=("a",),
        range=(0, math.inf),
        c="ABS({0})",
        triton="tl.abs({0})",
    ),
    Primitive(
        "sign",
        ("0",),
        np.sign,
        # torch.sign(nan) is 0 on CPU; NaN must come out as NaN.
        "torch.where(torch.isnan({0}), {0}, torch.sign({0}))",
        "\\mathrm{{sign}}\\left({0}\\right)",
        kinks=("a",),
        range=(-1, 1),
        c="sign({0})",
        triton="sign({0})",
    ),
    # exponentials, logarithms, powers ------------------------------------------------------------
    Primitive(
        "exp",
        ("exp(a)",),
        np.exp,
        "torch.exp({0})",
        "e^{{{0}}}",
        range=(0, math.inf),
        c="EXP({0})",
        triton="exponential({0})",
    ),
    Primitive(
        "exp2",
        ("log(2) * exp2(a)",),
        np.exp2,
        "torch.exp2({0})",
        "2^{{{0}}}",
        range=(0, math.inf),
        c="EXP2({0})",
        triton="tl.exp2({0})",
    ),
    Primitive(
        "expm1",
        ("exp(a)",),
        np.expm1,
        "torch.expm1({0})",
        "\\left(e^{{{0}}} - 1\\right)",
        range=(-1, math.inf),
        c="EXPM1({0})",
        triton="expm1({0})",
    ),
    Primitive(
        "log",
        ("1 / a",),
        np.log,
        "torch.log({0})",
        "\\log\\left({0}\\right)",
        c="LOG({0})",
        triton="tl.log({0})",
    ),
    Primitive(
        "log1p",
        ("1 / (1 + a)",),
        np.log1p,
        "torch.log1p({0})",
        "\\log\\left(1 + {0}\\right)",
        c="LOG1P({0})",
        triton="log1p({0})",
    ),
    Primitive(
        "sqrt",
        ("0.5 * rsqrt(a)",),
        np.sqrt,
        "torch.sqrt({0})",
        "\\sqrt{{{0}}}",
        range=(0, math.inf),
        c="SQRT({0})",
        triton="tl.sqrt({0})",
    ),
    Primitive(
        "rsqrt",
        ("-0.5 * rsqrt(a) / a",),
        lambda a: 1.0 / np.sqrt(a),
        "torch.rsqrt({0})",
        "\\frac{{1}}{{\\sqrt{{{0}}}}}",
        range=(0, math.inf),
        c="rsqrt({0})",
        triton="tl.rsqrt({0})",
    ),
    # circular and hyperbolic ---------------------------------------------------------------------
    Primitive(
        "sin",
        ("cos(a)",),
        np.sin,
        "torch.sin({0})",
        "\\sin\\left({0}\\right)",
        range=(-1, 1),
        c="SIN({0})",
        triton="sin({0})",
    ),
    Primitive(
        "cos",
        ("-sin(a)",),
        np.cos,
        "torch.cos({0})",
        "\\cos\\left({0}\\right)",
        range=(-1, 1),
        c="COS({0})",
        triton="cos({0})",
    ),
    Primitive(
        "sinc",
        (_SINC_SLOPE,),
        _sinc,
        "torch.sinc({0} / math.pi)",
        "\\mathrm{{sinc}}\\left({0}\\right)",
        c="sinc({0})",
        triton="sinc({0})",
    ),
    Primitive(
        "sinh",
        ("cosh(a)",),
        np.sinh,
        "torch.sinh({0})",
        "\\sinh\\left({0}\\right)",
        c="SINH({0})",
        triton="sinh({0})",
    ),
    Primitive(
        "cosh",
        ("sinh(a)",),
        np.cosh,
        "torch.cosh({0})",
        "\\cosh\\left({0}\\right)",
        range=(1, math.inf),
        c="COSH({0})",
        triton="cosh({0})",
    ),
    Primitive(
        "tanh",
        ("(1 - tanh(a)) * (1 + tanh(a))",),
        np.tanh,
        "torch.tanh({0})",
        "\\tanh\\left({0}\\right)",
        range=(-1, 1),
        c="TANH({0})",
        triton="tanh({0})",
    ),
    Primitive(
        "asinh",
        ("rsqrt(1 + a * a)",),
        np.arcsinh,
        "torch.asinh({0})",
        "\\mathrm{{asinh}}\\left({0}\\right)",
        c="ASINH({0})",
        triton="asinh({0})",
    ),
    Primitive(
        "arctan",
        ("1 / (1 + a * a)",),
        np.arctan,
        "torch.arctan({0})",
        "\\arctan\\left({0}\\right)",
        range=(-math.pi / 2, math.pi / 2),
        c="ATAN({0})",
        triton="arctan({0})",
    ),
    # The slope is infinite at ±1; it is held at 1e6 there, so that a clip's zero still gives zero.
    Primitive(
        "arcsin",
        (_ARCSIN_SLOPE,),
        np.arcsin,
        "torch.arcsin({0})",
        "\\arcsin\\left({0}\\right)",
        range=(-math.pi / 2, math.pi / 2),
        c="ASIN({0})",
        triton="arcsin({0})",
    ),
    # error function ------------------------------------------------------------------------------
    Primitive(
        "erf",
        ("2 / sqrt(pi) * exp(-a * a)",),
        _special("erf"),
        "torch.erf({0})",
        "\\mathrm{{erf}}\\left({0}\\right)",
        range=(-1, 1),
        c="ERF({0})",
        triton="tl.erf({0})",
    ),
    Primitive(
        "erfc",
        ("-2 / sqrt(pi) * exp(-a * a)",),
        _special("erfc"),
        "torch.erfc({0})",
        "\\mathrm{{erfc}}\\left({0}\\right)",
        range=(0, 2),
        c="ERFC({0})",
        triton="erfc({0})",
    ),
    # S-shaped gates and their densities ----------------------------------------------------------
    Primitive(
        "softplus",
        ("sigmoid(a)",),
        lambda a: np.logaddexp(a, 0.0),
        # torch's default threshold of 20 is off by 2e-9; at 40 the two branches agree in float64.
        "F.softplus({0}, threshold=40.0)",
        "\\mathrm{{softplus}}\\left({0}\\right)",
        range=(0, math.inf),
        c="softplus({0})",
        triton="softplus({0})",
    ),
    Primitive(
        "sigmoid",
        ("sigmoid(a) * sigmoid(-a)",),
        _special("expit"),
        "torch.sigmoid({0})",
        "\\sigma\\left({0}\\right)",
        range=(0, 1),
        c="sigmoid({0})",
        triton="sigmoid({0})",
    ),
    # GoLU's gate exp(-exp(-a)), arXiv 2502.03654; its derivative is the standard Gumbel density.
    Primitive(
        "gompertz",
        ("gumbel_pdf(a)",),
        lambda a: np.exp(-np.exp(-a)),
        "torch.exp(-torch.exp(-torch.clamp_min({0}, -7.0)))",
        "\\mathrm{{gompertz}}\\left({0}\\right)",
        range=(0, 1),
        c="gompertz({0})",
        triton="gompertz({0})",
    ),
    Primitive(
        "gumbel_pdf",
        ("gumbel_pdf(a) * expm1(-max(a, -7))",),
        _gumbel_pdf,
        "(lambda a: torch.exp(-a - torch.exp(-a)))(torch.clamp_min({0}, -7.0))",
        "\\mathrm{{gumbel\\_pdf}}\\left({0}\\right)",
        range=(0, math.exp(-1)),
        c="gumbel_pdf({0})",
        triton="gumbel_pdf({0})",
    ),
    Primitive(
        "normal_cdf",
        ("normal_pdf(a)",),
        _special("ndtr"),
        "(0.5 * torch.erfc(-math.sqrt(0.5) * {0}))",
        "\\Phi\\left({0}\\right)",
        range=(0, 1),
        c="normal_cdf({0})",
        triton="normal_cdf({0})",
    ),
    Primitive(
        "normal_pdf",
        ("-a * normal_pdf(a)",),
        lambda a: np.exp(-0.5 * a * a) / math.sqrt(2 * math.pi),
        "(torch.exp(-0.5 * {0} * {0}) * (1.0 / math.sqrt(2.0 * math.pi)))",
        "\\varphi\\left({0}\\right)",
        range=(0, 1 / math.sqrt(2 * math.pi)),
        c="normal_pdf({0})",
        triton="normal_pdf({0})",
    ),
    # 1/2 + arctan(a)/pi without its cancellation at large negative a: the angle of (-a, 1).
    Primitive(
        "arctan_gate",
        ("1 / (pi * (1 + a * a))",),
        lambda a: np.arctan2(1.0, -a) / np.pi,
        "(torch.atan2(torch.ones_like({0}), -{0}) * (1.0 / math.pi))",
        "\\left(\\frac{{1}}{{2}} + \\frac{{1}}{{\\pi}}\\arctan\\left({0}\\right)\\right)",
        range=(0, 1),
        c="arctan_gate({0})",
        triton="arctan_gate({0})",
    ),
    # 1/2 + arcsin(clip(a, -1, 1))/pi; flat outside [-1, 1].
    Primitive(
        "arcsin_gate",
        (f"step(1 - abs(a)) * {_ARCSIN_SLOPE} / pi",),
        lambda a: 0.5 + np.arcsin(np.clip(a, -1.0, 1.0)) / np.pi,
        "(0.5 + torch.arcsin(torch.clamp({0}, -1.0, 1.0)) * (1.0 / math.pi))",
        "\\left(\\frac{{1}}{{2}} + \\frac{{1}}{{\\pi}}\\arcsin\\left("
        "\\mathrm{{clip}}\\left({0},\\ -1,\\ 1\\right)\\right)\\right)",
        kinks=("1 - abs(a)",),
        range=(0, 1),
        c="arcsin_gate({0})",
        triton="arcsin_gate({0})",
    ),
)
PRIMITIVES = {row.name: row for row in _ROWS}

# Published names that may be called in a formula; written out where they are read, `a` = argument.
ABBREVIATIONS = {
    "silu": "a * sigmoid(a)",
    "swish": "a * sigmoid(a)",
    "gelu": "a * normal_cdf(a)",
    "mish": "a * tanh(softplus(a))",
    "golu": "a * gompertz(a)",
    # Not relu(a) + expm1(min(a, 0)), whose slope at 0 would be 0 instead of 1.
    "elu": "select(a > 0, a, expm1(a))",
    "hard_sigmoid": "clip(a + 3, 0, 6) / 6",
    "leaky_relu": "max(a, 0.01 * a)",
}
