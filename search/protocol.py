"""Gates before training: what no learning rate can save is rejected first, with its reason.

Each gate has a name, counted in the report. In order, cheapest first:

    shape      not constant and not affine (a naive search rediscovers 3x, 1 and -3)
    finite     value and gradient are finite over [-1e4, 1e4] and for N(0, s), s in 0.5, 1, 2, 4,
               in float32, bfloat16 and float16
    reference  the float32 program agrees with the float64 reference
    signal     variance and gradient norm stay bounded through 12 random layers

Duplicates are caught by the study, by fingerprint; the gate of the first training steps is
`search.training.gate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from search.kernels.formula import Formula, load_formula
from search.kernels.operators import apply_formula
from search.language.derivative import gradients, input_leaves
from search.language.evaluate import evaluate
from search.language.expression import Expression, Node
from search.language.fingerprint import probe_points
from search.language.simplify import fold_fixed

FLOAT_TYPES = (torch.float32, torch.bfloat16, torch.float16)
SPREADS = (0.5, 1.0, 2.0, 4.0)
_DEPTH, _WIDTH, _BATCH = 12, 128, 64
_LARGEST_DRIFT = 1e6
"""Factor by which variance or gradient norm may drift over the layers of the signal gate."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A candidate that is not worth a training run."""

    gate: str
    reason: str


def gate_before_training(expression: Expression) -> Rejection | None:
    """The first gate the candidate fails, or None. Takes some milliseconds; no task is needed."""
    for name, gate in GATES.items():
        reason = gate(expression)
        if reason:
            return Rejection(name, reason)
    return None


def shape_gate(expression: Expression) -> str:
    """Refuses a constant or a straight line, as it starts and with its parameters moved."""
    starts = [expression.initial]
    if expression.trainable:
        moved = {p.name: p.initial + 0.37 * (k + 1) for k, p in enumerate(expression.trainable)}
        starts.append({**expression.initial, **moved})
    lines = [_line(expression, start) for start in starts]
    if not all(lines):
        return ""
    return f"f(x) = {lines[0]} for every x"


def _line(expression: Expression, parameters: dict[str, float]) -> str:
    """The text of the line that the function is, or nothing when it is none.

    Two rows of different spread, so that a factor by a statistic is not taken for a constant.
    """
    x = np.stack([probe_points(), 0.5 * probe_points()])
    inputs = {"x": x, "u": np.cos(x)}
    y = np.broadcast_to(evaluate(expression.body, inputs, parameters), x.shape)
    if not np.isfinite(y).all():
        return ""
    slope, offset = np.polyfit(x.ravel(), y.ravel(), 1)
    residual = np.abs(y - (slope * x + offset)).max()
    if residual > 1e-6 * max(1.0, np.abs(y).max()):
        return ""
    slope, offset = (0.0 if abs(v) < 1e-9 else v for v in (slope, offset))
    return f"{slope:.4g} x + {offset:.4g}" if slope else f"{offset:.4g}"


def finite_gate(expression: Expression) -> str:
    """Refuses inf and NaN in value or gradient, in any of the three training dtypes."""
    formula = load_formula(expression)
    for label, points in _inputs():
        for dtype in FLOAT_TYPES:
            x = points.to(dtype)
            y, dx = _value_and_slope(formula, expression, x)
            for name, values in (("f", y), ("f'", dx)):
                bad = ~torch.isfinite(values.float())
                if bad.any():
                    where = x.float()[bad][0].item()
                    value = values.float()[bad][0].item()
                    kind = str(dtype).removeprefix("torch.")
                    return f"{name}({where:.4g}) is {value} in {kind} ({label})"
    return ""


def _inputs() -> Iterator[tuple[str, Tensor]]:
    """Rows of features: a grid over [-1e4, 1e4], dense near 0, and the four normal samples."""
    decades = torch.logspace(-4, 4, 161, dtype=torch.float64)
    grid = torch.cat([-decades.flip(0), torch.zeros(1, dtype=torch.float64), decades])
    yield "on [-1e4, 1e4]", grid
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(8, 128, generator=generator, dtype=torch.float64)
    for spread in SPREADS:
        yield f"on N(0, {spread:g})", spread * normal


