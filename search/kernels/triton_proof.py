"""Triton kernels that are tried before they are trusted.

The first call of every kernel of a formula, for a device, dtype and layout of memory, runs it on a
probe first: a few thousand values, then the same with ±0, ±inf, NaN, subnormals and the largest
numbers among them. A probe has the tiles and the divisibility of the real tensors, so that what it
compiles is what they run, and the proof costs a few launches beyond that. Held against the torch
rendering in float64 on the same device:

    values and slopes   one spacing of the dtype, and 64 float32 roundings of max(1, |x|, |exact|)
    parameters' sums    one spacing, and 64 float32 roundings of the sum of the terms' sizes
    NaN, infinities     NaN where x, u or dy is NaN, infinite where torch's own value is

and always four times the torch rendering's own error in the same dtype, which is what the formula
cancels. A kernel that fails, or that Triton cannot build or launch, is said in one line, and the
formula runs as torch operations there from then on; asked for by name, it is a KernelError.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from search.errors import KernelError
from search.kernels.torch_rendering import TorchRendering
from search.kernels.triton_rendering import TritonRendering, load_triton
from search.kernels.triton_tiles import (
    Shape,
    as_walked,
    elements_of_a_program,
    memory,
    place_tile,
)
from search.language.expression import Expression

_ROUNDINGS = 64
_LOG = logging.getLogger("search.kernels")


@dataclass(frozen=True, slots=True)
class ProvenTriton:
    """A Triton rendering, or torch's where that one was refused."""

    rendering: TritonRendering
    by_name: bool
    """Raise KernelError where it would be refused: torch was not asked for."""
    _proven: set[tuple[object, ...]] = field(default_factory=set, repr=False)
    _refused: set[tuple[torch.device, torch.dtype]] = field(default_factory=set, repr=False)

    def forward(self, tensors: Sequence[Tensor], channel_dim: int) -> Tensor:
        def call(rendering: Any) -> Tensor:
            return rendering.forward(tensors, channel_dim)

        return self._run(call, tensors, channel_dim, None)

    def backward(
        self, dy: Tensor, tensors: Sequence[Tensor], channel_dim: int, needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        def call(rendering: Any) -> Sequence[Tensor | None]:
            return rendering.backward(dy, tensors, channel_dim, needed)

        return self._run(call, tensors, channel_dim, tuple(needed))

    def _run(
        self,
        call: Callable[[Any], Any],
        tensors: Sequence[Tensor],
        channel_dim: int,
        needed: tuple[bool, ...] | None,
    ) -> Any:
        x = tensors[0]
        if (x.device, x.dtype) not in self._refused:
            try:
                if self._holds(tensors, channel_dim, needed):
                    return call(self.rendering)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # of a compiler, a driver, a tool that is not there
                if not self.rendering.serves(tensors, channel_dim):
                    raise  # the caller's mistake: torch raised it
                self._refuse(x, error)
        return call(self.rendering.reference)

    def _holds(
        self, tensors: Sequence[Tensor], channel_dim: int, needed: tuple[bool, ...] | None
    ) -> bool:
        """Whether the kernel of this call may run. Raises KernelError when its proof fails."""
        x = tensors[0]
        if not x.numel():
            return True
        key = x.device, x.dtype, needed, self.rendering.layout(x, channel_dim)
        if key in self._proven:
            return True
        if not self.rendering.serves(tensors, channel_dim):
            return False
        if x.is_cuda and torch.cuda.is_current_stream_capturing():
            return False  # nothing may be read back: torch serves this graph
        with torch.no_grad():
            prove(self.rendering, tensors, channel_dim, needed)
        self._proven.add(key)
        return True

    def _refuse(self, x: Tensor, error: Exception) -> None:
        kind = "" if isinstance(error, KernelError) else f"{type(error).__name__}: "
        reason = f"{kind}{str(error).strip()}".partition("\n")[0][:200]
        place = f"{self.rendering.expression}: on {x.device} in {str(x.dtype).split('.')[1]}"
        if self.by_name:
            raise KernelError(f"{place}: kernel 'triton': {reason}") from error
        self._refused.add((x.device, x.dtype))
        _LOG.warning("%s runs as torch operations: %s", place, reason)


@cache
def load_proven(expression: Expression, by_name: bool) -> ProvenTriton:
    """The Triton rendering of an expression; its kernels are proven at their first call."""
    return ProvenTriton(load_triton(expression), by_name)


# --- the proof ---------------------------------------------------------------------------------


def prove(
    rendering: TritonRendering,
    tensors: Sequence[Tensor],
    channel_dim: int,
    needed: Sequence[bool] | None,
) -> None:
    """Compare kernels with torch in float64 on probes like `tensors`; needed None: the forward.

    Raises KernelError where they differ by more than rounding.
    """
    count = len(rendering.expression.inputs)
    shape, dim = probe_shape(rendering, tensors[0], channel_dim)
    parameters = _parameters(rendering, tensors[count:], shape[dim], dim)
    for special in (False, True):
        dy, *inputs = _values(shape, tensors[0], count, special)
        given = [*inputs, *parameters]
        if needed is None:
            _compare_values(rendering, given, dim)
        else:
            _compare_gradients(rendering, dy, given, dim, needed, sums=not special)


def probe_shape(
    rendering: TritonRendering, x: Tensor, channel_dim: int
) -> tuple[tuple[int, ...], int]:
    """A small tensor's shape and channel dimension that takes the same kernels as x does."""
    layout, program = rendering.layout(x, channel_dim), elements_of_a_program()
    if layout == "flat":
        return (2 * program + 37,), -1
    if layout == "groups":
        groups = rendering.groups(x)
        return (_smaller(groups.groups, 1), _smaller(groups.length, 2 * program)), -1
    whole = memory(as_walked(x), channel_dim)
    tile = place_tile(whole, bool(rendering.over))
    rows, columns = 2 * tile.rows, 2 * tile.columns
    outer = _smaller(whole.outer, rows if layout != "across" else 1)
    inner = _smaller(whole.inner, rows if layout == "across" else columns)
    channels = whole.channels if rendering.over else _smaller(whole.channels, columns)
    small = Shape(outer, channels, inner)
    if layout == "last":
        return (small.outer, small.channels), -1
    return (small.outer, small.channels, small.inner), -2


def _smaller(n: int, least: int) -> int:
    """At least `least`, and n modulo 16, which Triton compiles for; n itself where it is small."""
    whole = 16 * -(-least // 16)
    return n if n < whole + 16 else whole + n % 16


def _parameters(
    rendering: TritonRendering, like: Sequence[Tensor], channels: int, dim: int
) -> list[Tensor]:
    """Off their initial values, which may be special ones (0 hides a term)."""
    made = []
    for k, (p, t) in enumerate(zip(rendering.expression.trainable, like, strict=True)):
        value = p.initial + 0.03 * (k + 1)
        if t.ndim:
            steps = torch.arange(channels, device=t.device) % 7
            value = (value + 0.01 * steps).reshape(-1, *(1,) * (-dim - 1))
        made.append(torch.as_tensor(value, device=t.device).to(t.dtype))
    return made


def _values(shape: tuple[int, ...], like: Tensor, inputs: int, special: bool) -> list[Tensor]:
    """dy, x and u of about ±8, always the same numbers; `special` ones spread through them."""
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float32, "device": "cpu"}
    dy, *found = (torch.randn(shape, **options) for _ in range(1 + inputs))
    found = [dy, *(2.0 * t for t in found)]
    if special:
        numbers = torch.tensor(_special(like.dtype), dtype=torch.float64)
        for k, t in enumerate(found):
            flat, step = t.view(-1), max(1, t.numel() // (len(numbers) + 1))
            place = torch.arange(len(numbers)) * step + k  # of dy, x and u side by side
            there = place < len(flat)
            # Of u and dy NaN alone: products of two infinities are nobody's promise.
            chosen = numbers if k == 1 else torch.full_like(numbers, float("nan"))
            flat[place[there]] = chosen[there].float()
    return [t.to(device=like.device, dtype=like.dtype) for t in found]


def _special(dtype: torch.dtype) -> list[float]:
    limits = torch.finfo(dtype)
    sizes = [0.0, limits.tiny / 4, limits.tiny, 1e-4, 1.0, 20.0, 90.0, 1e4, limits.max]
    return [s * size for size in (*sizes, float("inf")) for s in (1.0, -1.0)] + [float("nan")]


def _compare_values(rendering: TritonRendering, tensors: list[Tensor], dim: int) -> None:
    given, inputs = rendering.forward(tensors, dim), tensors[: len(rendering.expression.inputs)]
    wrong = torch.ones_like(given, dtype=torch.bool)
    for seen in _as_seen(tensors):
        single = rendering.reference.forward(seen, dim)
        exact = rendering.reference.forward([t.double() for t in seen], dim)
        wrong &= _wrong(given, single, exact, inputs, _scale(rendering, exact, seen[0]))
    exact = rendering.reference.forward([t.double() for t in tensors], dim)
    _raise_where(wrong, "y", given, exact, inputs[0])


def _compare_gradients(
    rendering: TritonRendering,
    dy: Tensor,
    tensors: list[Tensor],
    dim: int,
    needed: Sequence[bool],
    sums: bool,
) -> None:
    names = [*rendering.expression.inputs, *(p.name for p in rendering.expression.trainable)]
    count = len(rendering.expression.inputs)
    given = rendering.backward(dy, tensors, dim, needed)
    wrong = [torch.ones_like(dy if g is None else g, dtype=torch.bool) for g in given]
    found: list[Sequence[Tensor | None]] = []
    for seen in _as_seen(tensors):
        wide = [t.double() for t in seen]
        single = rendering.reference.backward(dy, seen, dim, needed)
        found.append(rendering.reference.backward(dy.double(), wide, dim, needed))
        for k, (a, b, c) in enumerate(zip(given, single, found[-1], strict=True)):
            if a is None or b is None or c is None or (k >= count and not sums):
                continue
            if k < count:
                bad = _wrong(a, b, c, [*tensors[:count], dy], _scale(rendering, c, seen[0]))
            else:
                bad = _wrong(a, b, c, [], sizes_of_terms(rendering.reference, dy, wide, dim, k))
            wrong[k] &= bad
    for k, (bad, a, c) in enumerate(zip(wrong, given, found[0], strict=True)):
        if a is not None and c is not None and (k < count or sums):
            name = f"d{names[k]}" if k < count else f"the gradient of {names[k]}"
            _raise_where(bad, name, a, c, tensors[0] if k < count else None)


def _as_seen(tensors: list[Tensor]) -> list[list[Tensor]]:
    """The tensors, and as a processor sees them that takes subnormal numbers for zeros."""
    x, *others = tensors
    small = (x.abs() < torch.finfo(x.dtype).tiny) & (x != 0)
    return [tensors, [torch.where(small, 0.0 * x, x), *others]] if bool(small.any()) else [tensors]


def _scale(rendering: TritonRendering, exact: Tensor, x: Tensor) -> Tensor:
    """max(1, |x|, |exact|), of the row that a statistic ties together where there is one."""
    size = torch.nan_to_num(exact.abs(), nan=0.0, posinf=0.0).clamp_min(1.0)
    if rendering.over:
        size = size.amax().expand_as(size)
    return torch.maximum(size, torch.nan_to_num(x.double().abs(), nan=1.0, posinf=1.0))


def sizes_of_terms(
    reference: TorchRendering, dy: Tensor, wide: Sequence[Tensor], dim: int, k: int
) -> Tensor:
    """The sum of the sizes of a parameter's terms: with a parameter an element, terms stay."""
    apart = [t.expand(dy.shape) for t in wide]
    needed = [i == k for i in range(len(wide))]
    terms = reference.backward(dy.double(), apart, dim, needed)[k]
    assert terms is not None
    return terms.abs().sum_to_size(wide[k].shape)


def _wrong(
    given: Tensor, single: Tensor, exact: Tensor, inputs: Sequence[Tensor], scale: Tensor
) -> Tensor:
    """Where given is farther from exact than its tolerance."""
    got, own = given.double(), single.double()
    nan = torch.zeros_like(got, dtype=torch.bool)
    for t in inputs:
        nan = nan | t.isnan()
    finite = own.isfinite() & exact.to(given.dtype).isfinite() & ~nan
    wrong = finite & ~((got - exact).abs() <= tolerance(given.dtype, own, exact, scale))
    wrong = wrong | (own.isinf() & (exact == own) & (got != own))
    return wrong | (nan & exact.isnan() & ~got.isnan())


def tolerance(dtype: torch.dtype, own: Tensor, exact: Tensor, scale: Tensor) -> Tensor:
    """How far a kernel may be from float64, where torch's operations in the dtype give `own`."""
    rounding = torch.finfo(dtype).eps * exact.abs()
    rounding = rounding + _ROUNDINGS * torch.finfo(torch.float32).eps * scale
    return rounding + 4.0 * (own - exact).abs()


def _raise_where(wrong: Tensor, name: str, given: Tensor, exact: Tensor, x: Tensor | None) -> None:
    """KernelError at the first wrong place."""
    if bool(wrong.any()):
        place = int(wrong.reshape(-1).nonzero()[0])
        at = "" if x is None else f" at x = {x.reshape(-1)[place].item():.6g}"
        got, right = (t.reshape(-1)[place].item() for t in (given, exact))
        raise KernelError(f"{name}{at}: Triton gives {got:.6g}, torch {right:.6g}")
