"""What a candidate does, as numbers: values and slopes under N(0, s), and what follows from them.

Two candidates that do nearly the same have nearly the same features, however they are written. All
of it is float64 NumPy on a fixed batch, without a task and without training; 0.4 ms a candidate.

    values     asinh(f(s z) / s) and, standardised, the shape (f - E f) / sd f; s in 0.5, 1, 2, 4
    slopes     f'(s z), as the difference over ± 1e-4 in which every input moves by itself
    moments    E f, log E f², E f f', log E f'² under N(0, s): how variance and gradient go through
               depth (Poole et al. 2016, Schoenholz et al. 2017)
    degrees    shares of f's Hermite coefficients in E f²: the kernel of a wide layer is a power
               series in them (Daniely et al. 2016)
    fisher     spectrum of the empirical Fisher matrix of a small random network (cf. AQuaSurF,
               arXiv 2301.05785): its nonzero eigenvalues are those of the Gram matrix of the
               per-sample gradients
    learning   what a step of the learned numbers does: root sum of squares of df/dp over p, of
               numbers per layer and per channel
    counts     how many of both there are, statistics, and the operations in the formula
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from search.language.evaluate import evaluate
from search.language.expression import Call, Expression, Statistic, walk

Array = NDArray[np.floating[Any]]

SPREADS = np.array([0.5, 1.0, 2.0, 4.0])
POINTS = 48
_STEP = 1e-4
_DEGREES = 6
_WIDTH, _SAMPLES, _LAYERS = 24, 24, 3
_LARGEST = 1e6
"""Values are cut here: a candidate beyond it is told apart, not measured."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The features of one candidate."""

    blocks: tuple[NDArray[np.float32], ...]
    """In the order of `BLOCKS`; all finite."""
    finite: bool
    """Whether values and slopes were finite everywhere."""


BLOCKS = ("values", "shape", "slopes", "moments", "degrees", "fisher", "learning", "counts")
GROUPS = (
    ("values", "shape", "slopes"),
    ("moments",),
    ("degrees",),
    ("fisher",),
    ("learning", "counts"),
)
"""Blocks that say the same kind of thing: each group has axes and a kernel of its own."""


@lru_cache(maxsize=32_768)
def behaviour(expression: Expression) -> Behaviour:
    """The features at the initial parameters; deterministic."""
    f, slope, by_layer, by_channel = _responses(expression)
    finite = bool(np.isfinite(f).all() and np.isfinite(slope).all())
    f, slope, by_layer, by_channel = map(_cut, (f, slope, by_layer, by_channel))
    scaled = f / SPREADS[:, None]
    mean, deviation = scaled.mean(-1, keepdims=True), scaled.std(-1, keepdims=True)
    shape = (scaled - mean) / np.maximum(deviation, 1e-6)
    learning = np.stack([by_layer, by_channel])
    blocks = (
        np.arcsinh(scaled),
        shape,
        np.arcsinh(slope),
        _moments(scaled, slope),
        _degrees(scaled[1]),
        _fisher(f, slope),
        np.arcsinh(learning),
        _counts(expression),
    )
    return Behaviour(tuple(b.ravel().astype(np.float32) for b in blocks), finite)


