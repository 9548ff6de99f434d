"""Kernels tried before they are trusted: right ones pass, wrong ones are caught and said once."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from search.errors import KernelError
from search.kernels.formula import Rendering
from search.kernels.triton_proof import ProvenTriton, load_proven, probe_shape, prove
from search.kernels.triton_rendering import TritonRendering, load_triton
from search.kernels.triton_tiles import memory, place_tile
from search.language.catalog import CATALOG
from search.language.parser import parse
from tests.cases import CASES
from tests.interpreted.test_kernels import CHANNEL, LAYER, STATISTIC, arguments, served

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
FEW = ("relu", "gelu", "golu", "dyn_mish", "prelu", "velu", "swiglu")
ROWS = [
    pytest.param(n, marks=() if n in FEW else pytest.mark.slow)
    for n in CATALOG
    if served(CATALOG[n].expression)
]  # the others run in the torch rendering
WRITTEN = [n for n, text in CASES.items() if not n.startswith("catalogue") and served(parse(text))]


def rendering_of(text: str) -> TritonRendering:
    return load_triton(CATALOG[text].expression if text in CATALOG else parse(text))


def wrong(text: str, kernels: str) -> TritonRendering:
    """The kernels of one formula, the reference of another with the same arguments."""
    return replace(rendering_of(kernels), reference=rendering_of(text).reference)


def gradients(rendering: Rendering, tensors: list[Tensor]) -> list[Tensor]:
    made = rendering.backward(torch.ones_like(tensors[0]), tensors, -1, [True] * len(tensors))
    return [g for g in made if g is not None]


def proof(rendering: TritonRendering, tensors: list[Tensor], channel_dim: int = -1) -> None:
    prove(rendering, tensors, channel_dim, None)
    prove(rendering, tensors, channel_dim, [True] * len(tensors))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ROWS)
def test_the_catalogue_is_accepted(name: str, dtype: torch.dtype):
    expression = CATALOG[name].expression
    proof(load_triton(expression), [t.to(dtype) for t in arguments(expression, (6, 40))])


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_every_case_is_accepted(name: str):
    expression = parse(CASES[name])
    proof(load_triton(expression), arguments(expression, (6, 40)))


@pytest.mark.parametrize("text", [CHANNEL, STATISTIC])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_every_layout_is_accepted(text: str, order):
    x, *parameters = arguments(parse(text), (2, 6, 5, 7), -3)
    proof(load_triton(parse(text)), [x.to(memory_format=order), *parameters], -3)


WRONG = {
    "value": ("x * sigmoid(x)", "x * sigmoid(1.001 * x)"),
    "slope": ("x * sigmoid(x)", "x * sigmoid(x) + 1e-3 * relu(1e-3 - abs(x - 1))"),
    "sum of a parameter": (LAYER, LAYER.replace("b * x", "b * x + 1e-3 * (b - 0.16)")),
    "NaN that is lost": ("relu(x)", "select(x > 0, x, 0)"),
    "infinity that is lost": ("x * step(x)", "clip(x * step(x), -1, 1e38)"),
    "statistic": ("x / rms(x)", "x / std(x)"),
    "channels": (CHANNEL, CHANNEL.replace("2 * x", "2.002 * x")),
}


@pytest.mark.parametrize("text, kernels", WRONG.values(), ids=WRONG)
def test_a_wrong_kernel_is_caught(text: str, kernels: str):
    with pytest.raises(KernelError, match=r"Triton gives .*, torch") as caught:
        proof(wrong(text, kernels), arguments(parse(text), (6, 40)))
    assert len(str(caught.value).splitlines()) == 1


def test_a_wrong_kernel_is_said_once_and_torch_serves(caplog: pytest.LogCaptureFixture):
    tensors = arguments(parse("x * sigmoid(x)"), (6, 40))
    rendering = ProvenTriton(wrong("x * sigmoid(x)", "x * sigmoid(1.01 * x)"), by_name=False)
    with caplog.at_level(logging.WARNING, "search.kernels"):
        for _ in range(2):
            assert torch.equal(rendering.forward(tensors, -1), tensors[0] * tensors[0].sigmoid())
            gradients(rendering, tensors)
    (line,) = caplog.messages
    assert "runs as torch operations: y at x = " in line and "\n" not in line
    assert "on cpu in float32" in line


def test_a_wrong_gradient_leaves_torch_s(caplog: pytest.LogCaptureFixture):
    """Its forward was proven and served; the backward's own proof catches it."""
    text, kernels = LAYER, LAYER.replace("b * x", "b * x + 1e-3 * (b - 0.16)")
    x = torch.linspace(-3, 3, 40)
    tensors = [x, torch.tensor(1.0), torch.tensor(0.16)]
    rendering = ProvenTriton(wrong(text, kernels), by_name=False)
    with caplog.at_level(logging.WARNING, "search.kernels"):
        given = gradients(rendering, tensors)
    exact = gradients(rendering.rendering.reference, tensors)
    assert all(torch.equal(a, b) for a, b in zip(given, exact, strict=True))
    assert len(caplog.messages) == 1 and "the gradient of b: Triton gives" in caplog.text


