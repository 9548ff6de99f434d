"""A formula as a differentiable torch function, by the torch rendering.

Forward and backward are the generated programs: gradients come from the table's rules, not from
torch's own, so that a choice's untaken branch cannot make a NaN and only x, u and the parameters
are kept in memory. 16-bit tensors are computed in float32 and rounded once at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from search.kernels.build import load_source
from search.kernels.program import lower
from search.kernels.torch_code import render
from search.language.expression import Expression


@dataclass(frozen=True, slots=True)
class Formula:
    """The loaded programs of one expression."""

    forward: Callable[..., Tensor]
    backward: Callable[..., tuple[Tensor, ...]]
    inputs: int
    """1 (x) or 2 (x and u); the tensors after them are the trainable parameters."""


@lru_cache(maxsize=1024)
def load_formula(expression: Expression) -> Formula:
    """Lower, render and import an expression."""
    module = load_source(render(lower(expression), str(expression)))
    return Formula(module.forward, module.backward, len(expression.inputs))


def apply_formula(
    formula: Formula, inputs: Sequence[Tensor], parameters: Sequence[Tensor], channel_dim: int
) -> Tensor:
    """f(x[, u]; parameters) with the shape and dtype of x.

    parameters: shaped to broadcast against x. channel_dim: negative, the dimension that a
    statistic over features reduces.
    """
    # Under torch.func a Function must keep its forward apart from its context; eager mode pays
    # 40 of 210 µs for that (GoLU, 64 x 128, forward and backward), so it has a Function of its own.
    function = _Transformed if torch._C._are_functorch_transforms_active() else _Eager
    return function.apply(formula, channel_dim, *inputs, *parameters)


def _dimensions(x: Tensor, channel_dim: int) -> dict[str, tuple[int, ...]]:
    everything = tuple(range(-x.ndim, 0))
    return {
        "features": (channel_dim,) if x.ndim else (),
        "sample": everything[1:] or everything,
        "tensor": everything,
    }


def _widen(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return [t if t.dtype == wide else t.to(wide) for t in tensors]


def _forward(formula: Formula, channel_dim: int, *tensors: Tensor) -> Tensor:
    x = tensors[0]
    y = formula.forward(*_widen(tensors, x.dtype), **_dimensions(x, channel_dim))
    return (y if y.shape == x.shape else y.expand(x.shape)).to(x.dtype)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    x = tensors[0]
    dy, *wide = _widen((dy, *tensors), x.dtype)
    gradients = ctx.formula.backward(dy, *wide, **_dimensions(x, ctx.channel_dim))
    reduced = (
        (g if g.shape == t.shape else _fit(g, t)).to(t.dtype) if needed else None
        for g, t, needed in zip(gradients, tensors, ctx.needs_input_grad[2:], strict=True)
    )
    return (None, None, *reduced)


class _Eager(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, formula: Formula, channel_dim: int, *tensors: Tensor) -> Tensor:
        ctx.formula, ctx.channel_dim = formula, channel_dim
        ctx.save_for_backward(*tensors)
        return _forward(formula, channel_dim, *tensors)

    backward = staticmethod(_backward)


class _Transformed(torch.autograd.Function):
    generate_vmap_rule = True
    forward = staticmethod(_forward)
    backward = staticmethod(_backward)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.formula, ctx.channel_dim = inputs[:2]
        ctx.save_for_backward(*inputs[2:])


def _fit(gradient: Tensor, like: Tensor) -> Tensor:
    """Summed over the elements that share a parameter, or spread over those that share a value."""
    if gradient.numel() < like.numel():
        return gradient.expand(like.shape)
    return gradient.sum_to_size(like.shape)