@cache
def _batch() -> tuple[Array, Array]:
    """Normal quantiles of variance 1 in a fixed random order, (spreads, 1, points), and signs.

    In one order all neighbours would move together in a statistic over the row.
    """
    rng = np.random.default_rng(20)
    z = rng.permutation(ndtri((np.arange(POINTS) + 0.5) / POINTS))
    z = z / z.std()
    signs = rng.permutation(np.tile([-1.0, 1.0], POINTS // 2))
    return SPREADS[:, None, None] * z, signs


def quantiles() -> Array:
    """The points of the batch at spread 1, in the batch's order."""
    return _batch()[0][1, 0]


def _responses(expression: Expression) -> tuple[Array, Array, Array, Array]:
    """f, f', and the strengths of the learned directions; each (spreads, points).

    One evaluation for all: rows of a batch, the first as it is, two with the inputs moved, and one
    for every learned number moved.
    """
    x, signs = _batch()
    learned = expression.trainable
    rows = 3 + len(learned)
    moved = np.repeat(x, rows, axis=1)
    moved[:, 1] += _STEP * signs
    moved[:, 2] -= _STEP * signs
    names: dict[str, Array] = {}
    for name, initial in expression.initial.items():
        names[name] = np.full((rows, 1), initial)
    for row, parameter in enumerate(learned, start=3):
        names[parameter.name][row] += _STEP
    inputs = {"x": moved, "u": np.cos(1.7 * moved) + 0.3 * moved}
    y = np.broadcast_to(evaluate(expression.body, inputs, names), moved.shape)
    with np.errstate(all="ignore"):
        slope = (y[:, 1] - y[:, 2]) / (2 * _STEP) * signs
        steps = (y[:, 3:] - y[:, :1]) / _STEP
        strength = {
            scope: np.sqrt((steps[:, [p.scope == scope for p in learned]] ** 2).sum(axis=1))
            for scope in ("layer", "channel")
        }
    return y[:, 0], slope, strength["layer"], strength["channel"]


def _cut(values: Array) -> Array:
    inside = np.minimum(np.maximum(values, -_LARGEST), _LARGEST)
    return np.where(np.isnan(inside), _LARGEST, inside)


def _moments(scaled: Array, slope: Array) -> Array:
    """(spreads, 4); the logarithms of E f² and E f'² end at 1e-6."""
    second, gradient = (scaled**2).mean(-1), (slope**2).mean(-1)
    mixed = (scaled * slope).mean(-1)
    logs = [np.log(second + 1e-6), np.log(gradient + 1e-6)]
    return np.stack([np.arcsinh(scaled.mean(-1)), np.arcsinh(mixed), *logs], axis=-1)


@cache
def _hermite() -> Array:
    """The normalised Hermite polynomials He_k / sqrt(k!) at the points; (degrees, points)."""
    z = quantiles()
    table = np.polynomial.hermite_e.hermevander(z, _DEGREES - 1).T
    return table / np.sqrt([[math.factorial(k)] for k in range(_DEGREES)])


def _degrees(f: Array) -> Array:
    """The signed square roots of the shares of each degree in E f²."""
    coefficients = _hermite() @ f / POINTS
    return coefficients / math.sqrt(float((f**2).mean()) + 1e-12)


@cache
def _network() -> tuple[Array, tuple[Array, ...], NDArray[np.intp]]:
    """Inputs, weights and the order of the points by size: of the small random network."""
    rng = np.random.default_rng(21)
    inputs = rng.standard_normal((_SAMPLES, _WIDTH))
    weights = tuple(rng.standard_normal((_WIDTH, _WIDTH)) for _ in range(_LAYERS))
    grid = _batch()[0][:, 0].ravel()
    return inputs, weights, np.argsort(grid)


def _fisher(f: Array, slope: Array) -> Array:
    """log10 of eigenvalues of the empirical Fisher matrix, from the largest, and of its trace.

    Three layers of 24 on 24 samples of N(0, 1), each weight N(0, g²/24) with g such that a N(0, 1)
    input keeps its second moment; f and f' are read between the probe points.
    """
    h, weights, order = _network()
    grid = _batch()[0][:, 0].ravel()[order]
    value, derivative = f.ravel()[order], slope.ravel()[order]
    gain = 1.0 / math.sqrt(float((f[1] ** 2).mean()) + 1e-12)
    layers: list[tuple[Array, Array, Array]] = []
    scale = 1.0
    for weight in weights:
        z = np.clip(h @ weight * (scale / math.sqrt(_WIDTH)), grid[0], grid[-1])
        layers.append((h, np.interp(z, grid, derivative), weight * (scale / math.sqrt(_WIDTH))))
        h, scale = np.interp(z, grid, value), gain
    delta = np.full_like(h, gain / math.sqrt(_WIDTH))
    gram = h @ h.T
    for below, gradient, weight in reversed(layers):
        delta = delta * gradient
        gram = gram + (below @ below.T) * (delta @ delta.T)
        delta = delta @ weight.T
    eigenvalues = np.linalg.eigvalsh(gram)[::-1]
    total = float(eigenvalues.sum()) + 1e-12
    kept = np.log10(np.maximum(eigenvalues[[0, 1, 3, 7, 11, 15, 19]], 1e-6 * total) / total)
    return np.append(kept, math.log10(total))


def _counts(expression: Expression) -> Array:
    nodes = list(walk(expression.body))
    calls = sum(isinstance(node, (Call, Statistic)) for node in nodes)
    scopes = [p.scope for p in expression.trainable]
    statistics = sum(isinstance(node, Statistic) for node in nodes)
    counted = [scopes.count("layer"), scopes.count("channel"), statistics]
    return np.array([*np.sqrt(counted), math.log2(1 + calls)])
