"""The passes of a program over tensors in memory: kernels called through c_blocks.c."""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from search.errors import KernelError
from search.kernels.c_build import Compiler, load_blocks, load_kernels
from search.kernels.c_code import FINISHES, PATTERNS, Stage, kernel_name, render, split_stages
from search.kernels.program import Lowered

IO = {torch.float32: 0, torch.float64: 0, torch.bfloat16: 1, torch.float16: 2}
"""`io` of c_blocks.c."""
WIDE = {dtype: torch.float32 for dtype in IO} | {torch.float64: torch.float64}
"""The dtype that a dtype is computed in, and parameters are read in."""
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
class Pass:
    """A stage whose kernel is loaded; in float64 too once an input far from zero asks for it."""

    stage: Stage
    run: Callable[..., int]
    """`run` of c_blocks.c."""
    native: _Stage
    native_address: int
    patterns: ctypes.Array[ctypes.c_int]
    patterns_address: int
    pointers: type[ctypes.Array[ctypes.c_void_p]]
    load_wide: Callable[[], int | None]


@dataclass(frozen=True, slots=True)
class Passes:
    """One program in one precision."""

    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    passes: tuple[Pass, ...]
    by_sample: bool
    """Some statistic is one of a sample, whose elements must then be neighbours in memory."""
    reads: tuple[int, ...] | None
    """Of a single pass whose values do not differ along the tensor, so that its layout does not
    matter: where its streams and scalars are among inputs and parameters. None of any other."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A dense tensor in memory order as [outer, channels, inner]; `sample` elements a sample."""

    size: int
    channels: int
    inner: int
    sample: int


def load_passes(
    compiler: Compiler,
    lowered: Lowered,
    per_channel: Collection[str],
    precision: str,
    *,
    backward: bool,
) -> Passes:
    """Build and load one program's kernels. Raises KernelError."""
    text = render(lowered, per_channel)
    library, blocks = load_kernels(compiler, text, precision), load_blocks(compiler, precision)
    program = lowered.backward if backward else lowered.forward
    passes = []
    for k, stage in enumerate(split_stages(program, per_channel, backward=backward)):
        name = kernel_name(lowered, per_channel, backward, k)
        wide = partial(_load_wide, compiler, text, name)
        passes.append(_load_pass(stage, library[name], blocks["run"], wide))
    sums = [s for p in passes for s in p.stage.sums]
    by_sample = any(s.pattern == "sample" for s in sums)
    flat = len(passes) == 1 and not passes[0].stage.vectors
    reads = None
    if flat and all(s.pattern == "one" for s in sums):
        places = (*program.inputs, *program.parameters)
        stage = passes[0].stage
        reads = tuple(places.index(name) for name in (*stage.streams, *stage.scalars))
    return Passes(program.inputs, program.parameters, tuple(passes), by_sample, reads)


def _load_wide(compiler: Compiler, text: str, name: str) -> int | None:
    """The address of a kernel in float64; None, said in one line, when it cannot be built."""
    try:
        return _address(load_kernels(compiler, text, "float64")[name])
    except KernelError as error:
        _LOG.warning("inputs beyond 1e9 stay in float32: %s", error)
        return None


def _address(function: Any) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value


def _load_pass(
    stage: Stage,
    kernel: Any,
    run: Any,
    load_wide: Callable[[], int | None],
) -> Pass:
    finish = [FINISHES.index(s.finish) for s in stage.sums]
    counts = [len(stage.streams), len(stage.scalars), len(stage.vectors)]
    counts += [len(stage.written), len(stage.sums)]
    x = stage.streams.index("x") if "x" in stage.streams else -1
    native = _Stage(_address(kernel), *counts, x, (ctypes.c_int * len(finish))(*finish))
    patterns = [PATTERNS.index(p) for _, p in stage.vectors]
    patterns += [PATTERNS.index(s.pattern) for s in stage.sums]
    array = (ctypes.c_int * len(patterns))(*patterns)
    address, integer, whole = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
    run.argtypes = (address, *(whole,) * 4, *(integer,) * 3, address, address)
    return Pass(
        stage,
        run,
        native,
        ctypes.addressof(native),
        array,
        ctypes.addressof(array),
        ctypes.c_void_p * sum(counts),
        load_wide,
    )


# --- running -----------------------------------------------------------------------------------


