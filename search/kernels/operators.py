"""A formula as a differentiable torch function, in eager mode, under torch.func and in graphs.

Forward and backward are the generated programs: gradients come from the table's rules, not from
torch's own, so that a choice's untaken branch cannot make a NaN and only x, u and the parameters
are kept in memory. 16-bit tensors are computed in float32 and rounded once at the end.

    eager                 autograd Functions that call a rendering
    torch.func            the same as Functions with a vmap rule (`members.py`)
    compiled, exported    kernel "auto" and "torch": torch's operations, which a compiler fuses with
                          their neighbours; "c" and "triton": the operators `search::activation` and
                          `search::activation_backward`, which carry the formula as text
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from search.kernels.formula import Formula, load_formula
from search.kernels.members import stack_members
from search.language.parser import parse

_OPAQUE = ("c", "triton")
"""Kernels that stay one call in a compiled graph, because they were asked for by name."""


def apply_formula(
    formula: Formula, inputs: Sequence[Tensor], parameters: Sequence[Tensor], channel_dim: int
) -> Tensor:
    """f(x[, u]; parameters) with the shape and dtype of x (see `Rendering`)."""
    if formula.kernel in _OPAQUE and torch.compiler.is_compiling():
        tensors = [*inputs, *parameters]
        return activation(tensors, formula.text, formula.kernel, channel_dim)
    if formula.kernel == "composed":
        return formula.reference.forward((*inputs, *parameters), channel_dim)
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


# --- torch.func --------------------------------------------------------------------------------


class _Transformed(torch.autograd.Function):
    """The forward under torch.func."""

    @staticmethod
    def forward(formula: Formula, channel_dim: int, *tensors: Tensor) -> Tensor:
        return formula.rendering(tensors[0]).forward(tensors, channel_dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.formula, ctx.channel_dim = inputs[:2]
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        call = ctx.formula, ctx.channel_dim
        return None, None, *_TransformedBackward.apply(*call, *grad_outputs, *ctx.saved_tensors)

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[int | None], formula: Formula, channel_dim: int, *tensors: Any
    ) -> tuple[Tensor, int]:
        inputs = formula.inputs
        stacked = _members_first(tensors, in_dims[2:], info.batch_size, always=range(inputs))
        own = any(dim is not None for dim in in_dims[2 + inputs :])
        if own:
            stacked = _members_first(tensors, in_dims[2:], info.batch_size)
        together = _together(formula, stacked[0], own)
        if together is None:
            return _apart(formula, stacked, own, channel_dim), 0
        dim = -stacked[0].ndim if own else channel_dim
        stacked = _aligned(stacked, inputs) if own else stacked
        return _Transformed.apply(together, dim, *stacked), 0


class _TransformedBackward(torch.autograd.Function):
    """Every gradient under torch.func, as a function of dy and the forward's tensors."""

    @staticmethod
    def forward(formula: Formula, channel_dim: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        dy, *saved = tensors
        needed = [True] * len(saved)
        made = formula.rendering(saved[0]).backward(dy, saved, channel_dim, needed)
        return tuple(g for g in made if g is not None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.formula, ctx.channel_dim = inputs[:2]
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        gradients = _differentiable_backward(ctx.formula, ctx.channel_dim)
        return None, None, *torch.func.vjp(gradients, *ctx.saved_tensors)[1](grad_outputs)

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[int | None], formula: Formula, channel_dim: int, *tensors: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        inputs = formula.inputs
        # A gradient is a member's own even where the value is everybody's.
        dy, *saved = _members_first(tensors, in_dims[2:], info.batch_size)
        own = len(saved) > inputs
        together = _together(formula, saved[0], own)
        if together is None:
            turns = [
                _TransformedBackward.apply(formula, channel_dim, *t) for t in _turns([dy, *saved])
            ]
            made = tuple(torch.stack(turn) for turn in zip(*turns, strict=True))
        else:
            dim = -saved[0].ndim if own else channel_dim
            aligned = _aligned(saved, inputs) if own else saved
            made = _TransformedBackward.apply(together, dim, dy, *aligned)
            made = tuple(g.view(t.shape) for g, t in zip(made, saved, strict=True))
        return made, (0,) * len(made)


def _apart(
    formula: Formula, stacked: Sequence[Tensor], own_parameters: bool, channel_dim: int
) -> Tensor:
    """f of members that no formula takes at once: beside each other as channels, or in turn.

    As channels: a step of ten digits CNNs with a parameter per channel takes a third of the time.
    """
    from search.kernels.abreast import apply_abreast  # it is made of this file's apply_formula

    x, *parameters = stacked
    if not own_parameters or formula.inputs > 1 or x.ndim < 3:
        turns = [_Transformed.apply(formula, channel_dim, *t) for t in _turns(stacked)]
        return torch.stack(turns)
    scopes = (p.scope for p in formula.expression.trainable)
    own = [
        p.reshape(len(x), -1) if scope == "channel" else p.reshape(len(x))
        for p, scope in zip(parameters, scopes, strict=True)
    ]
    return apply_abreast(formula, x, own, channel_dim)


def _differentiable_backward(
    formula: Formula, channel_dim: int
) -> Callable[..., tuple[Tensor | None, ...]]:
    """The gradients in torch's own operations, from dy and the forward's tensors."""

    def gradients(dy: Tensor, *tensors: Tensor) -> tuple[Tensor | None, ...]:
        needed = [True] * len(tensors)
        return tuple(formula.reference.backward(dy, tensors, channel_dim, needed))

    return gradients


def _members_first(
    tensors: Sequence[Tensor],
    dims: Sequence[int | None],
    members: int,
    always: Sequence[int] | None = None,
) -> list[Tensor]:
    """Every tensor with its members in dimension 0; one value for all is repeated, not copied.

    always: repeat only these; the others stay as they are.
    """
    found = []
    for k, (tensor, dim) in enumerate(zip(tensors, dims, strict=True)):
        if dim is not None:
            found.append(tensor.movedim(dim, 0))
        elif always is None or k in always:
            found.append(tensor.expand(members, *tensor.shape))
        else:
            found.append(tensor)
    return found


def _together(formula: Formula, x: Tensor, own_parameters: bool) -> Formula | None:
    """The formula for all members in one call; None where they must take turns."""
    if x.ndim < 2:  # members that are single numbers have no samples
        return None
    stacked = _stacked(formula.expression, own_parameters)
    return None if stacked is None else load_formula(stacked, formula.kernel)


_stacked = lru_cache(maxsize=1024)(
    lambda expression, own: stack_members(expression, own_parameters=own)
)


def _aligned(stacked: Sequence[Tensor], inputs: int) -> list[Tensor]:
    """Parameters (K,) as (K, 1, …), to be read along the members' dimension of x."""
    ones = (1,) * (stacked[0].ndim - 1)
    return [*stacked[:inputs], *(p.reshape(-1, *ones) for p in stacked[inputs:])]


def _turns(stacked: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    return list(zip(*(t.unbind(0) for t in stacked), strict=True))


# --- graphs ------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _formula_of(text: str, kernel: str) -> Formula:
    return load_formula(parse(text), kernel)


@torch.library.custom_op("search::activation", mutates_args=())
def activation(tensors: list[Tensor], formula: str, kernel: str, channel_dim: int) -> Tensor:
    """f(x[, u]; parameters); `tensors` and `channel_dim` as in `Rendering`."""
    loaded, x = _formula_of(formula, kernel), tensors[0]
    return _like(loaded.rendering(x).forward(tensors, channel_dim), x)


@torch.library.custom_op("search::activation_backward", mutates_args=())
def activation_backward(
    dy: Tensor, tensors: list[Tensor], formula: str, kernel: str, channel_dim: int
) -> list[Tensor]:
    """The gradient of every tensor."""
    loaded, needed = _formula_of(formula, kernel), [True] * len(tensors)
    made = loaded.rendering(tensors[0]).backward(dy, tensors, channel_dim, needed)
    return [_like(g, t) for g, t in zip(made, tensors, strict=True) if g is not None]


def _like(result: Tensor, like: Tensor) -> Tensor:
    """In the memory format that a graph was promised."""
    promised = torch.empty_like(like)
    return result if result.stride() == promised.stride() else promised.copy_(result)


@activation.register_fake
def _(tensors: list[Tensor], formula: str, kernel: str, channel_dim: int) -> Tensor:
    return torch.empty_like(tensors[0])


@activation_backward.register_fake
def _(
    dy: Tensor, tensors: list[Tensor], formula: str, kernel: str, channel_dim: int
) -> list[Tensor]:
    return [torch.empty_like(t) for t in tensors]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, kept, formula, kernel, channel_dim = inputs
    ctx.call = formula, kernel, channel_dim
    ctx.save_for_backward(*tensors, *kept)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    return activation_backward(dy, list(ctx.saved_tensors), *ctx.call), None, None, None


def _second_gradients(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    text, kernel, channel_dim = ctx.call
    gradients = _differentiable_backward(_formula_of(text, kernel), channel_dim)
    dy, *rest = torch.func.vjp(gradients, *ctx.saved_tensors)[1](tuple(grads))
    return dy, rest, None, None, None


activation.register_autograd(_gradients, setup_context=_keep)
activation_backward.register_autograd(_second_gradients, setup_context=_keep)
