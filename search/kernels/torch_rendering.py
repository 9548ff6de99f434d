"""The torch rendering, loaded: the generated module's functions behind the common interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from search.kernels.build import load_source
from search.kernels.limits import hold_limits
from search.kernels.program import Lowered, lower
from search.kernels.torch_code import render
from search.language.expression import Expression


@dataclass(frozen=True, slots=True)
class TorchRendering:
    """Any floating dtype on any device, under torch.compile and torch.func; differentiable."""

    program_forward: Callable[..., Tensor]
    program_backward: Callable[..., tuple[Tensor, ...]]

    def forward(self, tensors: Sequence[Tensor], channel_dim: int) -> Tensor:
        x = tensors[0]
        y = self.program_forward(*_widen(tensors, x.dtype), **_dimensions(x, channel_dim))
        return _in(y if y.shape == x.shape else y.expand(x.shape), x.dtype)

    def backward(
        self, dy: Tensor, tensors: Sequence[Tensor], channel_dim: int, needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        x = tensors[0]
        wide = _widen((dy, *tensors), x.dtype)
        gradients = self.program_backward(*wide, **_dimensions(x, channel_dim))
        return [
            _in(g if g.shape == t.shape else _fit(g, t), t.dtype) if wanted else None
            for g, t, wanted in zip(gradients, tensors, needed, strict=True)
        ]


@lru_cache(maxsize=1024)
def load_torch(expression: Expression) -> TorchRendering:
    """Render and import the programs of an expression."""
    module = load_source(render(lower_torch(expression), str(expression)))
    return TorchRendering(module.forward, module.backward)


def lower_torch(expression: Expression) -> Lowered:
    """The programs of an expression as torch operations run them."""
    return lower(expression, hold_limits)


def _dimensions(x: Tensor, channel_dim: int) -> dict[str, tuple[int, ...]]:
    everything = tuple(range(-x.ndim, 0))
    return {
        "features": (channel_dim,) if x.ndim else (),
        "sample": everything[1:] or everything,
        "tensor": everything,
    }


def _widen(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return [_in(t, wide) for t in tensors]


def _in(t: Tensor, dtype: torch.dtype) -> Tensor:
    """In a dtype. Never `to` the one that it has: traced by torch 2.11 as what an autograd Function
    returns, that cuts the gradient off, which is zero then."""
    return t if t.dtype == dtype else t.to(dtype)


def _fit(gradient: Tensor, like: Tensor) -> Tensor:
    """Summed over the elements that share a parameter, or spread over those that share a value."""
    if 0 < gradient.numel() < like.numel():  # an empty one sums to zeros
        return gradient.expand(like.shape)
    return gradient.sum_to_size(like.shape)
