"""A formula as one writes it without this package: torch operations and torch's own autograd."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from search.kernels.formula import load_formula
from search.kernels.torch_rendering import TorchRendering
from search.language.expression import Call, Expression, Node, Parameter, map_nodes, substitute
from search.language.parser import parse_node

TEXTBOOK = {
    "gompertz": "exp(-exp(-a))",
    "normal_cdf": "(1 + erf(a / sqrt(2))) / 2",
    "arctan_gate": "1/2 + arctan(a) / pi",
}
"""Gates as papers print them. The language's own rows keep the digits of the tails by operations
that Inductor does not turn into vector code (erfc: 32 instead of 4 ms for GELU, 2^22 numbers) and
that nobody writes."""


class HandWritten(nn.Module):
    """`f(x[, u])` composed of torch operations, differentiated by torch's autograd.

    What eager mode keeps and launches is what a hand-written module would: one kernel and one
    saved tensor an operation, in the input's own dtype; `torch.compile` fuses it. (The kernel
    "composed" of an Activation is another thing: the language's own forms of the gates, and 16-bit
    inputs computed in float32, as its other kernels do.)
    Values per channel lie along the last dimension, `channels` of them. Statistics over features
    reduce the last dimension.
    """

    def __init__(self, expression: Expression, channels: int = 1):
        super().__init__()
        reference = load_formula(textbook(expression)).reference
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


def textbook(expression: Expression) -> Expression:
    """The formula with every gate written out as TEXTBOOK has it, and without its penalty."""
    return replace(expression, body=map_nodes(expression.body, _written_out), penalty=None)


def _written_out(node: Node) -> Node:
    match node:
        case Call(function, (argument,)) if function in TEXTBOOK:
            return substitute(parse_node(TEXTBOOK[function], ("a",)), {Parameter("a"): argument})
        case _:
            return node
