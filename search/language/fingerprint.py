"""Which formulas are the same function: a hash of values and slopes at fixed probe points.

Two expressions share a fingerprint when, at their initial parameters, value and input slope agree
to 1e-9 at every probe point, and so do the slopes by their trainable parameters, name and order
aside. So `sin(x)**2 + cos(x)**2` equals `1`, `x*sigmoid(b*x)` with b = 1 per layer equals Swish
whatever the parameter is called, and SiLU (nothing trained) differs from Swish (b trained).

`family` starts every trainable parameter at the same canonical values instead: it is shared by
reparametrisations that differ in their start only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from search.language.derivative import gradients, input_leaves, parameter_leaves
from search.language.evaluate import evaluate
from search.language.expression import Expression
from search.language.simplify import fold_fixed

_PRECISION = 1e-9
_CHEBYSHEV = 257
_TAILS = (-100.0, -40.0, -20.0, -12.0, 12.0, 20.0, 40.0, 100.0)
# The Chebyshev points beside 0 are 0.1 away: JumpReLU's threshold of 0.001 lies between them. Not 0
# itself: the slope of a kink is a convention there (abs, relu), and sin(x)/x is 0/0.
_MIDDLE = 0.01
_BESIDE_ZERO = (-0.003, -0.0003, 0.0003, 0.003, 0.03)
# A batch of 3 samples of 6 rows of 15 features, so that `over` tells statistics apart.
_BATCH = (3, 6, 15)


def probe_points() -> NDArray[np.float64]:
    """257 Chebyshev points on [-8, 8], eight in the tails and five beside 0.

    Shape (3, 6, 15); every row is spread over the whole range.
    """
    angles = (2 * np.arange(_CHEBYSHEV) + 1) * np.pi / (2 * _CHEBYSHEV)
    inner = 8.0 * np.cos(angles)
    inner[_CHEBYSHEV // 2] = _MIDDLE
    points = np.concatenate([inner[::-1], _TAILS, _BESIDE_ZERO])
    return points.reshape(_BATCH[2], -1).T.reshape(_BATCH)


@lru_cache(maxsize=4096)
def fingerprint(expression: Expression) -> str:
    """16 hexadecimal digits; equal for equal functions with equal trainable directions."""
    return _digest(expression, expression.initial)


@lru_cache(maxsize=4096)
def family(expression: Expression) -> str:
    """As `fingerprint`, with the k-th trainable parameter started at a canonical value."""
    start = {p.name: 0.5 + 0.25 * k for k, p in enumerate(expression.trainable)}
    return _digest(expression, start)


def _digest(expression: Expression, start: dict[str, float]) -> str:
    digest = hashlib.sha256()
    for part in _signature(expression, start):
        digest.update(part)
    return digest.hexdigest()[:16]


def _signature(expression: Expression, start: dict[str, float]) -> Iterator[bytes]:
    """Body value and input slopes, the parameters' slopes as a sorted multiset, the penalty."""
    expression = fold_fixed(expression)
    x = probe_points()
    inputs = {"x": x, "u": np.cos(1.7 * x) + 0.3 * x, "dy": np.ones_like(x)}
    names = {p.name: start[p.name] for p in expression.trainable}
    inner, outer = input_leaves(expression), parameter_leaves(expression)
    slopes = gradients(expression, (*inner, *outer))
    yield b"u" if len(inner) == 2 else b"x"
    for node in (expression.body, *(slopes[leaf] for leaf in inner)):
        yield _rounded(evaluate(node, inputs, names), x.shape)
    yield from sorted(
        p.scope.encode() + _rounded(evaluate(slopes[leaf], inputs, names), x.shape)
        for p, leaf in zip(expression.trainable, outer, strict=True)
    )
    if expression.penalty is not None:
        yield _rounded(evaluate(expression.penalty, inputs, names), x.shape)


def _rounded(values: NDArray[np.float64], shape: tuple[int, ...]) -> bytes:
    """The values to 1e-9, relative above 1 and absolute below; -0, nan and inf made unique."""
    values = np.broadcast_to(values, shape)
    finite = np.where(np.isfinite(values), values, 0.0)
    # Shifted, so that short decimals and powers of two lie well inside a step and not on its edge.
    with np.errstate(over="ignore", invalid="ignore"):  # beyond 1e299 all values are alike
        scale = np.exp2(np.ceil(np.log2(np.maximum(np.abs(finite), 1.0))))
        rounded = np.floor(finite / (scale * _PRECISION) + 0.637) * scale + 0.0
    kinds = np.where(np.isnan(values), 2.0, np.where(np.isinf(values), np.sign(values), 0.0))
    return rounded.tobytes() + kinds.tobytes()
