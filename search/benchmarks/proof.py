"""How far kernels are from float64 at most: `bench proof`.

A formula of one element is tried with every one of the 65,536 numbers of a 16-bit dtype; in float32
with 32,768 numbers spread evenly over all bit patterns and as many normal ones. A formula with
statistics is tried with normal numbers in 256 rows of 256. dy is 1. The reference is the torch
rendering in float64, which tests hold against NumPy, mpmath and the papers' own values.

What is allowed of a value or a slope is the largest of

    one spacing of the dtype at the exact value (half of it in Triton's interpreter, which gives
        float32: the other half is the rounding at the store)
    2e-7 max(1, |x|) in 16 bits; in float32, or with statistics, 64 roundings of
        max(1, |x|, |exact|) and four times the error of torch's operations in float32
    the error of torch's operations in float32, where those overflow inside the formula

and of a parameter's gradient, over normal x and dy, one spacing and 64 float32 roundings of the sum
of its terms' sizes. NaN must come out as NaN, and limits at ±inf as torch's operations give them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from search.benchmarks.kernels import one_line
from search.kernels.formula import Formula, Rendering, load_formula
from search.kernels.torch_rendering import TorchRendering
from search.kernels.triton_proof import sizes_of_terms, tolerance
from search.language.expression import Expression, Statistic, walk

TAIL = 2e-7
COUNT, CHANNELS = 2**16, 256
REPEATS = 10


@dataclass(frozen=True, slots=True)
class Worst:
    """Where an output is furthest from float64."""

    share: float
    """The error, of what is allowed there: it holds up to 1."""
    spacings: float
    """The error in spacings of the dtype at the exact value."""
    error: float
    x: float | None
    """None: of a gradient summed over all."""


@dataclass(frozen=True, slots=True)
class Proof:
    """One formula in one dtype by one kernel."""

    name: str
    expression: str
    dtype: str
    kernel: str
    value: Worst
    slope: Worst
    sums: Worst | None
    """The worst of the parameters' gradients; None: the formula has no parameters."""
    masked: int
    """NaN among x whose value is none."""
    limits: tuple[float, float]
    """The values at -inf and inf."""
    astray: int
    """Values and slopes there that are not torch's in float64, where its operations have one."""
    repeats: bool
    """Whether ten backward passes give the same bits."""

    @property
    def holds(self) -> bool:
        """Whether every error is within what is allowed."""
        worst = [w.share for w in (self.value, self.slope, self.sums) if w is not None]
        kept = not self.masked and not self.astray
        return all(share <= 1 for share in worst) and kept and self.repeats


@dataclass(frozen=True, slots=True)
class Unproven:
    """One that could not run."""

    name: str
    expression: str
    dtype: str
    kernel: str
    problem: str


@dataclass(frozen=True, slots=True)
class Subject:
    """A formula, and the kernel that is tried in a dtype."""

    formula: Formula
    rendering: Rendering
    dtype: torch.dtype
    device: torch.device
    wide_store: bool
    """Triton's interpreter: 16-bit numbers go in as float32, and float32 comes out."""

    @property
    def expression(self) -> Expression:
        return self.formula.expression

    @property
    def reference(self) -> TorchRendering:
        assert isinstance(self.formula.reference, TorchRendering)
        return self.formula.reference

    @property
    def statistics(self) -> bool:
        """Whether elements depend on each other."""
        return any(isinstance(node, Statistic) for node in walk(self.expression.body))

    def stored(self, t: Tensor) -> Tensor:
        """Numbers of the dtype, as the kernel is given them."""
        rounded = t.to(self.device, self.dtype)
        return rounded.float() if self.wide_store else rounded


def prove_all(
    formulas: Sequence[tuple[str, Expression]], dtypes: Sequence[str], kernel: str, device: str
) -> Iterator[Proof | Unproven]:
    """Every formula in every dtype."""
    for name, expression in formulas:
        for dtype in dtypes:
            try:
                subject = make_subject(expression, dtype, kernel, torch.device(device))
                yield prove(name, subject, kernel)
            except Exception as error:  # of a compiler, a driver, memory: the others go on
                yield Unproven(name, str(expression), dtype, kernel, one_line(error))


