"""Who is timed: our kernels, torch's own operator, the composed formula, its compilation, a copy.

All get the same tensors: normal numbers, shaped [elements / C, C] with C = 256 channels in the last
dimension (the largest power of two up to it that divides the elements), and a given dy. A forward
runs without autograd; a backward gives the gradients of x, u and every parameter by
`torch.autograd.grad` from a graph of its own; both is a training step: forward, then backward. The
penalty of VeLU is left out (modules are in eval mode).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.activation import Activation
from search.benchmarks.handwritten import HandWritten
from search.benchmarks.timing import Call, Prepare
from search.language.catalog import CATALOG
from search.language.expression import Expression

CHANNELS = 256
_CACHE = 128 * 2**20  # bytes of a device's cache where torch does not know it

NATIVE: dict[str, Callable[..., Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "prelu": F.prelu,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "hard_swish": F.hardswish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hard_tanh": F.hardtanh,
    "softsign": F.softsign,
    "softplus": F.softplus,
    "bilinear": torch.mul,
}
"""torch's own operator of a catalogue row: of x, u for a gated pair, then the parameters."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """What one pass reads, and what the copy writes."""

    inputs: tuple[Tensor, ...]
    """x, and u for a gated pair."""
    dy: Tensor
    y: Tensor
    gradients: tuple[Tensor, ...]
    """Of the inputs; written by the copy alone."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A function of the inputs, and its parameters, whose gradients a backward gives too."""

    function: Callable[..., Tensor]
    parameters: tuple[Tensor, ...] = ()


def native(expression: Expression) -> Callable[..., Tensor] | None:
    """torch's own operator of this very formula, if there is one."""
    rows = (name for name in NATIVE if CATALOG[name].expression == expression)
    name = next(rows, None)
    return None if name is None else NATIVE[name]


def make_tensors(
    expression: Expression, elements: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensors, ...]:
    """One set on a CPU; on a GPU so many that their x alone exceed its cache twice."""
    channels = channels_of(elements)
    shape = (elements // channels, channels)
    generator = torch.Generator(device).manual_seed(0)

    def draw() -> Tensor:
        return torch.randn(shape, dtype=dtype, device=device, generator=generator)

    def one_set() -> Tensors:
        inputs = tuple(draw().requires_grad_() for _ in expression.inputs)
        gradients = tuple(torch.empty_like(x) for x in inputs)
        return Tensors(inputs, draw(), torch.empty_like(inputs[0]), gradients)

    return tuple(one_set() for _ in range(_sets(elements * dtype.itemsize, device)))


def channels_of(elements: int) -> int:
    """The largest power of two up to 256 that divides the number of elements."""
    return math.gcd(elements, CHANNELS)


def _sets(size: int, device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or _CACHE
    return min(64, 1 + math.ceil(2 * cache / size))


def make_ours(expression: Expression, tensors: Tensors, kernel: str) -> tuple[Contestant, str]:
    """Our module with the asked kernel, and the rendering that serves it: c, triton or torch."""
    x = tensors.inputs[0]
    module = Activation(expression, channels=x.shape[-1], kernel=kernel)
    module = module.to(x.device, x.dtype).eval()
    rendering = module._formula.rendering(x.detach())
    return _of_module(module), type(rendering).__name__.removesuffix("Rendering").lower()


def make_native(expression: Expression, tensors: Tensors) -> Contestant | None:
    """None where torch has no operator of this formula."""
    function = native(expression)
    if function is None:
        return None
    values = tuple(_written(expression, tensors).parameters())
    return Contestant(lambda *inputs: function(*inputs, *values), values)


def make_eager(expression: Expression, tensors: Tensors) -> Contestant:
    """The formula composed of torch operations."""
    return _of_module(_written(expression, tensors))


def make_compiled(expression: Expression, tensors: Tensors) -> Contestant:
    """The same through `torch.compile`, for the shape at hand."""
    module = _written(expression, tensors)
    function = torch.compile(module, fullgraph=True, dynamic=False)
    return Contestant(function, tuple(module.parameters()))


def _written(expression: Expression, tensors: Tensors) -> HandWritten:
    x = tensors.inputs[0]
    return HandWritten(expression, x.shape[-1]).to(x.device, x.dtype).eval()


def _of_module(module: nn.Module) -> Contestant:
    return Contestant(module, tuple(module.parameters()))


# --- passes ------------------------------------------------------------------------------------


def passes(contestant: Contestant, direction: str, sets: Sequence[Tensors]) -> Prepare:
    """How to make passes of a contestant in one direction."""
    make = {"forward": _forward, "backward": _backward, "both": _both}[direction]
    return lambda count: [make(contestant, sets[k % len(sets)]) for k in range(count)]


def _forward(contestant: Contestant, tensors: Tensors) -> Call:
    return partial(contestant.function, *tensors.inputs)


def _backward(contestant: Contestant, tensors: Tensors) -> Call:
    """The graph is made here, outside the clock; it is run once."""
    leaves = (*tensors.inputs, *contestant.parameters)
    y = contestant.function(*tensors.inputs)
    return partial(torch.autograd.grad, y, leaves, tensors.dy, allow_unused=True)


def _both(contestant: Contestant, tensors: Tensors) -> Call:
    leaves = (*tensors.inputs, *contestant.parameters)

    def step() -> object:
        y = contestant.function(*tensors.inputs)
        return torch.autograd.grad(y, leaves, tensors.dy, allow_unused=True)

    return step


def copies(direction: str, sets: Sequence[Tensors]) -> Prepare:
    """The floor: as many bytes moved by torch's `copy_` and `add`, into tensors that are there.

    forward reads x (and u) and writes y; backward reads x, (u,) dy and writes dx (and du).
    """
    moves = {"forward": (_copy_forward,), "backward": (_copy_backward,)}
    chosen = moves.get(direction, (_copy_forward, _copy_backward))

    def move(tensors: Tensors) -> None:
        for part in chosen:
            part(tensors)

    return lambda count: [partial(move, sets[k % len(sets)]) for k in range(count)]


def _copy_forward(tensors: Tensors) -> None:
    with torch.no_grad():
        if len(tensors.inputs) == 1:
            tensors.y.copy_(tensors.inputs[0])
        else:
            torch.add(*tensors.inputs, out=tensors.y)


def _copy_backward(tensors: Tensors) -> None:
    with torch.no_grad():
        torch.add(tensors.inputs[0], tensors.dy, out=tensors.gradients[0])
        if len(tensors.inputs) == 2:
            tensors.gradients[1].copy_(tensors.inputs[1])


def bytes_moved(expression: Expression, direction: str, elements: int, itemsize: int) -> int:
    """Of a pass that reads and writes every tensor once; parameters are not counted."""
    inputs = len(expression.inputs)
    forward, backward = inputs + 1, 2 * inputs + 1
    tensors = {"forward": forward, "backward": backward, "both": forward + backward}[direction]
    return tensors * elements * itemsize
