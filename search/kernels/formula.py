"""A formula as a differentiable torch function.

Forward and backward are the generated programs: gradients come from the table's rules, not from
torch's own, so that a choice's untaken branch cannot make a NaN and only x, u and the parameters
are kept in memory. 16-bit tensors are computed in float32 and rounded once at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from search.kernels.program import lower
from search.kernels.torch_rendering import load_torch
from search.language.expression import Expression


class Rendering(Protocol):
    """The programs of one expression, loaded and ready to run.

    `tensors` are x, u for a gated pair, then the trainable parameters in order of declaration,
    shaped to broadcast against x. `channel_dim` is negative: the dimension of the parameters per
    channel, and the one that a statistic over features reduces.
    """

    def forward(self, tensors: Sequence[Tensor], channel_dim: int) -> Tensor:
        """f(x[, u]), of the shape and dtype of x."""
        ...

    def backward(
        self, dy: Tensor, tensors: Sequence[Tensor], channel_dim: int, needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        """The gradient of every needed tensor, of its shape and dtype; None for the others."""
        ...


@dataclass(frozen=True, slots=True)
class Formula:
    """The renderings of one expression."""

    inputs: int
    """1 (x) or 2 (x and u)."""
    reference: Rendering
    """The torch rendering: any dtype, any device, differentiable again."""

    def rendering(self, x: Tensor) -> Rendering:
        """The rendering that serves the device and dtype of `x`."""
        return self.reference


@lru_cache(maxsize=1024)
def load_formula(expression: Expression) -> Formula:
    """Lower an expression and load its renderings."""
    return Formula(len(expression.inputs), load_torch(lower(expression), str(expression)))


def apply_formula(
    formula: Formula, inputs: Sequence[Tensor], parameters: Sequence[Tensor], channel_dim: int
) -> Tensor:
    """f(x[, u]; parameters) with the shape and dtype of x (see `Rendering`)."""
    # Under torch.func a Function must keep its forward apart from its context; eager mode pays
    # 40 of 210 µs for that (GoLU, 64 x 128, forward and backward), so it has a Function of its own.
    function = _Transformed if torch._C._are_functorch_transforms_active() else _Eager
    return function.apply(formula, channel_dim, *inputs, *parameters)


class _Eager(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, formula: Formula, channel_dim: int, *tensors: Tensor) -> Tensor:
        ctx.formula, ctx.channel_dim = formula, channel_dim
        ctx.save_for_backward(*tensors)
        return formula.rendering(tensors[0]).forward(tensors, channel_dim)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors
        # A gradient that will be differentiated again must be made of torch's own operations.
        again = torch.is_grad_enabled()
        rendering = ctx.formula.reference if again else ctx.formula.rendering(tensors[0])
        needed = ctx.needs_input_grad[2:]
        return None, None, *rendering.backward(*grad_outputs, tensors, ctx.channel_dim, needed)


class _Transformed(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(formula: Formula, channel_dim: int, *tensors: Tensor) -> Tensor:
        return formula.reference.forward(tensors, channel_dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.formula, ctx.channel_dim = inputs[:2]
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        needed = ctx.needs_input_grad[2:]
        tensors = ctx.saved_tensors
        reference = ctx.formula.reference
        return None, None, *reference.backward(*grad_outputs, tensors, ctx.channel_dim, needed)
