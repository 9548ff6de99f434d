"""A formula in float64, by NumPy and SciPy: the reference every rendering is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.language.expression import (
    Call,
    Constant,
    Expression,
    Input,
    Node,
    Number,
    Over,
    Parameter,
    Statistic,
    walk,
)
from search.language.primitives import PRIMITIVES, Array

CONSTANT_VALUES = {"pi": math.pi, "e": math.e}


def evaluate(
    node: Node, inputs: Mapping[str, ArrayLike], parameters: Mapping[str, ArrayLike] | None = None
) -> NDArray[np.float64]:
    """The value of `node` in float64.

    inputs: `x` (and `u`, `dy`) of one shape, the last axis the features and the first the batch.
    parameters: a value for every declared name, broadcast against the inputs.
    Values outside a function's domain are NaN, overflow is inf; NumPy's warnings are off.
    """
    names = {**inputs, **(parameters or {})}
    values: dict[Node, Array] = {}
    with np.errstate(all="ignore"):
        for current in walk(node):
            values[current] = _value(current, values, names)
    return np.asarray(values[node], dtype=np.float64)


def evaluate_expression(expression: Expression, **inputs: ArrayLike) -> NDArray[np.float64]:
    """The activation at its initial parameters, broadcast to the shape of `x`."""
    value = evaluate(expression.body, inputs, expression.initial)
    return np.broadcast_to(value, np.shape(inputs["x"]))


def _value(node: Node, values: Mapping[Node, Array], names: Mapping[str, ArrayLike]) -> Array:
    match node:
        case Number(value):
            return np.float64(value)
        case Constant(name):
            return np.float64(CONSTANT_VALUES[name])
        case Input(name) | Parameter(name):
            return np.asarray(names[name], dtype=np.float64)
        case Call(function, arguments):
            return PRIMITIVES[function].reference(*(values[a] for a in arguments))
        case Statistic(kind, argument, over):
            return _statistic(kind, values[argument], over)


def _statistic(kind: str, z: Array, over: Over) -> Array:
    z = np.atleast_1d(z)
    axes = {"features": (-1,), "sample": tuple(range(1, z.ndim)) or (0,), "tensor": None}[over]
    match kind:
        case "mean":
            return z.mean(axis=axes, keepdims=True)
        case "var":
            return z.var(axis=axes, keepdims=True)
        case "std":
            return z.std(axis=axes, keepdims=True)
        case _:
            return np.sqrt((z * z).mean(axis=axes, keepdims=True))
