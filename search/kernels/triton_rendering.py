"""The Triton rendering, loaded: launches on CUDA and ROCm for float32, bfloat16 and float16.

Tensors are walked in memory order: x may be dense in any order of its dimensions (channels_last,
transposed), and u and dy that lie as x does are read in place. A tensor with gaps (a slice), an
expanded dy, inputs of different orders, and an x whose samples are not outermost under a statistic
of samples, are first copied. What a kernel does not serve runs in the torch rendering: float64,
parameters of other shapes, statistics over more than 8192 features, statistics over samples or the
tensor beside others or beside parameters per channel.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from search.kernels.program import Lowered, lower
from search.kernels.torch_rendering import TorchRendering, load_torch
from search.kernels.triton_build import load_triton_source
from search.kernels.triton_channels import render_channels
from search.kernels.triton_code import render
from search.kernels.triton_fusion import fuse
from search.kernels.triton_launch import Launcher
from search.kernels.triton_statistics import cut, render_statistics
from search.kernels.triton_tiles import (
    ELEMENTS,
    LONGEST,
    Groups,
    aligned,
    as_walked,
    elements_of_a_program,
    memory,
    place_groups,
    place_tile,
    power_of_two,
    programs_at_once,
)
from search.language.expression import Expression, Statistic, walk

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_FINISH = 1024


@dataclass(frozen=True, slots=True)
class TritonRendering:
    """The kernels of one expression; every layout is rendered when it is first met."""

    expression: Expression
    lowered: Lowered
    reference: TorchRendering
    channels: tuple[str, ...]
    """Parameters per channel."""
    over: frozenset[str]
    """What its statistics reduce."""
    _modules: dict[str, ModuleType] = field(default_factory=dict, repr=False)
    _launch: Launcher = field(default_factory=Launcher, repr=False)

    def forward(self, tensors: Sequence[Tensor], channel_dim: int) -> Tensor:
        if not self.serves(tensors, channel_dim):
            return self.reference.forward(tensors, channel_dim)
        inputs, parameters = self._split(tensors)
        x, *others = self._aligned(inputs)
        y = torch.empty_like(x)
        if x.numel():
            with _device(x):
                self._forward(x, (x, *others, *parameters, y), channel_dim)
        return y

    def backward(
        self, dy: Tensor, tensors: Sequence[Tensor], channel_dim: int, needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        if not self.serves((*tensors, dy), channel_dim):
            return self.reference.backward(dy, tensors, channel_dim, needed)
        inputs, parameters = self._split(tensors)
        if not inputs[0].numel():
            pairs = zip(tensors, needed, strict=True)
            return [torch.zeros_like(t) if wanted else None for t, wanted in pairs]
        x, *others, dy = self._aligned((*inputs, dy))
        gradients = [
            torch.empty_like(t, memory_format=torch.preserve_format) if wanted else None
            for t, wanted in zip((x, *others, *parameters), needed, strict=True)
        ]
        with _device(x):
            self._backward((dy, x, *others), parameters, gradients, channel_dim)
        return gradients

    def _forward(self, x: Tensor, arguments: tuple[Tensor, ...], channel_dim: int) -> None:
        if self._grouped:
            size = self.groups(x)
            self._stages("forward", size, arguments[:-1], arguments[-1:], None)
            return
        if not self._tiled:
            module, block = self._module("flat"), elements_of_a_program()
            tail = block * x.element_size() // 16
            n = x.numel()
            grid = (-(-n // block),)
            self._launch(module.forward, grid, (*arguments, n), (block, tail), layout="flat")
            return
        tile = place_tile(memory(x, channel_dim), bool(self.over))
        module = self._module(tile.layout)
        grid, sizes = (tile.tiles,), (*arguments, *tile.sizes)
        self._launch(module.forward, grid, sizes, tile.constants, tile.warps, tile.layout)

    def _backward(
        self,
        inputs: tuple[Tensor, ...],
        parameters: tuple[Tensor, ...],
        gradients: list[Tensor | None],
        channel_dim: int,
    ) -> None:
        x, count = inputs[1], len(inputs) - 1
        wanted, sums = gradients[:count], gradients[count:]
        if self._grouped:
            self._grouped_backward(inputs, parameters, wanted, sums)
            return
        if not self._tiled:
            self._flat_backward(inputs, parameters, wanted, sums)
            return
        tile = place_tile(memory(x, channel_dim), bool(self.over))
        groups = max(1, min(tile.tiles, programs_at_once(x)) // tile.across)
        channels, terms = tile.sizes[1], groups * tile.across
        partials = _partials(x, sums, groups * channels)
        module = self._module(tile.layout)
        arguments = (*inputs, *parameters, *wanted, partials, *tile.sizes)
        grid, form = (terms,), getattr(module, "gradients_in_turn", None)
        instead = (form, (*tile.constants, bool(torch.version.hip))) if tile.rows > 1 else None
        instead, common = instead if form else None, (tile.constants, tile.warps, tile.layout)
        self._launch(module.gradients, grid, arguments, *common, instead)
        if partials is not None:
            targets = _targets(sums, parameters)
            columns = min(64, power_of_two(channels))
            grid = (len(sums), -(-channels // columns))
            arguments = (partials, *targets, groups, channels, terms)
            self._launch(module.finish, grid, arguments, (16, columns))

    def _flat_backward(
        self,
        inputs: tuple[Tensor, ...],
        parameters: tuple[Tensor, ...],
        wanted: list[Tensor | None],
        sums: list[Tensor | None],
    ) -> None:
        x, module = inputs[1], self._module("flat")
        n, block = x.numel(), elements_of_a_program()
        tail = block * x.element_size() // 16
        tiles = -(-n // block)
        if not any(s is not None for s in sums):
            arguments = (*inputs, *parameters, *wanted, n)
            self._launch(module.input_gradients, (tiles,), arguments, (block, tail), layout="flat")
            return
        programs = min(tiles, programs_at_once(x))
        partials = _partials(x, sums, programs)
        arguments = (*inputs, *parameters, *wanted, partials, n)
        form = getattr(module, "gradients_in_turn", None)
        instead = form and (form, (block, block // ELEMENTS, bool(torch.version.hip)))
        constants = (block, tail)
        self._launch(module.gradients, (programs,), arguments, constants, 4, "flat", instead)
        targets = _targets(sums, parameters)
        self._launch(module.finish, (len(sums),), (partials, *targets, programs), (_FINISH,))

    def _grouped_backward(
        self,
        inputs: tuple[Tensor, ...],
        parameters: tuple[Tensor, ...],
        wanted: list[Tensor | None],
        sums: list[Tensor | None],
    ) -> None:
        x, size = inputs[1], self.groups(inputs[1])
        programs = size.programs(x)
        partials = _partials(x, sums, size.groups * programs)
        self._stages("backward", size, (*inputs, *parameters), tuple(wanted), partials)
        if partials is not None:
            arguments = (partials, *_targets(sums, parameters), size.groups * programs)
            self._launch(self._module("groups").finish, (len(sums),), arguments, (_FINISH,))

    def _stages(
        self,
        kind: str,
        size: Groups,
        tensors: tuple[Tensor, ...],
        outputs: tuple[Tensor | None, ...],
        sums: Tensor | None,
    ) -> None:
        """Moments and their averages, stage after stage, then the outputs."""
        x, module, block = tensors[0], self._module("groups"), elements_of_a_program()
        stages = cut(self.lowered.forward if kind == "forward" else self.lowered.backward)
        programs, shape = size.programs(x), (size.groups, size.length)
        most = max(len(stage.means) for stage in stages)
        memory = {"dtype": torch.float32, "device": x.device}
        statistics = torch.empty(len(stages[-1].known) * size.groups, **memory)
        partials = torch.empty(most * size.groups * programs, **memory)
        offset, grid = 0, (size.groups * programs,)
        for k, stage in enumerate(stages):
            given = (partials,) if stage.means else (sums,)
            written = () if stage.means else outputs
            arguments = (*tensors, *written, statistics, *given, *shape)
            self._launch(getattr(module, f"{kind}_{k}"), grid, arguments, (block,), layout="groups")
            if stage.means:
                arguments = (partials, statistics, offset, programs, *shape)
                grids = (len(stage.means), size.groups)
                self._launch(module.average, grids, arguments, (_FINISH,))
            offset += len(stage.means)

    @property
    def _grouped(self) -> bool:
        """Whether statistics reduce samples or the tensor."""
        return bool(self.over - {"features"})

    @property
    def _tiled(self) -> bool:
        return bool(self.over or self.channels)

    def layout(self, x: Tensor, channel_dim: int) -> str:
        """Which kernels walk x: flat, groups, last, first or across; "" where none does."""
        if self._grouped or not self._tiled:
            return "groups" if self._grouped else "flat"
        if not x.ndim:
            return ""
        return place_tile(memory(as_walked(x), channel_dim), bool(self.over)).layout

    def groups(self, x: Tensor) -> Groups:
        """How statistics over samples or the tensor share out x."""
        return place_groups(x, self.over)

    def _module(self, layout: str) -> ModuleType:
        module = self._modules.get(layout)
        if module is None:
            title = str(self.expression)
            if layout == "flat":
                text = render(self.lowered, title)
            elif layout == "groups":
                text = render_statistics(self.lowered, title)
            else:
                text = render_channels(self.lowered, title, layout, self.channels)
            module = self._modules[layout] = load_triton_source(text)
        return module

    def _aligned(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Tensors of one order in memory; samples outermost where a statistic reduces them."""
        x = tensors[0]
        if "sample" in self.over and x.ndim > 1 and x.stride(0) * x.shape[0] != x.numel():
            tensors = [x.contiguous(), *tensors[1:]]
        return aligned(tensors)

    def _split(self, tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        n = len(self.expression.inputs)
        return tuple(tensors[:n]), tuple(t.contiguous() for t in tensors[n:])

    def serves(self, tensors: Sequence[Tensor], channel_dim: int) -> bool:
        """Whether a kernel takes these tensors; the torch rendering does otherwise."""
        x, scopes = tensors[0], self.expression.trainable
        if any(t.dtype not in DTYPES for t in tensors):
            return False
        if self._grouped and (len(self.over) > 1 or self.channels):
            return False
        if bool(self.over) and not self._grouped and not _in_a_row(x, channel_dim):
            return False
        if any(t.device != x.device for t in tensors) or not (x.is_cuda or interpreted()):
            return False
        inputs, rest = self._split(tensors)
        fits = all(t.shape == x.shape for t in (*inputs, *rest[len(scopes) :]))
        return fits and all(
            t.ndim == 0 or (p.scope == "channel" and t.numel() == x.shape[channel_dim] and x.ndim)
            for p, t in zip(scopes, rest, strict=False)
        )


@cache
def load_triton(expression: Expression) -> TritonRendering:
    """The rendering of an expression; kernels are compiled at their first launch."""
    channels = tuple(p.name for p in expression.trainable if p.scope == "channel")
    nodes = walk(expression.body)
    over = frozenset(str(node.over) for node in nodes if isinstance(node, Statistic))
    return TritonRendering(
        expression, lower(expression, fuse), load_torch(expression), channels, over
    )


def interpreted() -> bool:
    """Whether Triton runs in its interpreter, on CPU tensors (TRITON_INTERPRET=1, for tests)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _partials(x: Tensor, sums: list[Tensor | None], each: int) -> Tensor | None:
    if not any(s is not None for s in sums):
        return None
    return torch.empty(len(sums) * each, dtype=torch.float32, device=x.device)


def _targets(sums: list[Tensor | None], parameters: tuple[Tensor, ...]) -> list[Tensor]:
    """Where the finishing launch writes; a gradient that nobody asked for is thrown away."""
    pairs = zip(sums, parameters, strict=True)
    return [torch.empty_like(p) if s is None else s for s, p in pairs]


def _device(x: Tensor) -> Any:
    return torch.cuda.device(x.device) if x.is_cuda else torch.no_grad()


def _in_a_row(x: Tensor, channel_dim: int) -> bool:
    """Whether one tile can hold all the elements that a statistic over features reduces."""
    return x.ndim > 0 and x.shape[channel_dim] <= LONGEST
