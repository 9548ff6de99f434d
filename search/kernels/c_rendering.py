"""The C rendering, loaded: kernels behind the common interface, for dense tensors on the CPU.

What it does not serve (tensors of unlike shapes, parameters that broadcast in an unusual way) goes
to the torch rendering.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from search.kernels.c_build import Compiler, build_batch, load_blocks
from search.kernels.c_code import render, split_stages
from search.kernels.c_fusion import fuse
from search.kernels.c_passes import IO, WIDE, Passes, dense, load_passes, run_flat, run_passes
from search.kernels.program import Lowered, lower
from search.kernels.torch_rendering import TorchRendering
from search.language.expression import Expression

_MOST = 64  # of c_blocks.c: values a stage may read, and write


@dataclass(frozen=True, slots=True)
class CRendering:
    """float32, bfloat16, float16 (where the processor converts it) and float64 on the CPU."""

    compiler: Compiler
    lowered: Lowered
    per_channel: frozenset[str]
    reference: TorchRendering
    _forwards: dict[torch.dtype, Passes] = field(default_factory=dict)
    _backwards: dict[torch.dtype, Passes] = field(default_factory=dict)

    def prepare(self, dtype: torch.dtype) -> None:
        """Build and load what a dtype needs. Raises KernelError."""
        for backward, loaded in enumerate((self._forwards, self._backwards)):
            loaded[dtype] = load_passes(
                self.compiler,
                self.lowered,
                self.per_channel,
                _precision(dtype),
                backward=bool(backward),
            )

    def forward(self, tensors: Sequence[Tensor], channel_dim: int) -> Tensor:
        x = tensors[0]
        program = self._forwards[x.dtype]
        inputs = len(program.inputs)
        # The short way: no layout to work out. What Python adds to a kernel is then 13 µs a call.
        if program.reads is not None and _is_plain(tensors[:inputs], tensors[inputs:]):
            y = torch.empty_like(x)
            addresses = [tensors[k].data_ptr() for k in program.reads]
            run_flat(program, [*addresses, y.data_ptr()], x.numel(), x.dtype)
            return y
        streams = dict(zip(program.inputs, tensors, strict=False))
        parameters = tensors[inputs:]
        if not self._serves(x, streams.values(), parameters, channel_dim):
            return self.reference.forward(tensors, channel_dim)
        x, streams = dense(x, streams, by_sample=program.by_sample)
        y = torch.empty_like(x)
        run_passes(program, x, streams, parameters, channel_dim, [y], ())
        return y

    def backward(
        self, dy: Tensor, tensors: Sequence[Tensor], channel_dim: int, needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        x, everything = tensors[0], (dy, *tensors)
        program = self._backwards[x.dtype]
        inputs = len(program.inputs)
        if program.reads is not None and _is_plain(everything[:inputs], everything[inputs:]):
            made = _gradients(tensors, needed, inputs - 1)
            addresses = [everything[k].data_ptr() for k in program.reads]
            addresses += [t.data_ptr() if t is not None else None for t in made]
            run_flat(program, addresses, x.numel(), x.dtype)
            return made
        streams = dict(zip(program.inputs, everything, strict=False))
        parameters = everything[inputs:]
        if not self._serves(x, streams.values(), parameters, channel_dim):
            return self.reference.backward(dy, tensors, channel_dim, needed)
        x, streams = dense(x, streams, by_sample=program.by_sample)
        written = [torch.empty_like(x) if wanted else None for wanted in needed[: inputs - 1]]
        sums = [torch.empty(p.shape, dtype=WIDE[x.dtype]) for p in parameters]
        run_passes(program, x, streams, parameters, channel_dim, written, sums)
        return [*written, *(s.to(p.dtype) for s, p in zip(sums, parameters, strict=True))]

    def _serves(
        self, x: Tensor, streams: Iterable[Tensor], parameters: Sequence[Tensor], channel_dim: int
    ) -> bool:
        """Whether the streams are alike and every parameter is of the shape its scope says."""
        if any(s.shape != x.shape or s.dtype != x.dtype or s.device != x.device for s in streams):
            return False
        names = self.lowered.forward.parameters
        return all(
            p.device == x.device and self._fits(name, p, x, channel_dim)
            for name, p in zip(names, parameters, strict=True)
        )

    def _fits(self, name: str, p: Tensor, x: Tensor, channel_dim: int) -> bool:
        if name not in self.per_channel:
            return p.numel() == 1
        if not -channel_dim <= p.ndim <= x.ndim:
            return False
        return p.numel() == p.shape[channel_dim] == x.shape[channel_dim]


def _is_plain(streams: Sequence[Tensor], parameters: Sequence[Tensor]) -> bool:
    """Contiguous streams of one shape and dtype, not empty, and scalars of the wide dtype."""
    x = streams[-1]
    dtype, shape = x.dtype, x.shape
    for stream in streams:
        if stream.dtype != dtype or stream.shape != shape or not stream.is_contiguous():
            return False
    if parameters:
        wide = WIDE[dtype]
        for p in parameters:
            if p.dtype != wide or p.numel() != 1 or not p.is_cpu:
                return False
    return x.numel() > 0 and all(stream.is_cpu for stream in streams)


def _gradients(
    tensors: Sequence[Tensor], needed: Sequence[bool], inputs: int
) -> list[Tensor | None]:
    """Room for what a backward makes; a parameter's sum is made whether it is needed or not."""
    return [
        torch.empty_like(t) if wanted or k >= inputs else None
        for k, (t, wanted) in enumerate(zip(tensors, needed, strict=True))
    ]


# --- loading -----------------------------------------------------------------------------------


def load_c(
    compiler: Compiler, expression: Expression, reference: TorchRendering
) -> CRendering | None:
    """The C rendering of an expression; None when it has more values than c_blocks.c holds."""
    lowered = lower(expression, fuse)
    per_channel = _per_channel(expression)
    for backward, program in enumerate((lowered.forward, lowered.backward)):
        for stage in split_stages(program, per_channel, backward=bool(backward)):
            read = len(stage.streams) + len(stage.vectors)
            if max(read, len(stage.scalars), len(stage.written) + len(stage.sums)) > _MOST:
                return None
    return CRendering(compiler, lowered, per_channel, reference)


def build_renderings(
    compiler: Compiler, expressions: Iterable[Expression], dtype: torch.dtype
) -> int:
    """Build the kernels of many expressions in one library; the number that the cache lacked."""
    texts = [render(lower(e, fuse), _per_channel(e)) for e in expressions]
    return build_batch(compiler, texts, _precision(dtype))


def _per_channel(expression: Expression) -> frozenset[str]:
    return frozenset(p.name for p in expression.trainable if p.scope == "channel")


def _precision(dtype: torch.dtype) -> str:
    return "float64" if dtype == torch.float64 else "float32"


def serves_dtype(compiler: Compiler, dtype: torch.dtype) -> bool:
    """Whether kernels read and write a dtype; float16 needs a processor that converts it."""
    if dtype != torch.float16:
        return dtype in IO
    return bool(load_blocks(compiler, "float32")["has_float16"]())