def _value_and_slope(formula: Formula, expression: Expression, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = _apply(formula, expression, x)
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    return y.detach(), dx


def _apply(formula: Formula, expression: Expression, x: Tensor) -> Tensor:
    inputs = (x,) if formula.inputs == 1 else (x, torch.ones_like(x))
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    parameters = [torch.tensor(p.initial, dtype=dtype) for p in expression.trainable]
    return apply_formula(formula, inputs, parameters, -1)


def reference_gate(expression: Expression) -> str:
    """Refuses a float32 program that strays from float64 by more than round-off can explain.

    Round-off explains 1,000 roundings of the largest number involved, and whatever float64 itself
    makes of x when x is moved by 32 roundings: near arcsin's ends no program can do better.
    """
    formula = load_formula(expression)
    inner = input_leaves(expression)[:1]
    nodes = {"f": fold_fixed(expression).body, "f'": gradients(expression, inner)[inner[0]]}
    for label, points in _inputs():
        x = points.float()
        found = dict(zip(nodes, _value_and_slope(formula, expression, x), strict=True))
        for name, node in nodes.items():
            error = _excess(found[name].double().numpy(), node, x.double().numpy(), expression)
            if error > 0:
                return f"{name} is off by {error:.1e} (relative) in float32 ({label})"
    return ""


def _excess(values: np.ndarray, node: Node, x: np.ndarray, expression: Expression) -> float:
    """The largest relative error that round-off does not explain; 0 when there is none."""
    eps = np.finfo(np.float32).eps

    def exact(x: np.ndarray) -> np.ndarray:
        inputs = {"x": x, "u": np.ones_like(x), "dy": np.ones_like(x)}
        return np.broadcast_to(evaluate(node, inputs, expression.initial), x.shape)

    wanted = exact(x)
    moved = [np.abs(exact(x * (1 + sign * 32 * eps)) - wanted) for sign in (-1, 1)]
    scale = np.maximum(np.maximum(np.abs(wanted), np.abs(x)), 1.0)
    error = np.abs(values - wanted)
    explained = 1_000 * eps * scale + 4 * np.maximum(*moved)
    return float(np.max(np.where(error <= explained, 0.0, error / scale)))


def signal_gate(expression: Expression) -> str:
    """Refuses a function whose signal or gradient explodes or dies through a deep random network.

    12 layers of width 128 without normalisation, weights N(0, g²/128) with g such that the first
    layer keeps the second moment of a N(0, 1) input (He-style, per function). A gated pair is
    quadratic by design and lives between a norm and a residual: it passes.
    """
    if "u" in expression.inputs:
        return ""
    formula = load_formula(expression)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_BATCH, _WIDTH, generator=generator, requires_grad=True)
    with torch.no_grad():
        first = _apply(formula, expression, x).pow(2).mean().item()
    if not math.isfinite(first) or first == 0:
        return f"second moment of f(N(0, 1)) is {first:g}"
    gain = first**-0.5
    h = x
    for _ in range(_DEPTH):
        weight = torch.randn(_WIDTH, _WIDTH, generator=generator) * gain / _WIDTH**0.5
        h = _apply(formula, expression, h @ weight)
    (slope,) = torch.autograd.grad(h, x, torch.randn(h.shape, generator=generator))
    drifts = {
        "variance": h.var(dim=0).mean().item() / first,
        "squared gradient norm": slope.pow(2).mean().item(),
    }
    for name, drift in drifts.items():
        if not 1 / _LARGEST_DRIFT < drift < _LARGEST_DRIFT:
            return f"{name} changes by a factor of {drift:.1e} over {_DEPTH} layers"
    return ""


GATES: dict[str, Callable[[Expression], str]] = {
    "shape": shape_gate,
    "finite": finite_gate,
    "reference": reference_gate,
    "signal": signal_gate,
}
