"""A formula as one writes it without this package: torch operations and torch's own autograd."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search.kernels.formula import load_formula
from search.kernels.torch_rendering import TorchRendering
from search.language.expression import Expression


class Composed(nn.Module):
    """`f(x[, u])` composed of torch operations, differentiated by torch's autograd.

    What eager mode keeps and launches is what a hand-written module would: one kernel and one
    saved tensor an operation; `torch.compile` fuses it. Values per channel lie along the last
    dimension, `channels` of them. Statistics over features reduce the last dimension.
    """

    def __init__(self, expression: Expression, channels: int = 1):
        super().__init__()
        reference = load_formula(expression).reference
        assert isinstance(reference, TorchRendering)
        self.program = reference.program_forward
        self.values = nn.ParameterList(
            nn.Parameter(torch.full(() if p.scope == "layer" else (channels,), p.initial))
            for p in expression.trainable
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        dimensions = inputs[0].ndim
        rest = tuple(range(1 - dimensions, 0))
        dims = {"features": (-1,), "sample": rest, "tensor": (-dimensions, *rest)}
        return self.program(*inputs, *self.values, **dims)