def run_flat(
    passes: Passes, addresses: Sequence[int | None], size: int, dtype: torch.dtype
) -> None:
    """Run a program with `reads`; addresses of what it reads, then of what it writes and sums."""
    _call(passes.passes[0], addresses, (size, 1, 1, 1), IO[dtype], 0)


def run_passes(
    program: Passes,
    x: Tensor,
    streams: dict[str, Tensor],
    parameters: Sequence[Tensor],
    channel_dim: int,
    written: Sequence[Tensor | None],
    sums: Sequence[Tensor],
) -> None:
    """Run the program's passes over dense streams (see `dense`).

    The last fills `written` (of the inputs' dtype, in the order of x) and `sums` (contiguous, of
    the wide dtype).
    """
    if x.numel() == 0:
        for total in sums:
            total.zero_()
        return
    layout, wide = layout_of(x, channel_dim), WIDE[x.dtype]
    widened = (p.detach().to(wide).contiguous() for p in parameters)
    values = dict(zip(program.parameters, widened, strict=True))
    for p in program.passes[:-1]:
        statistics = [torch.empty(_count(s.pattern, layout), dtype=wide) for s in p.stage.sums]
        _run_pass(p, x.dtype, layout, streams, values, (), statistics)
        values |= {s.name: value for s, value in zip(p.stage.sums, statistics, strict=True)}
    _run_pass(program.passes[-1], x.dtype, layout, streams, values, written, sums)


def _run_pass(
    p: Pass,
    dtype: torch.dtype,
    layout: Layout,
    streams: dict[str, Tensor],
    values: dict[str, Tensor],
    written: Sequence[Tensor | None],
    sums: Sequence[Tensor],
) -> None:
    stage = p.stage
    constants = sum(_is_constant(streams[name]) << k for k, name in enumerate(stage.streams))
    read = [streams[name] for name in stage.streams]
    read += [values[name] for name in (*stage.scalars, *(name for name, _ in stage.vectors))]
    addresses = [t.data_ptr() if t is not None else None for t in (*read, *written, *sums)]
    places = (layout.size, layout.channels, layout.inner, layout.sample)
    _call(p, addresses, places, IO[dtype], constants)


def _call(
    p: Pass, addresses: Sequence[int | None], places: Sequence[int], io: int, constants: int
) -> None:
    pointers, threads = p.pointers(*addresses), torch.get_num_threads()
    ends = (threads, io, constants, ctypes.addressof(pointers), p.patterns_address)
    if p.run(p.native_address, *places, *ends):
        # An input far from zero: once more, with the kernel in float64 at hand.
        p.native.wide = p.load_wide()
        p.run(p.native_address, *places, *ends)


def _count(pattern: str, layout: Layout) -> int:
    match pattern:
        case "features":
            return layout.size // layout.channels
        case "sample":
            return layout.size // layout.sample
        case _:
            return 1


# --- tensors as memory -------------------------------------------------------------------------


def dense(
    x: Tensor, streams: dict[str, Tensor], *, by_sample: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The streams in one dense order: that of x, or a contiguous copy where x has holes.

    A stream of one repeated value (the gradient of a sum) stays as it is.
    """
    if not x.is_contiguous():
        order = _memory_order(x)
        if order is None or (by_sample and order[0] != 0):
            x = x.contiguous()
    found = {"x": x}
    for name, stream in streams.items():
        if name == "x":
            continue
        if stream.stride() == x.stride() or _is_constant(stream):
            found[name] = stream
        else:
            found[name] = torch.empty_like(x).copy_(stream)
    return x, found


def _is_constant(stream: Tensor) -> bool:
    return stream.numel() > 1 and not any(stream.stride())


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


def layout_of(x: Tensor, channel_dim: int) -> Layout:
    """The layout of a dense tensor that is not empty."""
    size = x.numel()
    if x.ndim == 0:
        return Layout(1, 1, 1, 1)
    order = list(range(x.ndim)) if x.is_contiguous() else _memory_order(x)
    assert order is not None  # `dense` saw to it
    channel = x.ndim + channel_dim
    inner = math.prod(x.shape[d] for d in order[order.index(channel) + 1 :])
    sample = size // x.shape[0] if x.ndim > 1 else size
    return Layout(size, x.shape[channel], inner, sample)
