"""The C rendering, loaded: kernels behind the common interface, for dense tensors on the CPU.

What it does not serve (another dtype, tensors of unlike shapes, parameters that broadcast in an
unusual way, a program with more values than c_blocks.c holds) goes to the torch rendering.
"""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from search.errors import KernelError
from search.kernels.c_build import Compiler, build_batch, load_blocks, load_kernels
from search.kernels.c_code import FINISHES, PATTERNS, Stage, kernel_name, render, split_stages
from search.kernels.program import Lowered, lower
from search.kernels.torch_rendering import TorchRendering
from search.language.expression import Expression

_IO = {torch.float32: 0, torch.float64: 0, torch.bfloat16: 1, torch.float16: 2}
_WIDE = {dtype: torch.float32 for dtype in _IO} | {torch.float64: torch.float64}
_MOST = 64  # of c_blocks.c: values a stage may read, and write
_LOG = logging.getLogger("search.kernels")


class _Stage(ctypes.Structure):
    """`Stage` of c_blocks.c."""

    _fields_ = (
        ("kernel", ctypes.c_void_p),
        ("streams", ctypes.c_int),
        ("scalars", ctypes.c_int),
        ("vectors", ctypes.c_int),
        ("written", ctypes.c_int),
        ("summed", ctypes.c_int),
        ("x", ctypes.c_int),
        ("finish", ctypes.POINTER(ctypes.c_int)),
        ("wide", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True)
class _Pass:
    """A stage whose kernel is loaded; in float64 too once an input far from zero asks for it."""

    stage: Stage
    run: ctypes._CFuncPtr  # `run` of c_blocks.c
    native: _Stage
    patterns: ctypes.Array[ctypes.c_int]
    load_wide: Callable[[], int | None]


@dataclass(frozen=True, slots=True)
class _Program:
    """The passes of one program in one precision."""

    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    passes: tuple[_Pass, ...]
    flat: bool
    """One pass and no value that differs along the tensor: its layout does not matter."""
    by_sample: bool
    """Some statistic is one of a sample, whose elements must then be neighbours in memory."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """A dense tensor in memory order as [outer, channels, inner]; `sample` elements a sample."""

    size: int
    channels: int
    inner: int
    sample: int


@dataclass(frozen=True, slots=True)
class CRendering:
    """float32, bfloat16, float16 (where the processor converts it) and float64 on the CPU."""

    compiler: Compiler
    lowered: Lowered
    per_channel: frozenset[str]
    reference: TorchRendering
    _programs: dict[tuple[torch.dtype, bool], _Program] = field(default_factory=dict)

    def forward(self, tensors: Sequence[Tensor], channel_dim: int) -> Tensor:
        x = tensors[0]
        program = self._program(x.dtype, backward=False)
        streams = dict(zip(program.inputs, tensors, strict=False))
        parameters = tensors[len(streams) :]
        if not self._serves(x, streams.values(), parameters, channel_dim):
            return self.reference.forward(tensors, channel_dim)
        x, streams = _dense(x, streams, by_sample=program.by_sample)
        y = torch.empty_like(x)
        _run(program, x, streams, parameters, channel_dim, [y], ())
        return y

    def backward(
        self, dy: Tensor, tensors: Sequence[Tensor], channel_dim: int, needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        x = tensors[0]
        program = self._program(x.dtype, backward=True)
        streams = dict(zip(program.inputs, (dy, *tensors), strict=False))
        inputs = len(streams) - 1
        parameters = tensors[inputs:]
        if not self._serves(x, streams.values(), parameters, channel_dim):
            return self.reference.backward(dy, tensors, channel_dim, needed)
        x, streams = _dense(x, streams, by_sample=program.by_sample)
        written = [torch.empty_like(x) if wanted else None for wanted in needed[:inputs]]
        wide = _WIDE[x.dtype]
        sums = [torch.empty(p.shape, dtype=wide) for p in parameters]
        _run(program, x, streams, parameters, channel_dim, written, sums)
        if not parameters:
            return written
        fitted = [
            s if s.dtype == p.dtype else s.to(p.dtype)
            for s, p in zip(sums, parameters, strict=True)
        ]
        return [*written, *fitted]

    def prepare(self, dtype: torch.dtype) -> None:
        """Build and load what a dtype needs. Raises KernelError."""
        for backward in (False, True):
            self._program(dtype, backward=backward)

    def _program(self, dtype: torch.dtype, *, backward: bool) -> _Program:
        found = self._programs.get((dtype, backward))
        if found is None:
            found = self._load(dtype, backward)
            self._programs[dtype, backward] = found
        return found

    def _load(self, dtype: torch.dtype, backward: bool) -> _Program:
        precision, text = _precision(dtype), render(self.lowered, self.per_channel)
        library = load_kernels(self.compiler, text, precision)
        blocks = load_blocks(self.compiler, precision)
        program = self.lowered.backward if backward else self.lowered.forward
        stages = split_stages(program, self.per_channel, backward=backward)
        passes = []
        for k, stage in enumerate(stages):
            name = kernel_name(self.lowered.key, backward, k)
            wide = partial(_load_wide, self.compiler, text, name)
            passes.append(_pass(stage, library[name], blocks["run"], wide))
        flat = len(passes) == 1 and not stages[0].vectors
        flat = flat and all(s.pattern == "one" for s in stages[0].sums)
        by_sample = any(s.pattern == "sample" for stage in stages for s in stage.sums)
        return _Program(program.inputs, program.parameters, tuple(passes), flat, by_sample)

    def _serves(
        self,
        x: Tensor,
        streams: Sequence[Tensor],
        parameters: Sequence[Tensor],
        channel_dim: int,
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


def load_c(
    compiler: Compiler, expression: Expression, lowered: Lowered, reference: TorchRendering
) -> CRendering | None:
    """The C rendering of an expression; None when it has more values than c_blocks.c holds."""
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
    texts = [render(lower(e), _per_channel(e)) for e in expressions]
    return build_batch(compiler, texts, _precision(dtype))


def _per_channel(expression: Expression) -> frozenset[str]:
    return frozenset(p.name for p in expression.trainable if p.scope == "channel")


def _precision(dtype: torch.dtype) -> str:
    return "float64" if dtype == torch.float64 else "float32"


def serves_dtype(compiler: Compiler, dtype: torch.dtype) -> bool:
    """float16 needs a processor that converts it."""
    if dtype != torch.float16:
        return dtype in _IO
    return bool(load_blocks(compiler, "float32").has_float16())


def _load_wide(compiler: Compiler, text: str, name: str) -> int | None:
    """The address of a kernel in float64; None, said in one line, when it cannot be built."""
    try:
        return _address(load_kernels(compiler, text, "float64")[name])
    except KernelError as error:
        _LOG.warning("inputs beyond 1e9 stay in float32: %s", error)
        return None


def _address(function: ctypes._CFuncPtr) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value


def _pass(
    stage: Stage,
    kernel: ctypes._CFuncPtr,
    run: ctypes._CFuncPtr,
    load_wide: Callable[[], int | None],
) -> _Pass:
    finish = [FINISHES.index(s.finish) for s in stage.sums]
    native = _Stage(
        _address(kernel),
        len(stage.streams),
        len(stage.scalars),
        len(stage.vectors),
        len(stage.written),
        len(stage.sums),
        stage.streams.index("x") if "x" in stage.streams else -1,
        (ctypes.c_int * len(finish))(*finish),
    )
    patterns = [PATTERNS.index(p) for _, p in stage.vectors]
    patterns += [PATTERNS.index(s.pattern) for s in stage.sums]
    run.argtypes = [
        ctypes.POINTER(_Stage),
        *(ctypes.c_long,) * 4,
        *(ctypes.c_int,) * 3,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    return _Pass(stage, run, native, (ctypes.c_int * len(patterns))(*patterns), load_wide)


# --- tensors as memory ---------------------------------------------------------------------------


def _dense(
    x: Tensor, streams: dict[str, Tensor], *, by_sample: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The streams in one dense order: that of x, or a contiguous copy where x has holes.

    A stream of one repeated value (the gradient of a sum) stays as it is.
    """
    if not x.is_contiguous():
        order = _memory_order(x)
        if order is None or (by_sample and order[0] != 0):
            x = x.contiguous()
    dense = {"x": x}
    for name, stream in streams.items():
        if name == "x":
            continue
        if stream.stride() == x.stride() or _is_constant(stream):
            dense[name] = stream
        else:
            dense[name] = torch.empty_like(x).copy_(stream)
    return x, dense


def _is_constant(stream: Tensor) -> bool:
    return not any(stream.stride()) and stream.numel() > 1


def _memory_order(x: Tensor) -> list[int] | None:
    """The dimensions from the slowest to the quickest, or None when memory has holes."""
    order = sorted(range(x.ndim), key=lambda d: (x.stride(d), x.shape[d]), reverse=True)
    expected = 1
    for d in reversed(order):
        if x.shape[d] != 1:
            if x.stride(d) != expected:
                return None
            expected *= x.shape[d]
    return order


def _layout(x: Tensor, channel_dim: int) -> _Layout:
    size = x.numel()
    if x.ndim == 0:
        return _Layout(1, 1, 1, 1)
    order = list(range(x.ndim)) if x.is_contiguous() else _memory_order(x)
    assert order is not None  # `_dense` saw to it
    channel = x.ndim + channel_dim
    inner = math.prod(x.shape[d] for d in order[order.index(channel) + 1 :])
    sample = size // x.shape[0] if x.ndim > 1 else size
    return _Layout(size, x.shape[channel], inner, sample)


def _run(
    program: _Program,
    x: Tensor,
    streams: dict[str, Tensor],
    parameters: Sequence[Tensor],
    channel_dim: int,
    written: Sequence[Tensor | None],
    sums: Sequence[Tensor],
) -> None:
    """Run the program's passes; the last fills `written` and `sums`."""
    if x.numel() == 0:
        for total in sums:
            total.zero_()
        return
    layout = _Layout(x.numel(), 1, 1, 1) if program.flat else _layout(x, channel_dim)
    wide = _WIDE[x.dtype]
    values = dict(zip(program.parameters, (_wide(p, wide) for p in parameters), strict=True))
    for p in program.passes[:-1]:
        statistics = [torch.empty(_count(s.pattern, layout), dtype=wide) for s in p.stage.sums]
        _run_pass(p, x.dtype, layout, streams, values, (), statistics)
        values |= {s.name: value for s, value in zip(p.stage.sums, statistics, strict=True)}
    _run_pass(program.passes[-1], x.dtype, layout, streams, values, written, sums)


def _wide(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    return parameter.detach().to(dtype).contiguous()


def _count(pattern: str, layout: _Layout) -> int:
    match pattern:
        case "features":
            return layout.size // layout.channels
        case "sample":
            return layout.size // layout.sample
        case _:
            return 1


def _run_pass(
    p: _Pass,
    dtype: torch.dtype,
    layout: _Layout,
    streams: dict[str, Tensor],
    values: dict[str, Tensor],
    written: Sequence[Tensor | None],
    sums: Sequence[Tensor],
) -> None:
    stage = p.stage
    constants, pointers = 0, []
    for k, name in enumerate(stage.streams):
        stream = streams[name]
        pointers.append(stream.data_ptr())
        if name != "x" and _is_constant(stream):
            constants |= 1 << k
    pointers += [values[name].data_ptr() for name in stage.scalars]
    pointers += [values[name].data_ptr() for name, _ in stage.vectors]
    pointers += [t.data_ptr() if t is not None else None for t in written]
    pointers += [t.data_ptr() for t in sums]
    arguments = (
        p.native,
        layout.size,
        layout.channels,
        layout.inner,
        layout.sample,
        torch.get_num_threads(),
        _IO[dtype],
        constants,
        (ctypes.c_void_p * len(pointers))(*pointers),
        p.patterns,
    )
    if p.run(*arguments):  # an input far from zero: once more, with the kernel in float64 at hand
        p.native.wide = p.load_wide()
        p.run(*arguments)
