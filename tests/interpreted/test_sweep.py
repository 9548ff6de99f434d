"""All 65,536 inputs of bfloat16 and float16: values and slopes of the kernels against float64.

Outputs are float32, because the interpreter cuts where hardware rounds. They are held to half a
spacing of the 16-bit format, which leaves the other half to the rounding at the store, or to 2e-7
max(1, |x|) in tails that cancel, or where float32 overflows inside a formula to what the torch
rendering makes of it.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from search.benchmarks.goals import TYPES
from search.kernels.triton_rendering import load_triton
from search.language.catalog import CATALOG, read_activation
from tests.cases import has_statistics

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
FEW = ("relu", "gelu", "silu", "mish", "golu", "dyn_mish", "xatlu", "sin", *TYPES)
ROWS = [name for name, row in CATALOG.items() if not has_statistics(row.expression)] + [*TYPES]
CASES = [pytest.param(n, marks=() if n in FEW else pytest.mark.slow) for n in ROWS]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CASES)
def test_every_16_bit_input(name: str, dtype: torch.dtype):
    expression = read_activation(TYPES.get(name, name))
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    x = bits.view(dtype).float()
    inputs = [x, torch.full_like(x, 0.75)][: len(expression.inputs)]
    parameters = [
        torch.full((1,) if p.scope == "channel" else (), p.initial) for p in expression.trainable
    ]
    rendering = load_triton(expression)
    # Parameters per channel want a dimension of channels: one channel.
    tensors = [*(t[:, None] for t in inputs), *parameters]
    needed = [True] * len(tensors)
    dy = torch.ones_like(tensors[0])
    assert rendering.serves(tensors, -1)
    dx = rendering.backward(dy, tensors, -1, needed)[0]
    assert dx is not None
    reference = rendering.reference
    for given, again in ((rendering.forward(tensors, -1), _forward), (dx, _slope)):
        single, exact = again(reference, tensors), again(reference, [t.double() for t in tensors])
        _agree(given[:, 0], single[:, 0], exact[:, 0], x, dtype)


def _forward(reference, tensors: list[Tensor]) -> Tensor:
    return reference.forward(tensors, -1)


def _slope(reference, tensors: list[Tensor]) -> Tensor:
    dy = torch.ones_like(tensors[0])
    return reference.backward(dy, tensors, -1, [True] * len(tensors))[0]


def _agree(given: Tensor, single: Tensor, exact: Tensor, x: Tensor, dtype: torch.dtype) -> None:
    assert given[exact.isnan() & x.isnan()].isnan().all()
    held = single.isfinite() & exact.float().isfinite() & ~x.isnan()
    half = 0.5 * torch.finfo(dtype).eps * exact.abs()
    tail = 2e-7 * x.double().abs().clamp_min(1.0)
    error = (given.double() - exact).abs()
    overflow = (single.double() - exact).abs()  # inside the formula: x * x of 1e20
    wrong = held & ~(error <= torch.maximum(torch.maximum(half, tail), overflow))
    assert not wrong.any(), (x[wrong][:5], given[wrong][:5], exact[wrong][:5])
