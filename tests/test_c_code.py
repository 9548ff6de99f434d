"""The C rendering against float64: every case, dtype, layout and 16-bit input, and the extremes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from search.benchmarks.goals import TYPES
from search.kernels.c_build import find_compiler
from search.kernels.c_code import render, split_stages
from search.kernels.c_fusion import fuse
from search.kernels.c_rendering import CRendering
from search.kernels.formula import Formula, compile_batch, load_formula
from search.kernels.operators import apply_formula
from search.kernels.program import lower
from search.language.catalog import CATALOG, read_activation
from search.language.expression import Expression
from search.language.parser import parse
from tests.cases import CASES, LIMITS, expression, has_statistics

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C compiler on this machine")
SIXTEEN = (torch.bfloat16, torch.float16)
SHAPES = ((6, 42, 13), (7, 123), (431,))
POINTWISE = [n for n in CATALOG if not has_statistics(CATALOG[n].expression)]


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """All cases in one library a precision: 160 candidates in a few seconds."""
    for dtype in (torch.float32, torch.float64):
        compile_batch([expression(name) for name in CASES], dtype)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def load(e: Expression) -> Formula:
    return load_formula(e, "c")


def c_rendering(formula: Formula, x: Tensor) -> CRendering:
    rendering = formula.rendering(x)
    assert isinstance(rendering, CRendering)
    return rendering


def draw(e: Expression, shape: tuple[int, ...], channel_dim: int = -1, seed: int = 3):
    """dy, then inputs and parameters as float64 tensors that float32 holds exactly."""
    g = torch.Generator().manual_seed(seed)
    channels = shape[channel_dim] if shape else 1
    dy, *inputs = (1.5 * torch.randn(shape, generator=g) for _ in ("dy", *e.inputs))
    parameters = []
    for k, p in enumerate(e.trainable):
        if p.scope == "layer":
            parameters.append(torch.tensor(p.initial + 0.03 * (k + 1)))
        else:
            view = (channels, *(1,) * (-channel_dim - 1))
            offset = 0.1 * torch.rand(channels, generator=g)
            parameters.append((p.initial + offset).view(view))
    return dy.double(), [t.double() for t in (*inputs, *parameters)]


def gradients(formula: Formula, rendering, dy: Tensor, tensors, channel_dim: int = -1):
    y = rendering.forward(tensors, channel_dim)
    return [y, *rendering.backward(dy, tensors, channel_dim, [True] * len(tensors))]


def compare(e: Expression, dtype: torch.dtype, shape: tuple[int, ...], channel_dim: int = -1):
    """Value and every gradient within round-off of the float64 reference, in any dense order."""
    formula = load(e)
    dy, tensors = draw(e, shape, channel_dim)
    given = gradients(
        formula,
        c_rendering(formula, dy.to(dtype)),
        dy.to(dtype),
        [t.to(dtype) for t in tensors],
        channel_dim,
    )
    wanted = gradients(formula, formula.reference, dy, tensors, channel_dim)
    # What the reference makes of inputs one rounding away says how much a rounding is worth.
    eps = torch.finfo(dtype).eps
    nudged = [t * (1 + eps) if k < len(e.inputs) else t for k, t in enumerate(tensors)]
    shaken = gradients(formula, formula.reference, dy, nudged, channel_dim)
    rounding = 8 * eps * (len(lower(e).backward.operations) + 4)
    for got, exact, moved in zip(given, wanted, shaken, strict=True):
        assert got.dtype == dtype and got.shape == exact.shape
        condition = (moved - exact).abs()
        scale = exact.abs().clamp_min(1.0)
        if exact.numel() < dy.numel():  # a sum: its round-off is that of its terms
            scale, condition = scale + exact.abs().max() + math.sqrt(dy.numel()), condition.max()
        assert ((got.double() - exact).abs() <= rounding * scale + 8 * condition).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", list(CASES))
def test_every_case_forward_and_every_gradient(name: str, dtype: torch.dtype):
    for shape in SHAPES:
        compare(expression(name), dtype, shape)


MIXED = "x * gompertz(b * x) + a * x where b = 1 per channel, a = 0.1 per layer"
STATISTIC = (
    "b * x * (1 + 0.3 * tanh(m / rms(x, over={0}))) where b = 1 per channel, m = 1 per layer"
)


@pytest.mark.parametrize("n", [*range(1, 17), 31, 1023, 1025, 40001])
def test_every_length(n: int):
    compare(parse(MIXED), torch.float32, (n,))
    compare(parse("x * gompertz(b * x) where b = 1 per layer"), torch.float32, (n, 1))


@pytest.mark.parametrize(
    "shape, channel_dim",
    [
        ((2, 3, 5, 7), -3),  # channels first, short rows
        ((2, 5, 40, 41), -3),  # channels first, a plane longer than a block
        ((3, 4, 1, 1), -3),
        ((5, 7), -2),  # the batch itself
        ((3, 5000), -1),  # rows longer than a block
        ((9000, 6), -1),  # many chunks
        ((4, 3, 2, 3, 5), -4),
        ((1, 6), -1),
        ((6, 1), -1),
    ],
)
@pytest.mark.parametrize("over", ["", "features", "sample", "tensor"])
def test_channels_and_statistics_in_every_place(shape: tuple, channel_dim: int, over: str):
    compare(parse(STATISTIC.format(over) if over else MIXED), torch.float32, shape, channel_dim)


@pytest.mark.parametrize("over", ["", "features", "sample", "tensor"])
def test_memory_formats_are_kept_and_agree(over: str):
    e = parse(STATISTIC.format(over) if over else MIXED)
    formula = load(e)
    dy, tensors = draw(e, (3, 5, 4, 6), -3)
    dy, tensors = dy.float(), [t.float() for t in tensors]
    x, *parameters = tensors
    rendering = c_rendering(formula, x)
    plain = gradients(formula, rendering, dy, tensors, -3)
    layouts = {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "permuted": x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
        "with holes": torch.stack([x, x], -1)[..., 0],
    }
    for name, other in layouts.items():
        for upstream in (dy, torch.empty_like(other).copy_(dy)):
            got = gradients(formula, rendering, upstream, [other, *parameters], -3)
            for given, wanted in zip(got, plain, strict=True):
                torch.testing.assert_close(given, wanted, msg=lambda m, name=name: f"{name}: {m}")
        if name == "channels_last":
            assert got[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("text", [MIXED, "u * silu(x)", "x / rms(x)"])
def test_the_expanded_gradient_of_a_sum(text: str):
    e = parse(text)
    formula = load(e)
    _, tensors = draw(e, (33, 40))
    tensors = [t.float() for t in tensors]
    rendering = c_rendering(formula, tensors[0])
    one = torch.ones(())
    needed = [True] * len(tensors)
    given = rendering.backward(one.expand(33, 40), tensors, -1, needed)
    wanted = rendering.backward(torch.ones(33, 40), tensors, -1, needed)
    for a, b in zip(given, wanted, strict=True):
        assert a is not None and b is not None and torch.equal(a, b)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (0, 4)])
@pytest.mark.parametrize("text", ["x * gompertz(b * x) where b = 1 per layer", "x / rms(x)"])
def test_empty_and_zero_dimensional(text: str, shape: tuple[int, ...]):
    e = parse(text)
    formula = load(e)
    _, tensors = draw(e, shape)
    tensors = [t.float().requires_grad_() for t in tensors]
    y = apply_formula(formula, tensors[:1], tensors[1:], -1)
    y.sum().backward()
    assert y.shape == shape
    for t in tensors:
        assert t.grad is not None and t.grad.shape == t.shape and torch.isfinite(t.grad).all()


# --- every 16-bit number -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize("name", [*POINTWISE, *TYPES])
def test_every_16_bit_input(name: str, dtype: torch.dtype):
    """All 65,536 values, forward and slope: one rounding of float64, or 2e-7 of x in a tail."""
    e = read_activation(TYPES.get(name, name))
    formula = load(e)
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    inputs = [x, torch.ones_like(x)][: len(e.inputs)]
    parameters = [torch.full((x.numel(),) if p.scope == "channel" else (), p.initial)
                  for p in e.trainable]  # fmt: skip
    tensors, wide = [*inputs, *parameters], [t.double() for t in (*inputs, *parameters)]
    dy = torch.ones_like(x)
    given = gradients(formula, formula.rendering(x), dy, tensors)[:2]
    exact = gradients(formula, formula.reference, dy.double(), wide)[:2]
    finite = torch.isfinite(x)
    for label, got, wanted in zip(("f", "f'"), given, exact, strict=True):
        nan = torch.isnan(x) & torch.isnan(wanted)  # a slope of pieces may not look at x
        assert torch.isnan(got[nan]).all() and (label != "f" or nan.any())
        check_rounded(f"{name} {label}", x[finite], got[finite], wanted[finite])


def check_rounded(label: str, x: Tensor, got: Tensor, wanted: Tensor) -> None:
    """Within a spacing of the 16-bit numbers at the value, or 2e-7 max(1, |x|)."""
    dtype = got.dtype
    limits = torch.finfo(dtype)
    spacing = (limits.eps * wanted.abs()).clamp_min(limits.smallest_normal * limits.eps)
    allowed = torch.maximum(spacing, 2e-7 * x.double().abs().clamp_min(1.0))
    # Where float32 overflows and float64 does not, an infinity of the right sign is right.
    beyond = wanted.abs() >= min(limits.max, 3e38)
    fits = (got.double() - wanted).abs() <= allowed
    fits |= beyond & (got.double() * wanted.sign() >= 0.99 * limits.max)
    fits |= torch.isnan(wanted)
    worst = (~fits).nonzero().flatten()
    assert len(worst) == 0, (
        f"{label}: {len(worst)} of {len(x)} inputs, x = {x[worst[0]].item():g}:"
        f" {got[worst[0]].item():g}, expected {wanted[worst[0]].item():g}"
    )


# --- extremes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", list(LIMITS))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *SIXTEEN])
def test_infinity_gives_the_limit(text: str, dtype: torch.dtype):
    x = torch.tensor([-math.inf, 1.0, math.inf], dtype=dtype, requires_grad=True)
    y = apply_formula(load(parse(text)), [x], [], -1)
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    low, high, slope_low, slope_high = LIMITS[text]
    got = torch.stack([y[0], y[2], dx[0], dx[2]]).detach()
    wanted = torch.tensor([low, high, slope_low, slope_high], dtype=dtype)
    torch.testing.assert_close(got, wanted, equal_nan=True)


@pytest.mark.parametrize("name", ["relu", "gelu", "mish", "golu", "swish", "hard_swish"])
def test_nan_and_infinite_gradients_are_never_masked(name: str):
    e = CATALOG[name].expression
    formula = load(e)
    parameters = [torch.tensor(p.initial) for p in e.trainable]
    x = torch.tensor([math.nan, 0.5, 2.0, -30.0], requires_grad=True)
    y = apply_formula(formula, [x], parameters, -1)
    upstream = torch.tensor([1.0, math.nan, math.inf, math.nan])
    (dx,) = torch.autograd.grad(y, x, upstream)
    assert y.isnan().tolist() == [True, False, False, False]
    assert dx.isnan().tolist() == [True, True, False, True] and dx[2] == math.inf


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "gompertz", "normal_cdf", "gumbel_pdf"])
def test_no_bit_of_a_nan_is_lost_in_an_exponential(name: str):
    """0xFFFFFFFF is what memory set to -1 holds."""
    x = torch.tensor([-1, 0x7FC00001, 0x7FFFFFFF, -(2**22) + 3] * 8, dtype=torch.int32)
    x = x.view(torch.float32)
    assert c_rendering(load(parse(f"{name}(x)")), x).forward([x], -1).isnan().all()


SUM = "arctan(3 * x) + arcsin(clip(c * x, -1, 1)) where c = {0} per layer"


@pytest.mark.parametrize("c", [0.25, -0.25, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arctan_and_arcsin_together_are_one_angle(c: float, dtype: torch.dtype):
    """On every side of the circle, to a few roundings of a right angle; near 0 of the angle."""
    formula = load(parse(SUM.format(c)))
    assert "angle(" in render(lower(formula.expression, fuse), frozenset())
    size = torch.logspace(-6, 8, 4000, dtype=torch.float64)
    x = torch.cat([-size, torch.tensor([0.0, math.inf, -math.inf]), size]).to(dtype)
    parameter = torch.tensor(c, dtype=dtype)
    got = gradients(formula, c_rendering(formula, x), torch.ones_like(x), [x, parameter])
    inputs = [x.double(), parameter.double()]
    wanted = gradients(formula, formula.reference, torch.ones_like(inputs[0]), inputs)
    eps, bx = torch.finfo(dtype).eps, (3 * x.double()).abs()
    # Half a unit that c x has lost is worth the slope of arcsin, 1e-3 from the ends at most 23.
    steepness = (1 - (c * inputs[0]) ** 2).clamp_min(1e-4).rsqrt()
    away = ((c * inputs[0]).abs() - 1).abs() > 1e-3
    off = [(a - b).abs() for a, b in zip(got, wanted, strict=True)]
    assert (off[0] <= 8 * eps * bx.clamp_max(1.0) * steepness)[away].all()
    assert (off[1] <= 8 * eps * (wanted[1].abs() + 1) * steepness**2)[away].all()


@pytest.mark.parametrize("name", POINTWISE)
def test_zeros_subnormals_and_the_largest_numbers(name: str):
    e = CATALOG[name].expression
    formula = load(e)
    tiny, largest = torch.finfo(torch.float32).smallest_normal, torch.finfo(torch.float32).max
    x = torch.tensor([0.0, -0.0, tiny, -tiny, tiny / 1024, -tiny / 1024, largest, -largest])
    tensors = [*[x, torch.ones_like(x)][: len(e.inputs)]]
    tensors += [torch.full((8,) if p.scope == "channel" else (), p.initial) for p in e.trainable]
    got = c_rendering(formula, x).forward(tensors, -1)
    wanted = formula.reference.forward(tensors, -1)
    torch.testing.assert_close(got[:6], wanted[:6], rtol=1e-5, atol=1e-7)
    assert not got[6:].isnan()[~wanted[6:].isnan()].any()


# --- repeatable, differentiable, traceable -------------------------------------------------------


@pytest.mark.parametrize("text", [MIXED, STATISTIC.format("tensor"), STATISTIC.format("features")])
def test_sums_are_equal_to_the_last_bit_for_every_number_of_threads(text: str):
    e = parse(text)
    formula = load(e)
    dy, tensors = draw(e, (3001, 47))
    dy, tensors = dy.float(), [t.float() for t in tensors]
    rendering = c_rendering(formula, dy)
    runs = []
    for k in range(10):
        torch.set_num_threads(1 + k % 3)
        runs.append(gradients(formula, rendering, dy, [t.clone() for t in tensors]))
    assert all(torch.equal(a, b) for run in runs for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("text", ["x * gompertz(x)", "x * sigmoid(b * x) where b = 1 per channel"])
def test_double_backward_goes_through_the_torch_rendering(text: str):
    e = parse(text)
    formula = load(e)
    tensors = [t.requires_grad_() for t in draw(e, (3, 5))[1]]
    f = lambda *t: apply_formula(formula, t[:1], t[1:], -1)  # noqa: E731
    assert torch.autograd.gradcheck(f, tensors)
    assert torch.autograd.gradgradcheck(f, tensors)


def test_a_parameter_of_an_unusual_shape_is_served_by_the_reference():
    formula = load(parse("x * sigmoid(b * x) where b = 1 per layer"))
    x, b = torch.randn(4, 3), torch.rand(4, 1)
    y = apply_formula(formula, [x], [b], -1)
    torch.testing.assert_close(y, x * torch.sigmoid(b * x))


def test_a_statistic_cuts_a_program_into_stages():
    lowered = lower(parse("x * tanh(std(x - mean(x) * x))"))
    stages = split_stages(lowered.forward, (), backward=False)
    assert [[s.finish for s in stage.sums] for stage in stages] == [["mean"], ["std"], []]
    assert [pattern for _, pattern in stages[-1].vectors] == ["features"]
    assert [stage.streams for stage in stages] == [("x",)] * 3


def test_parameters_may_have_the_names_of_operations_and_of_c():
    e = parse("t1 * x * sigmoid(t0 * x) + double where t0 = 1 per layer, t1 = 2 per layer,"
              " double = 0.5 per layer")  # fmt: skip
    compare(e, torch.float32, (7, 5))


def test_the_rendered_text_is_stable():
    """A change of the emitter must be seen: it is the cache's key and the reviewer's diff."""
    lowered = lower(parse("x * gompertz(b * x) where b = 1 per layer"))
    text = render(lowered, frozenset())
    assert text.partition("int backward")[0] == (
        f"int forward0_{lowered.key}(long n, const REAL *const *in, const REAL *scalars,"
        " REAL *const *out) {\n"
        "  const REAL *restrict in_v_x = in[0];\n"
        "  const REAL v_b = scalars[0];\n"
        "  REAL *restrict out_0 = out[0];\n"
        "  n &= ~15L;\n"
        "  Bits most = 0;\n"
        '  _Pragma("omp simd reduction(max: most)")\n'
        "  for (long i = 0; i < n; i++) {\n"
        "    const REAL v_x = in_v_x[i];\n"
        "    const __auto_type t0 = v_b * v_x;\n"
        "    const __auto_type t1 = gompertz(t0);\n"
        "    const __auto_type t2 = v_x * t1;\n"
        "    out_0[i] = t2;\n"
        "    most = most > size_bits(v_x) ? most : size_bits(v_x);\n"
        "  }\n"
        "  return most > size_bits(FAR);\n"
        "}\n\n"
    )