def make_subject(expression: Expression, dtype: str, kernel: str, device: torch.device) -> Subject:
    """Load a kernel. Raises KernelError where it cannot be built."""
    formula, number = load_formula(expression, kernel), getattr(torch, dtype)
    interpreted = kernel == "triton" and device.type == "cpu"
    if interpreted:
        from search.kernels.triton_rendering import load_triton

        rendering: Rendering = load_triton(expression)
    else:
        rendering = formula.rendering(torch.empty(0, dtype=number, device=device))
    return Subject(formula, rendering, number, device, interpreted)


def prove(name: str, subject: Subject, kernel: str) -> Proof:
    """Every figure of one kernel."""
    x = numbers(subject)
    tensors = [x, *_others(subject, x)]
    dy, needed = torch.ones_like(x), [True] * len(tensors)
    given = subject.rendering.forward(tensors, -1)
    slope = subject.rendering.backward(dy, tensors, -1, needed)[0]
    assert slope is not None
    limits, astray = _limits(subject)
    nan = x.isnan() & subject.reference.forward(_wide(tensors), -1).isnan()
    return Proof(
        name=name,
        expression=str(subject.expression),
        dtype=str(subject.dtype).removeprefix("torch."),
        kernel=kernel,
        value=_worst(subject, given, partial(_forward, subject), tensors),
        slope=_worst(subject, slope, partial(_slope, subject), tensors),
        sums=_worst_sum(subject),
        masked=int((nan & ~given.isnan()).sum()),
        limits=limits,
        astray=astray,
        repeats=_repeats(subject),
    )


# --- numbers -------------------------------------------------------------------------------------


