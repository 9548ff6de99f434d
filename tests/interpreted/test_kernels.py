"""Triton's kernels, run by its interpreter, against float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from search.kernels.triton_rendering import TritonRendering, load_triton
from search.language.catalog import CATALOG
from search.language.expression import Expression, Statistic, walk
from search.language.parser import parse
from tests.cases import CASES, LIMITS, has_statistics, moved_parameters

# NumPy, under the interpreter, warns of the infinities that a choice does not choose.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
CHANNEL = "(a + b * tanh(2 * x)) * x where a = 1/3 per layer, b = 0.5 per channel"
LAYER = "(a - b) * mish(x) + b * x where a = 1 per layer, b = 0.1 per layer"
STATISTIC = (
    "x * (1 + g * tanh(m / rms(s * x)))"
    " where g = 0.1 per layer, m = 0.9 per channel, s = 1 per layer"
)


def arguments(
    expression: Expression, shape: tuple[int, ...], channel_dim: int = -1
) -> list[Tensor]:
    """x, u, then the parameters moved off their initial values, float32."""
    generator = torch.Generator().manual_seed(5)
    inputs = [1.5 * torch.randn(shape, generator=generator) for _ in expression.inputs]
    values = moved_parameters(expression)
    width = (shape[channel_dim], *(1,) * (-channel_dim - 1)) if shape else ()
    for p in expression.trainable:
        size = width if p.scope == "channel" else ()
        inputs.append(values[p.name] + 0.05 * torch.rand(size, generator=generator))
    return inputs


def both(
    rendering: TritonRendering, tensors: list[Tensor], dy: Tensor, channel_dim: int = -1
) -> tuple[list[Tensor], list[Tensor]]:
    """y and every gradient: by the interpreter in float32, by the torch rendering in float64."""
    assert rendering.serves(tensors, channel_dim)
    needed, wide = [True] * len(tensors), [t.double() for t in tensors]
    given = [
        rendering.forward(tensors, channel_dim),
        *rendering.backward(dy, tensors, channel_dim, needed),
    ]
    reference = rendering.reference
    exact = [
        reference.forward(wide, channel_dim),
        *reference.backward(dy.double(), wide, channel_dim, needed),
    ]
    return given, exact  # type: ignore[return-value]


def agree(given: list[Tensor], exact: list[Tensor], roundings: int = 64) -> None:
    """Equal to a number of float32 roundings of the largest term."""
    for a, b in zip(given, exact, strict=True):
        assert a.shape == b.shape
        scale = 1.0 + b.abs().max() if b.numel() else 1.0
        assert ((a.double() - b).abs() <= roundings * torch.finfo(torch.float32).eps * scale).all()


def served(expression: Expression) -> bool:
    overs = {n.over for n in walk(expression.body) if isinstance(n, Statistic)}
    per_channel = any(p.scope == "channel" for p in expression.trainable)
    return not overs - {"features"} or (len(overs) == 1 and not per_channel)


@pytest.mark.parametrize("name", [n for n, t in CASES.items() if served(parse(t))])
def test_every_case_and_gradient(name: str):
    expression = parse(CASES[name])
    tensors = arguments(expression, (3, 37))
    generator = torch.Generator().manual_seed(7)
    given, exact = both(load_triton(expression), tensors, torch.randn(3, 37, generator=generator))
    agree(given, exact)


@pytest.mark.parametrize("text", [CHANNEL, STATISTIC, "velu", "poly_norm", "prelu"])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (3, 5, 4, 4), (1, 1, 3, 3), (2, 6, 1, 1)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_channels_in_both_orders_of_memory(text: str, shape: tuple[int, ...], order):
    expression = CATALOG[text].expression if text in CATALOG else parse(text)
    x, *parameters = arguments(expression, shape, -3)
    x = x.to(memory_format=order)
    dy = torch.randn(shape, generator=torch.Generator().manual_seed(7)).to(memory_format=order)
    rendering = load_triton(expression)
    given, exact = both(rendering, [x, *parameters], dy, -3)
    agree(given, exact)
    assert given[0].stride() == x.stride() and given[1].stride() == x.stride()


@pytest.mark.parametrize("over", ["sample", "tensor"])
@pytest.mark.parametrize("shape", [(13, 37), (2, 3, 5, 7), (5, 2000), (40,)])
def test_statistics_of_samples_and_the_tensor(over: str, shape: tuple[int, ...]):
    text = f"x * var(x - b * mean(x, over={over}), over={over}) where b = 0.5 per layer"
    expression = parse(text)
    dy = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    agree(*both(load_triton(expression), arguments(expression, shape), dy))


@pytest.mark.parametrize("rest", range(16))
def test_sizes_that_no_vector_divides(rest: int):
    for text, n in (("golu", 1024 + rest), (LAYER, 2048 + 16 + rest), (CHANNEL, 16 + rest)):
        expression = CATALOG[text].expression if text in CATALOG else parse(text)
        shape = (7, n) if text == CHANNEL else (n,)
        dy = torch.randn(shape, generator=torch.Generator().manual_seed(7))
        agree(*both(load_triton(expression), arguments(expression, shape), dy))


@pytest.mark.parametrize("text", ["x * gompertz(x)", LAYER, CHANNEL])
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 0, 2)])
def test_empty_and_tiny(text: str, shape: tuple[int, ...]):
    expression = parse(text)
    agree(*both(load_triton(expression), arguments(expression, shape), torch.ones(shape)))


def test_no_dimensions():
    expression = parse(LAYER)
    agree(*both(load_triton(expression), arguments(expression, ()), torch.ones(())))


def test_slices_transposes_and_expanded_gradients():
    rendering = load_triton(parse("u * silu(x)"))
    h = torch.randn(6, 64, generator=torch.Generator().manual_seed(3))
    x, u = h.chunk(2, dim=-1)
    agree(*both(rendering, [x, u], torch.ones(()).expand(6, 32)))
    agree(*both(rendering, [x.t(), u.t()], torch.ones(1, 6).expand(32, 6)))
    agree(*both(rendering, [h.t()[:32], u.t().contiguous()], torch.ones(32, 6)))


def test_dense_memory_is_not_copied():
    rendering = load_triton(parse("x * gompertz(x)"))
    x = torch.randn(4, 6, 5).permute(2, 0, 1)
    assert rendering.forward((x,), -1).stride() == x.stride()


def test_nan_reaches_every_gradient():
    nan = float("nan")
    rendering = load_triton(parse(LAYER))
    x = torch.tensor([nan, 0.5, -30.0, 30.0])
    tensors = [x, torch.tensor(1.0), torch.tensor(0.1)]
    y = rendering.forward(tensors, -1)
    dx, da, db = rendering.backward(torch.tensor([1.0, nan, nan, nan]), tensors, -1, [True] * 3)
    assert y.isnan().tolist() == [True, False, False, False]
    assert dx is not None and dx.isnan().all()
    assert da is not None and da.isnan() and db is not None and db.isnan()


@pytest.mark.parametrize("text", ["relu(x)", "max(x, 0.1 * x)", "clip(x, -1, 1)", "x * step(x)"])
def test_nan_passes_every_choice(text: str):
    rendering = load_triton(parse(text))
    x = torch.tensor([float("nan"), 0.5])
    (dx,) = rendering.backward(torch.tensor([1.0, float("nan")]), [x], -1, [True])
    assert rendering.forward([x], -1).isnan().tolist() == [True, False]
    assert dx is not None and dx.isnan().all()


@pytest.mark.parametrize("text", [LAYER, CHANNEL, STATISTIC])
def test_gradients_repeat_to_the_bit(text: str):
    expression = parse(text)
    tensors, dy = arguments(expression, (37, 65)), torch.randn(37, 65)
    first, *others = (
        load_triton(expression).backward(dy, tensors, -1, [True] * len(tensors)) for _ in range(3)
    )
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))  # type: ignore[arg-type]


def test_only_the_gradients_that_are_needed():
    expression = parse("u * (sigmoid(x) * (1 + 2 * a) - a) where a = 0.1 per layer")
    rendering, tensors = (
        load_triton(expression),
        arguments(parse("u * x * a where a = 1 per layer"), (5, 7)),
    )
    whole = rendering.backward(torch.ones(5, 7), tensors, -1, [True] * 3)
    for needed in ([True, False, False], [False, True, False], [False, False, True]):
        some = rendering.backward(torch.ones(5, 7), tensors, -1, needed)
        for a, b, wanted in zip(some, whole, needed, strict=True):
            assert (a is None) != wanted and (a is None or torch.equal(a, b))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "text", ["pau", "sinlu", "u * (sigmoid(x) * (1 + 2 * a) - a) where a = 0.1 per layer"]
)
def test_the_form_for_few_registers_gives_the_same(text: str, dtype: torch.dtype):
    """`gradients_in_turn`, which a launch takes where `gradients` takes too many registers."""
    expression = CATALOG[text].expression if text in CATALOG else parse(text)
    n, count, programs = 3 * 1024 + 77, len(expression.inputs), 2
    x = [t.to(dtype) for t in arguments(expression, (n,))]
    x[0][1500] = 1e5  # sinlu's second tile reduces its angles the long way
    dy = torch.randn(n, generator=torch.Generator().manual_seed(7)).to(dtype)
    module, found = load_triton(expression)._module("flat"), list[list[Tensor]]()
    tail = 1024 * dtype.itemsize // 16
    for kernel, constants in (("gradients", (tail,)), ("gradients_in_turn", (128, False))):
        slopes = [torch.empty_like(t) for t in x[:count]]
        sums = torch.empty(len(expression.trainable), programs)
        given = (dy, *x, *slopes, sums, n, 1024, *constants)
        getattr(module, kernel)[(programs,)](*given)
        found.append([*slopes, sums.sum(1)])
    assert all(torch.equal(a, b) for a, b in zip(found[0][:count], found[1][:count], strict=True))
    torch.testing.assert_close(found[1][count], found[0][count], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", ["poly_norm", STATISTIC])
def test_the_form_for_few_registers_gives_the_same_across_channels(text: str):
    expression = CATALOG[text].expression if text in CATALOG else parse(text)
    outer, channels, inner, programs = 3, 5, 20, 2
    x, *parameters = arguments(expression, (outer, channels, inner), -2)
    dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    module, found = load_triton(expression)._module("across"), list[tuple[Tensor, Tensor]]()
    for kernel, constants in (("gradients", ()), ("gradients_in_turn", (False,))):
        dx, sums = torch.empty_like(x), torch.zeros(len(parameters), programs * channels)
        given = (dy, x, *parameters, dx, sums, outer, channels, inner, 16, 8, *constants)
        getattr(module, kernel)[(programs,)](*given)
        found.append((dx, sums))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)
    assert found[0][0].abs().sum() > 0 and found[0][1].abs().sum() > 0


@pytest.mark.parametrize("size", [64, 2048])
def test_large_angles_are_those_of_whole_turns_less(size: int):
    """Up to the largest float32, in tiles of every kind; small ones beside them stay themselves."""
    x = torch.logspace(3.0, 38.5, size) * (-1.0) ** torch.arange(size)
    x[::3] = torch.linspace(-8.0, 8.0, size)[::3]
    x[-1] = torch.finfo(torch.float32).max
    rendering = load_triton(parse("sin(x)"))
    (dx,) = rendering.backward(torch.ones(size), [x], -1, [True])
    assert dx is not None
    assert (rendering.forward([x], -1).double() - x.double().sin()).abs().max() < 3e-7
    assert (dx.double() - x.double().cos()).abs().max() < 3e-7


def test_what_no_kernel_serves_runs_in_torch():
    rendering = load_triton(parse("x * std(x, over=tensor) + mean(x)"))
    x = torch.randn(3, 4)
    assert not rendering.serves([x], -1) and not load_triton(parse("x")).serves([x.double()], -1)
    torch.testing.assert_close(
        rendering.forward([x], -1), x * x.std(correction=0) + x.mean(-1, keepdim=True)
    )


def test_16_bit_tensors_and_parameters():
    """The interpreter cuts float32 to bfloat16 where hardware rounds: a whole spacing."""
    expression = parse(CHANNEL)
    for dtype in (torch.bfloat16, torch.float16):
        tensors = [t.to(dtype) for t in arguments(expression, (9, 32))]
        given, exact = both(load_triton(expression), tensors, torch.ones(9, 32, dtype=dtype))
        assert all(g.dtype == dtype for g in given)
        for a, b in zip(given, exact, strict=True):
            spacing = torch.finfo(dtype).eps * b.abs().clamp_min(1e-3)
            assert ((a.double() - b).abs() <= spacing + 1e-4).all()


def test_statistics_of_cases_are_served_over_features():
    assert has_statistics(parse(STATISTIC)) and served(parse(STATISTIC))


@pytest.mark.parametrize("text", list(LIMITS))
def test_infinity_gives_the_limit(text: str):
    x = torch.tensor([-math.inf, math.inf])
    rendering = load_triton(parse(text))
    (dx,) = rendering.backward(torch.ones(2), [x], -1, [True])
    assert dx is not None
    got = torch.cat([rendering.forward([x], -1), dx])
    wanted = torch.tensor(LIMITS[text])
    torch.testing.assert_close(got, wanted, equal_nan=True, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("x * sigmoid(b * x) where b = 1 per layer", False),
        ("x * sigmoid(b * x) where b = 1 per channel", True),
    ],
)
def test_parameters_decide_whether_there_is_a_limit(text: str, channels: bool):
    rendering, nan, inf = load_triton(parse(text)), math.nan, math.inf
    x = torch.tensor([[-inf, inf, nan, 0.0, -1e30]]).T
    wanted = {2.0: [0.0, inf, nan, 0.0, 0.0], -2.0: [-inf, 0.0, nan, 0.0, -1e30]}
    for b, values in wanted.items():
        given = rendering.forward([x, torch.tensor([b] if channels else b)], -1).flatten()
        assert torch.equal(given.nan_to_num(nan=7.0), torch.tensor(values).nan_to_num(nan=7.0))
    start = load_triton(CATALOG["dyn_mish"].expression)
    given = start.forward([x[:2], torch.tensor(1.0), torch.tensor(0.0)], -1)
    assert given.flatten().tolist() == [0.0, inf]
    given = start.forward([x[:2], torch.tensor(1.0), torch.tensor(0.5)], -1)
    assert given.flatten().tolist() == [-inf, inf]


def test_the_values_of_the_catalogue_at_infinity_are_limits():
    """NaN are those of waves, which have none, and pau's, whose parts overflow."""
    lost = set[str]()
    for name, row in CATALOG.items():
        e = row.expression
        if has_statistics(e):
            continue
        x = torch.tensor([[-math.inf], [math.inf]])
        own = [torch.full((1,) if p.scope == "channel" else (), p.initial) for p in e.trainable]
        tensors = [x, *(torch.full_like(x, 0.75) for _ in e.inputs[1:]), *own]
        lost |= {name} if load_triton(e).forward(tensors, -1).isnan().any() else set()
    assert lost == {"gcu", "sin", "min_x_sin", "pau"}