def test_by_name_a_wrong_kernel_is_an_error():
    tensors = arguments(parse("x * sigmoid(x)"), (6, 40))
    rendering = ProvenTriton(wrong("x * sigmoid(x)", "x * sigmoid(1.01 * x)"), by_name=True)
    with pytest.raises(KernelError, match=r"in float32: kernel 'triton': y at x = ") as caught:
        rendering.forward(tensors, -1)
    assert len(str(caught.value).splitlines()) == 1


def test_a_kernel_that_triton_cannot_build_is_said_once(caplog: pytest.LogCaptureFixture):
    right = rendering_of("x * sigmoid(x)")
    forward = right.lowered.forward
    operations = tuple(replace(o, function="unheard_of") for o in forward.operations)
    lowered = replace(right.lowered, forward=replace(forward, operations=operations))
    broken = replace(right, lowered=lowered, _modules={})
    tensors = [torch.linspace(-3, 3, 40)]
    with caplog.at_level(logging.WARNING, "search.kernels"):
        y = ProvenTriton(broken, by_name=False).forward(tensors, -1)
    assert torch.equal(y, right.reference.forward(tensors, -1))
    assert len(caplog.messages) == 1 and "unheard_of" in caplog.text
    with pytest.raises(KernelError, match="unheard_of"):
        ProvenTriton(broken, by_name=True).forward(tensors, -1)


def test_a_right_kernel_serves(caplog: pytest.LogCaptureFixture):
    text = "x * sigmoid(b * x) where b = 1 per layer"
    tensors = arguments(parse(text), (7, 33))
    rendering = load_proven(parse(text), by_name=False)
    direct = load_triton(parse(text))
    for _ in range(2):
        assert torch.equal(rendering.forward(tensors, -1), direct.forward(tensors, -1))
        pairs = zip(gradients(rendering, tensors), gradients(direct, tensors), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert not caplog.messages


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,)])
def test_empty_and_tiny_tensors_pass(shape: tuple[int, ...]):
    for text in ("x * sigmoid(x)", LAYER, CHANNEL if shape != () else LAYER, "x / rms(x)"):
        tensors = arguments(parse(text), shape)
        y = load_proven(parse(text), by_name=True).forward(tensors, -1)
        exact = load_triton(parse(text)).reference.forward(tensors, -1)
        torch.testing.assert_close(y, exact)


def test_a_caller_s_mistake_is_torch_s_error(caplog: pytest.LogCaptureFixture):
    rendering = load_proven(parse("u * sigmoid(x)"), by_name=False)
    with pytest.raises(RuntimeError, match="size of tensor"):
        rendering.forward([torch.ones(3), torch.ones(4)], -1)
    assert not caplog.messages


@pytest.mark.parametrize(
    "shape", [(64, 300), (4096, 65), (5, 1000), (8, 48, 14, 14), (3, 20, 7, 7), (2, 17, 33, 2)]
)
@pytest.mark.parametrize("text", [CHANNEL, STATISTIC])
def test_a_probe_takes_the_kernel_of_the_real_tensor(shape: tuple[int, ...], text: str):
    """The same tiles and the same remainders modulo 16: Triton compiles nothing twice."""
    rendering = load_triton(parse(text))
    x, dim = torch.empty(shape), -3 if len(shape) == 4 else -1
    small, small_dim = probe_shape(rendering, x, dim)
    tiles = [
        place_tile(memory(t, d), bool(rendering.over))
        for t, d in ((x, dim), (torch.empty(small), small_dim))
    ]
    a, b = tiles
    assert (a.layout, a.rows, a.columns, a.warps) == (b.layout, b.rows, b.columns, b.warps)
    for n, m in zip(a.sizes, b.sizes, strict=True):
        assert m <= n and n % 16 == m % 16 and (n == 1) == (m == 1)
