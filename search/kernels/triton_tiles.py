"""How kernels walk a tensor's memory: its order, its tiles, its groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

ELEMENTS = 8  # of a thread: one 128-bit access in 16 bits, two in 32
LONGEST = 8192  # features of a statistic in one tile; beyond, registers would spill
PROGRAMS = 8  # a processor, of a kernel that sums: 8 x 128 threads x 64 registers fill it


@dataclass(frozen=True, slots=True)
class Shape:
    """Dense memory seen as [outer, channels, inner]."""

    outer: int
    channels: int
    inner: int


def memory(x: Tensor, channel_dim: int) -> Shape:
    """The dense tensor in memory order."""
    channels = x.shape[channel_dim]
    inner = x.stride(channel_dim) if channels > 1 else x.numel()
    return Shape(x.numel() // (channels * inner), channels, inner)


def as_walked(x: Tensor) -> Tensor:
    """A tensor with the strides in which kernels walk x; not its values."""
    return x if x.is_contiguous() or _is_dense(x) else torch.empty(x.shape, device="meta")


def _is_dense(x: Tensor) -> bool:
    return torch.empty_like(x, device="meta").stride() == x.stride()  # else they are not kept


def aligned(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tensors of one order in memory, without gaps: the first's, if it has none."""
    x, *others = tensors
    if all(t.is_contiguous() for t in tensors):
        return tuple(tensors)
    x = x if _is_dense(x) else x.contiguous()
    same = (
        t if t.stride() == x.stride() else torch.empty_like(x, dtype=t.dtype).copy_(t)
        for t in others
    )
    return x, *same


@dataclass(frozen=True, slots=True)
class Tile:
    """How tiles cover the memory."""

    layout: str
    sizes: tuple[int, ...]
    """The kernel's arguments that say the shape; the channels are the second."""
    rows: int
    columns: int
    across: int
    """Programs side by side that share no partial sum: blocks of channels."""
    tiles: int
    warps: int = 4

    @property
    def constants(self) -> tuple[int, int]:
        return self.rows, self.columns


def place_tile(shape: Shape, statistics: bool) -> Tile:
    """Tiles for a shape; with statistics a tile holds all the channels of its rows."""
    block, outer, channels, inner = (
        elements_of_a_program(),
        shape.outer,
        shape.channels,
        shape.inner,
    )
    sizes = (outer, channels, inner)
    if statistics and inner > 1:
        columns = power_of_two(channels)
        rows = min(power_of_two(inner), max(1, min(16, LONGEST // columns)))
        tiles = outer * -(-inner // rows)
        return Tile("across", sizes, rows, columns, 1, tiles, _warps(rows * columns))
    if inner == 1:
        columns = power_of_two(channels)
        columns = columns if statistics else min(columns, 256)
        rows = min(power_of_two(outer), max(1, block // columns))
        across, warps = -(-channels // columns), _warps(rows * columns)
        tiles = -(-outer // rows) * across
        return Tile("last", sizes[:2], rows, columns, across, tiles, warps)
    columns = min(power_of_two(inner), block)
    rows = min(power_of_two(outer), block // columns)
    tiles = -(-outer // rows) * -(-inner // columns) * channels
    return Tile("first", sizes, rows, columns, channels, tiles)


def _warps(elements: int) -> int:
    """Enough that a thread has about ELEMENTS of them."""
    return min(32 if _threads() == 128 else 16, max(4, 4 * elements // elements_of_a_program()))


@dataclass(frozen=True, slots=True)
class Groups:
    """Memory as [groups, length], a group what one statistic reduces."""

    groups: int
    length: int

    def programs(self, x: Tensor) -> int:
        """Programs that share a group's sums."""
        tiles = -(-self.length // elements_of_a_program())
        return max(1, min(tiles, programs_at_once(x) // self.groups))


def place_groups(x: Tensor, over: frozenset[str]) -> Groups:
    groups = x.shape[0] if over == {"sample"} and x.ndim > 1 else 1
    return Groups(groups, x.numel() // groups)


def power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


def programs_at_once(x: Tensor) -> int:
    """Programs of a kernel that sums: what the device runs at once, always the same number."""
    return PROGRAMS * _processors(x.device.index if x.is_cuda else None)


@cache
def _processors(device: int | None) -> int:
    return (
        torch.cuda.get_device_properties(device).multi_processor_count if device is not None else 1
    )


def elements_of_a_program() -> int:
    """Of a flat kernel's tile."""
    return ELEMENTS * _threads()


@cache
def _threads() -> int:
    """Of a program: 4 warps."""
    return 256 if torch.version.hip else 128
