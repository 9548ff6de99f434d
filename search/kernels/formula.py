"""The programs of an expression, loaded for the device and dtype that ask."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from search.errors import KernelError, near_miss
from search.kernels import KERNELS
from search.kernels.c_build import find_compiler
from search.kernels.c_rendering import CRendering, build_renderings, load_c, serves_dtype
from search.kernels.program import penalty_expression
from search.kernels.torch_rendering import load_torch
from search.language.expression import Expression

_LOG = logging.getLogger("search.kernels")


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

    expression: Expression
    kernel: str
    """One of KERNELS."""
    text: str
    """The expression's, for graphs: a compiler need not trace how it is written."""
    reference: Rendering
    """The torch rendering: any dtype, any device, differentiable again."""
    _chosen: dict[tuple[str, torch.dtype], Rendering] = field(default_factory=dict, repr=False)

    @property
    def inputs(self) -> int:
        """1 (x) or 2 (x and u)."""
        return len(self.expression.inputs)

    def rendering(self, x: Tensor) -> Rendering:
        """The rendering that serves the device and dtype of `x`, loaded when first asked for.

        Whatever is not memory (fake tensors, functorch's, a compiler's) sees torch's operations.
        """
        if self.kernel == "torch" or torch.compiler.is_compiling() or type(x) not in _PLAIN:
            return self.reference
        key = x.device.type, x.dtype
        found = self._chosen.get(key)
        if found is None:
            found = self._chosen[key] = self._choose(*key)
        return found

    def _choose(self, device: str, dtype: torch.dtype) -> Rendering:
        if device == "cpu" and self.kernel in ("auto", "c"):
            return _load_c(self.expression, self.kernel, dtype) or self.reference
        if device == "cuda" and self.kernel in ("auto", "triton"):  # ROCm calls itself cuda
            return _load_triton(self.expression, self.kernel, dtype) or self.reference
        if self.kernel in ("c", "triton"):
            told = self.expression, device, self.kernel
            _LOG.warning("%s: runs as torch operations on %s: kernel '%s' serves another", *told)
        return self.reference


_PLAIN = (Tensor, torch.nn.Parameter)


@lru_cache(maxsize=1024)
def load_formula(expression: Expression, kernel: str = "torch") -> Formula:
    """Lower an expression and load its torch rendering, the others when a tensor asks for them.

    Raises KernelError for an unknown kernel, and for "c" without a compiler.
    """
    if kernel not in KERNELS:
        raise KernelError(f"kernel: unknown '{kernel}'{near_miss(kernel, KERNELS)}")
    if kernel == "c" and find_compiler() is None:
        raise KernelError("kernel 'c': expected gcc or clang, found neither; 'auto' needs none")
    return Formula(expression, kernel, str(expression), load_torch(expression))


def compile_batch(expressions: Iterable[Expression], dtype: torch.dtype = torch.float32) -> int:
    """Build the C kernels of many expressions, and of their penalties, at once; their number.

    Where a compiler is at hand. One compilation takes 25 ms or less a candidate instead of 150;
    what the cache has is kept.
    """
    compiler = find_compiler()
    if compiler is None or not serves_dtype(compiler, dtype):
        return 0
    expressions = list(expressions)
    penalties = [penalty for e in expressions if (penalty := penalty_expression(e))]
    try:
        return build_renderings(compiler, [*expressions, *penalties], dtype)
    except KernelError as error:
        _LOG.warning("%s; activations run as torch operations on CPU", error)
        return 0


def _load_c(expression: Expression, kernel: str, dtype: torch.dtype) -> CRendering | None:
    """The C rendering, or None (said in one line) when it cannot be built or serve the dtype."""
    compiler = find_compiler()
    try:
        if compiler is None or not serves_dtype(compiler, dtype):
            return None
        rendering = load_c(compiler, expression, load_torch(expression))
        if rendering is not None:
            rendering.prepare(dtype)
        return rendering
    except KernelError as error:
        _LOG.warning("%s: runs as torch operations: %s", expression, error)
        return None


def _load_triton(expression: Expression, kernel: str, dtype: torch.dtype) -> Rendering | None:
    """The Triton rendering, proven at its first call; None for float64, which torch serves.

    Raises KernelError for "triton" where it is not installed.
    """
    from search.kernels.triton_proof import load_proven  # 9 ms, of no use without a GPU
    from search.kernels.triton_rendering import DTYPES

    if dtype not in DTYPES:
        return None
    if not _has_triton():
        if kernel == "triton":
            raise KernelError("kernel 'triton': Triton is not installed; 'auto' needs none")
        return None
    return load_proven(expression, kernel == "triton")


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    """Whether Triton can be imported; one line says so where it cannot."""
    found = find_spec("triton") is not None
    if not found:
        _LOG.warning("Triton is not installed: activations run as torch operations on GPUs")
    return found
