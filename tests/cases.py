"""The expressions that every property test walks.

`WRITTEN` covers every primitive, scope, statistic and construct once; `CASES` adds the catalogue.
Every case is finite, with all its gradients, for inputs in about [-6, 6] and parameters near their
initial values, so a test may draw both as it likes.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from search.language.catalog import CATALOG
from search.language.expression import Expression, Statistic, walk
from search.language.parser import parse

WRITTEN: dict[str, str] = {
    # arithmetic
    "identity": "x",
    "line": "2 * x - 3",
    "sum": "x + x**2 + 1/3",
    "difference": "1 - x - (2 - x**3)",
    "quotient": "x / (1 + x**2) / 3",
    "signs": "-x * -(x - 2) - -x**2",
    "numbers": "1e-3 * x + 2.5e6 / (1e6 + x**2) - .5",
    "constants": "sqrt(2 / pi) * x + e",
    "powers": "x**3 - 2**x + x**-2 * 0 + (1 + x**2)**0.5 + (1 + x**2)**-1.5",
    "tower": "(1 + x**2)**(x / 8)**2",
    # choices
    "select": "select(x > 0, x, expm1(x))",
    "select_nested": "select(x >= 1, x, select(x < -1, 2 * x + 1, select(x <= 0, x, x**2)))",
    "select_inside": "tanh(select(x > 0.5, x**2, x / 2)) * x",
    "select_overflow": "select(x > 0, log1p(x), x * exp(x))",
    "max": "max(x, x**2 / 4)",
    "max_zero": "max(x, 0) + max(0, -x / 2)",
    "min": "min(x, 0.1 * x)",
    "clip": "clip(x, -1, 2)",
    "clip_of_parameters": "clip(x, -a, b) where a = 1 per layer, b = 2 per channel",
    "step": "x * step(x - 0.25)",
    "relu": "relu(x)",
    "abs": "abs(x) * x",
    "sign": "sign(x) * x**2",
    # exponentials, logarithms and roots
    "exp": "exp(-x**2 / 4)",
    "exp2": "exp2(x / 2)",
    "expm1": "expm1(-x / 2)",
    "log": "log(1.5 + x**2)",
    "log1p": "log1p(exp(x))",
    "sqrt": "sqrt(1 + x**2)",
    "rsqrt": "x * rsqrt(1 + x**2)",
    # circular and hyperbolic
    "sin": "sin(2 * x)",
    "cos": "x * cos(x)",
    "sinc": "sinc(x) + x",
    "sinh": "sinh(x / 3)",
    "cosh": "1 / cosh(x)",
    "tanh": "tanh(x)",
    "asinh": "asinh(x)",
    "arctan": "arctan(3 * x)",
    "arcsin": "arcsin(x / 10)",
    # error function
    "erf": "x * erf(x)",
    "erfc": "erfc(x / 2)",
    # gates and densities
    "softplus": "softplus(x)",
    "sigmoid": "sigmoid(x)",
    "gompertz": "gompertz(x)",
    "gumbel_pdf": "gumbel_pdf(x)",
    "normal_cdf": "x * normal_cdf(x)",
    "normal_pdf": "normal_pdf(x)",
    "arctan_gate": "x * arctan_gate(x)",
    "arcsin_gate": "x * arcsin_gate(x / 4)",
    # abbreviations
    "abbreviated": "silu(x) + swish(-x) + gelu(x) + mish(x) + golu(x)",
    "abbreviated_kinks": "elu(x) + hard_sigmoid(x) * leaky_relu(x)",
    "abbreviation_of_an_abbreviation": "gelu(mish(x))",
    # parameters
    "per_layer": "x * sigmoid(b * x) where b = 1 per layer",
    "per_channel": "x * gompertz(beta * x) where beta = 1 per channel",
    "fixed": "(alpha + (1 - alpha) * sigmoid(x)) * x where alpha = 0.25 fixed",
    "all_scopes": "(a + b * tanh(c * x)) * x"
    " where a = 1/3 per layer, b = 0.5 per channel, c = 2 fixed",
    "trained_exponent": "relu(x)**p where p = 2 per layer",
    "trained_base": "a**x where a = 2 per layer",
    "parameter_twice": "k * x + k**2 * sin(x) where k = 0.5 per layer",
    "parameter_alone": "x + b where b = 0 per channel",
    "interpolation": "(a - b) * mish(x) + b * x where a = 1 per layer, b = 0 per layer",
    # statistics
    "mean": "x - mean(x)",
    "var": "x * exp(-var(x) / 8)",
    "std": "x * (1 + 0.1 * tanh(0.9 * std(x)))",
    "rms": "x / rms(x)",
    "standardised": "(x - mean(x)) * rsqrt(var(x) + 1e-5)",
    "over_sample": "x * tanh(std(x, over=sample)) - mean(x, over=sample)",
    "over_tensor": "x / rms(x, over=tensor)",
    "detached": "x / rms(x, detach=True) + mean(x**2, over=tensor, detach=True)",
    "statistic_of_a_function": "x * sigmoid(std(sin(x)))",
    "statistic_of_a_statistic": "x * tanh(std(x - mean(x) * x))",
    "statistic_and_parameter": "x * (1 + g * tanh(m / rms(s * x))) where g = 0.1 per layer,"
    " m = 0.9 per channel, s = 1 per layer",
    "statistic_alone": "mean(x**2) + 0 * x",
    "statistic_in_a_choice": "select(x > mean(x), x, 0.1 * x)",
    # gated pairs
    "pair": "u * silu(x)",
    "pair_with_parameter": "u * (sigmoid(x) * (1 + 2 * a) - a) where a = 0.1 per layer",
    "pair_statistic": "u * x / rms(u) + std(x * u)",
    "pair_power": "(1 + x**2)**(u / 4)",
    # penalty
    "penalty": "a * tanh(x) where a = 1 per layer penalty mean(tanh(x), over=tensor)**2",
    "penalty_with_parameter": "lam * x where lam = 1 per layer, c = 1 per layer"
    " penalty (std(c * x, over=tensor) - 1)**2",
    # nested
    "deep": "sin(x + sin(x + sin(x + sin(x + sin(x + sin(x + sin(x + sin(x))))))))",
    "wide": "x + x**2/2 + x**3/6 + x**4/24 + x**5/120 + x**6/720 + x**7/5040 + x**8/40320",
    "composed": "sigmoid(a * (arctan(b * x) + arcsin(clip(c * x, -1, 1)))) * x"
    " where a = 2 per layer, b = 1 per layer, c = 0.1 fixed",
}
CASES: dict[str, str] = WRITTEN | {
    f"catalogue {name}": row.formula for name, row in CATALOG.items()
}


LIMITS: dict[str, tuple[float, float, float, float]] = {
    "x * gompertz(x)": (0.0, math.inf, 0.0, 1.0),
    "x * sigmoid(x)": (0.0, math.inf, 0.0, 1.0),
    "x * normal_cdf(x)": (0.0, math.inf, 0.0, 1.0),
    "x * tanh(softplus(x))": (0.0, math.inf, 0.0, 1.0),
    "x / (1 + abs(x))": (-1.0, 1.0, 0.0, 0.0),
    "relu(x)": (0.0, math.inf, 0.0, 1.0),
    "0.5 * (x + sqrt(x * x + 4))": (0.0, math.inf, 0.0, 1.0),
    "tanh(x)": (-1.0, 1.0, 0.0, 0.0),
    "select(x > 0, x, expm1(x))": (-1.0, math.inf, 0.0, 1.0),
    "x * cos(x)": (math.nan, math.nan, math.nan, math.nan),
    "x - x * sigmoid(-x)": (0.0, math.inf, 0.0, 1.0),
    "x + sin(x)": (-math.inf, math.inf, math.nan, math.nan),
    "max(x, 0) + x * exp(-x * x / 2)": (0.0, math.inf, 0.0, 1.0),
    "x * (1 + erf(x / 3)) / 2": (0.0, math.inf, 0.0, 1.0),
    "x * arctan_gate(x)": (-1 / math.pi, math.inf, 0.0, 1.0),
    "x * tanh(0.001 * x)": (math.inf, math.inf, -1.0, 1.0),
    "x**3 * sigmoid(x)": (0.0, math.inf, 0.0, math.inf),
}
"""Formula → value at -inf and inf, slope at -inf and inf; NaN where there is no limit."""


@cache
def expression(name: str) -> Expression:
    """The expression of a case."""
    return parse(CASES[name], name)


def has_statistics(e: Expression) -> bool:
    """Whether the value at one element depends on others."""
    return any(isinstance(node, Statistic) for node in walk(e.body))


def sample_inputs(shape: tuple[int, ...] = (2, 3, 5), seed: int = 0) -> dict[str, NDArray]:
    """`x` and `u`, normal with standard deviation 1.5: off every kink with probability 1."""
    rng = np.random.default_rng(seed)
    return {name: 1.5 * rng.standard_normal(shape) for name in ("x", "u")}


def moved_parameters(e: Expression) -> dict[str, float]:
    """Every parameter a little off its initial value, so that none is a special one."""
    return {p.name: p.initial + 0.03 * (k + 1) for k, p in enumerate(e.trainable)} | {
        p.name: p.initial for p in e.parameters if p.scope == "fixed"
    }
