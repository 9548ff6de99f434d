"""Attention of members under vmap: folded into the batch, as torch has no rule for its kernels.

Without one vmap calls the kernel member by member, and warns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class FoldedAttention(TorchFunctionMode):
    """Within it `F.scaled_dot_product_attention` takes all members in one call."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and len(args) == 3 and _simple(kwargs):
            causal, scale = kwargs.get("is_causal", False), kwargs.get("scale")
            return _Attention.apply(*args, causal, scale)
        return func(*args, **kwargs)


def _simple(options: Mapping[str, Any]) -> bool:
    """Neither a mask nor dropout, which draws from nobody's stream."""
    return {name for name, value in options.items() if value} <= {"is_causal", "scale"}


class _Attention(torch.autograd.Function):
    """Only ever called under vmap, which hands over all members at once."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: Any) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[Any], *inputs: Any) -> tuple[Tensor, int]:
        *tensors, causal, scale = inputs
        members = [
            t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip(tensors, in_dims[:3], strict=True)
        ]
        folded = [t.flatten(0, 1) for t in members]
        y = F.scaled_dot_product_attention(*folded, is_causal=causal, scale=scale)
        return y.unflatten(0, members[0].shape[:2]), 0
