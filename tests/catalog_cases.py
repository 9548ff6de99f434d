"""How the reference file is read."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray
from scipy import integrate

from search.language.catalog import CATALOG
from search.language.derivative import derivative
from search.language.evaluate import evaluate
from search.language.expression import Call, Expression, Node, Parameter, X, substitute, walk
from search.language.parser import parse_node
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


def _expectation(f: Expression, power: int) -> float:
    """E f(z)^power by adaptive quadrature, split at the kinks that the moments' entries have."""

    def integrand(z: float) -> float:
        return float(value(f, z)) ** power * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    edges = (-12.0, -2.0, 0.0, 2.0, 12.0)
    pieces = (integrate.quad(integrand, a, b, epsabs=1e-14, limit=200) for a, b in pairwise(edges))
    return sum(piece[0] for piece in pieces)