def numbers(subject: Subject) -> Tensor:
    """x: all 16-bit numbers, a spread of float32, or normal numbers where elements are tied."""
    generator = torch.Generator().manual_seed(0)
    if subject.statistics:
        x = 1.5 * torch.randn(COUNT, generator=generator)
    elif subject.dtype.itemsize == 2:
        bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
        x = bits.view(subject.dtype)
    else:
        spread = torch.arange(-(2**31), 2**31, 2 * 2**32 // COUNT).to(torch.int32)
        x = torch.cat(
            [spread.view(torch.float32), 2 * torch.randn(COUNT // 2, generator=generator)]
        )
    return subject.stored(x).view(-1, CHANNELS)


def _others(subject: Subject, x: Tensor) -> list[Tensor]:
    """u = 0.75, and the parameters at their start, each of the channels the same."""
    found = [torch.full_like(x, 0.75) for _ in subject.expression.inputs[1:]]
    for p in subject.expression.trainable:
        shape = (x.shape[-1],) if p.scope == "channel" else ()
        found.append(subject.stored(torch.full(shape, float(p.initial))))
    return found


def _wide(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.double() for t in tensors]


def _forward(subject: Subject, tensors: Sequence[Tensor]) -> Tensor:
    return subject.reference.forward(tensors, -1)


def _slope(subject: Subject, tensors: Sequence[Tensor]) -> Tensor:
    needed = [True, *(False for _ in tensors[1:])]
    found = subject.reference.backward(torch.ones_like(tensors[0]), tensors, -1, needed)[0]
    assert found is not None
    return found


# --- errors --------------------------------------------------------------------------------------


def _worst(subject: Subject, given: Tensor, again: partial[Tensor], tensors: list[Tensor]) -> Worst:
    """Of what is finite in float64, in the dtype, and in torch's operations in float32."""
    x, single = tensors[0], again([t.float() for t in tensors]).double()
    exact = again(_wide(tensors))
    spacing = _spacing(subject.dtype, exact)
    allowed = _allowed(subject, x, single, exact, spacing)
    held = single.isfinite() & exact.to(subject.dtype).isfinite() & x.isfinite()
    error = torch.where(held, (given.double() - exact).abs(), 0.0)
    error = torch.where(held & given.isnan(), torch.inf, error)
    share = (error / allowed).nan_to_num(nan=0.0, posinf=torch.inf)
    place = int(share.argmax())
    return Worst(*(t.reshape(-1)[place].item() for t in (share, error / spacing, error, x)))


def _spacing(dtype: torch.dtype, exact: Tensor) -> Tensor:
    limits = torch.finfo(dtype)
    return (limits.eps * exact.abs()).clamp_min(limits.smallest_normal * limits.eps)


def _allowed(subject: Subject, x: Tensor, single: Tensor, exact: Tensor, spacing: Tensor) -> Tensor:
    own, size = (single - exact).abs(), x.double().abs().clamp_min(1.0)
    if subject.dtype == torch.float32 or subject.statistics:
        scale = torch.maximum(size, exact.abs())
        if subject.statistics:
            scale = scale.amax().expand_as(scale)
        return torch.maximum(tolerance(subject.dtype, single, exact, scale), spacing)
    rounding = spacing * (0.5 if subject.wide_store else 1.0)
    return torch.maximum(torch.maximum(rounding, TAIL * size), own)


def _worst_sum(subject: Subject) -> Worst | None:
    """Of the gradients of all parameters, over normal x and dy."""
    count = len(subject.expression.inputs)
    dy, tensors = _normal(subject)
    given = subject.rendering.backward(dy, tensors, -1, [True] * len(tensors))
    needed = [k >= count for k in range(len(tensors))]
    reference, wide = subject.reference, _wide(tensors)
    exact = reference.backward(dy.double(), wide, -1, needed)
    single = reference.backward(dy.float(), [t.float() for t in tensors], -1, needed)
    found = []
    for k in range(count, len(tensors)):
        got, right, own = given[k], exact[k], single[k]
        assert got is not None and right is not None and own is not None
        sizes = sizes_of_terms(reference, dy, wide, -1, k)
        allowed = tolerance(subject.dtype, own.double(), right, sizes)
        allowed = torch.maximum(allowed, _spacing(subject.dtype, right))
        error = (got.double() - right).abs()
        place = int((error / allowed).argmax())
        share, spacings, most = (
            t.reshape(-1)[place].item()
            for t in (error / allowed, error / _spacing(subject.dtype, right), error)
        )
        found.append(Worst(share, spacings, most, None))
    return max(found, key=lambda worst: worst.share, default=None)


def _normal(subject: Subject) -> tuple[Tensor, list[Tensor]]:
    """dy, and tensors with x of about ±5."""
    generator = torch.Generator().manual_seed(1)
    shape = (COUNT // CHANNELS, CHANNELS)
    dy, x = (subject.stored(1.5 * torch.randn(shape, generator=generator)) for _ in ("dy", "x"))
    return dy, [x, *_others(subject, x)]


def _limits(subject: Subject) -> tuple[tuple[float, float], int]:
    """The values at -inf and inf, and how many of them and of the slopes there are wrong."""
    x = subject.stored(torch.tensor([[-torch.inf] * CHANNELS, [torch.inf] * CHANNELS]))
    tensors = [x, *_others(subject, x)]
    needed = [True, *(False for _ in tensors[1:])]
    y = subject.rendering.forward(tensors, -1)
    dx = subject.rendering.backward(torch.ones_like(x), tensors, -1, needed)[0]
    assert dx is not None
    single, wide = [t.float() for t in tensors], _wide(tensors)
    astray = 0
    for given, again in ((y, _forward), (dx, _slope)):
        exact = again(subject, wide)
        allowed = torch.maximum(_spacing(subject.dtype, exact), torch.full_like(exact, TAIL))
        right = (given == exact) | ((given.double() - exact).abs() <= allowed)
        right |= exact.isnan() | again(subject, single).isnan()
        astray += int((~right[:, 0]).sum())
    return (y[0, 0].item(), y[1, 0].item()), astray


def _repeats(subject: Subject) -> bool:
    dy, tensors = _normal(subject)
    needed = [True] * len(tensors)
    first, *others = (subject.rendering.backward(dy, tensors, -1, needed) for _ in range(REPEATS))
    pairs = (zip(first, other, strict=True) for other in others)
    return all(
        torch.equal(a, b) for pair in pairs for a, b in pair if a is not None and b is not None
    )
