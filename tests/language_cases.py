"""Formulas and probes that the tests of the language share."""

from __future__ import annotations

import numpy as np
from matplotlib.mathtext import MathTextParser
from numpy.typing import NDArray

from search.language.evaluate import evaluate
from search.language.expression import (
    COMPARISONS,
    Call,
    Expression,
    Input,
    Node,
    Parameter,
    walk,
)
from search.language.primitives import PRIMITIVES
from tests.cases import (
    CASES,
    expression,
    has_statistics,
)

EPS = np.finfo(np.float64).eps


POINTWISE = [name for name in CASES if not has_statistics(expression(name))]


WITH_STATISTICS = [name for name in CASES if name not in POINTWISE]


def variables(e: Expression) -> tuple[Node, ...]:
    """The inputs and the trainable parameters."""
    return (*map(Input, e.inputs), *(Parameter(p.name) for p in e.trainable))


def at_point(names: dict, i: int) -> dict:
    return {k: v[i] if isinstance(v, np.ndarray) else v for k, v in names.items()}


def points(function: str, n: int = 25) -> NDArray[np.float64]:
    """(arity, n) arguments in the function's domain, off its kinks."""
    low, high = DOMAINS.get(function, (-6.0, 6.0))
    rng = np.random.default_rng(sum(map(ord, function)))
    drawn = rng.uniform(low, high, (PRIMITIVES[function].arity, n))
    if function == "pow":
        drawn[0] = np.abs(drawn[0])
        drawn[0, :5], drawn[1, :5] = -2.5, [3, 2, 1, -1, -2]
    return drawn


def is_condition(node: Node) -> bool:
    return isinstance(node, Call) and node.function in COMPARISONS


def readable(text: str) -> None:
    """matplotlib can set it; a ValueError says where it cannot."""
    MATHTEXT.parse(f"${text}$")


def rounding(node: Node, names: dict) -> float:
    """eps × operations × largest intermediate, ×4 for the conditioning of the functions between."""
    values = [np.abs(evaluate(n, names)) for n in walk(node) if not is_condition(n)]
    largest = max(float(v[np.isfinite(v)].max(initial=1.0)) for v in map(np.atleast_1d, values))
    return 4 * EPS * len(values) * largest


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


MATHTEXT = MathTextParser("path")
