"""The torch rendering: values and every gradient against float64, in every dtype and situation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search.kernels.formula import load_formula
from search.kernels.operators import apply_formula
from search.kernels.program import lower
from search.kernels.torch_code import render
from search.language.evaluate import evaluate
from search.language.expression import Expression
from search.language.parser import parse
from tests.cases import CASES

EXPRESSIONS = [pytest.param(parse(text), id=name) for name, text in CASES.items()]


def sample(expression: Expression, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Inputs (3, 5) away from kinks, and the parameters moved off their initial values."""
    generator = torch.Generator().manual_seed(3)
    x, u = (1.5 * torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in "xu")
    inputs = [x, u][: len(expression.inputs)]
    parameters = [
        torch.full((5,) if p.scope == "channel" else (), p.initial, dtype=torch.float64)
        + 0.05 * (k + 1)
        for k, p in enumerate(expression.trainable)
    ]
    return [t.to(dtype).requires_grad_() for t in (*inputs, *parameters)]


def split(expression: Expression, tensors) -> tuple[tuple, tuple]:
    n = len(expression.inputs)
    return tuple(tensors[:n]), tuple(tensors[n:])


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_forward_equals_the_float64_reference(expression: Expression):
    tensors = sample(expression)
    inputs, parameters = split(expression, tensors)
    y = apply_formula(load_formula(expression), inputs, parameters, -1).detach().numpy()
    names = {
        p.name: t.detach().numpy() for p, t in zip(expression.trainable, parameters, strict=True)
    }
    exact = evaluate(
        expression.body,
        {name: t.detach().numpy() for name, t in zip(expression.inputs, inputs, strict=True)},
        {**expression.initial, **names},
    )
    scale = np.maximum(np.abs(exact), 1.0)
    operations = len(lower(expression).forward.operations) + 1
    assert (np.abs(y - exact) / scale).max() <= 8 * operations * np.finfo(np.float64).eps


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_gradients_of_inputs_parameters_and_statistics(expression: Expression):
    formula, tensors = load_formula(expression), sample(expression)

    def f(*tensors: torch.Tensor) -> torch.Tensor:
        return apply_formula(formula, *split(expression, tensors), -1)

    if "detach" in str(expression):
        return  # differs from finite differences by design; the next but one test has its own
    assert torch.autograd.gradcheck(f, tensors)


@pytest.mark.parametrize(
    "text", ["x * gompertz(x)", "u * silu(x)", "x * sigmoid(b * x) where b = 1 per channel"]
)
def test_double_backward(text: str):
    expression = parse(text)
    formula, tensors = load_formula(expression), sample(expression)
    f = lambda *t: apply_formula(formula, *split(expression, t), -1)  # noqa: E731
    assert torch.autograd.gradgradcheck(f, tensors)


def test_a_detached_statistic_is_a_constant_to_the_gradient():
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    y = apply_formula(load_formula(parse("x / std(x, detach)")), (x,), (), -1)
    (dx,) = torch.autograd.grad(y.sum(), x)
    expected = (1 / x.std(dim=-1, correction=0, keepdim=True)).expand_as(x).detach()
    torch.testing.assert_close(dx, expected)


@pytest.mark.parametrize(
    "over, dims", [("features", (1,)), ("sample", (1, 2, 3)), ("tensor", (0, 1, 2, 3))]
)
def test_statistics_reduce_the_dimensions_they_name(over: str, dims: tuple[int, ...]):
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    y = apply_formula(load_formula(parse(f"x * std(x, over={over})")), (x,), (), -3)
    torch.testing.assert_close(y, x * x.std(dim=dims, correction=0, keepdim=True))


def test_a_constant_row_has_no_gradient_through_its_spread():
    x = torch.zeros(2, 4, requires_grad=True)
    for kind in ("std", "rms"):
        y = apply_formula(load_formula(parse(f"x + {kind}(x)")), (x,), (), -1)
        (dx,) = torch.autograd.grad(y.sum(), x)
        assert torch.isfinite(dx).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["relu", "silu", "gelu", "mish", "golu", "arcsin_gate", "select"])
def test_every_16_bit_input_is_rounded_once(name: str, dtype: torch.dtype):
    """All 65,536 inputs: value and slope within one rounding of float64, NaN where it is NaN."""
    text = {
        "arcsin_gate": "x * arcsin_gate(x)",
        "select": "select(x > 0, x, expm1(x))",
        "relu": "relu(x)",
    }.get(name, f"{name}(x)")
    formula = load_formula(parse(text))
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    x = bits.view(dtype)
    x = x[torch.isfinite(x)]
    for given, wanted in zip(_both(formula, x), _both(formula, x.double()), strict=True):
        rounded = wanted.to(dtype)
        finite = torch.isfinite(rounded)
        assert torch.equal(torch.isnan(given), torch.isnan(rounded))
        spacing = (torch.finfo(dtype).eps * wanted.abs()).clamp_min(torch.finfo(dtype).tiny * 2)
        tail = 2e-7 * x.double().abs().clamp_min(1.0)
        error = (given.double() - wanted).abs()
        assert (error <= torch.maximum(spacing, tail))[finite].all()


def _both(formula, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    y = apply_formula(formula, (x,), (), -1)
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    return y.detach(), dx


@pytest.mark.parametrize("text", ["relu(x)", "x * gompertz(x)", "mish(x)", "clip(x, -1, 1)"])
def test_nan_is_never_masked(text: str):
    formula = load_formula(parse(text))
    x = torch.tensor([float("nan"), 0.5, -30.0], requires_grad=True)
    y = apply_formula(formula, (x,), (), -1)
    (dx,) = torch.autograd.grad(y, x, torch.tensor([1.0, float("nan"), float("nan")]))
    assert y.isnan().tolist() == [True, False, False]
    assert dx.isnan().all()


def test_no_gradient_is_nan_where_the_branch_not_taken_overflows():
    x = torch.tensor([1000.0, -1000.0], requires_grad=True)
    y = apply_formula(load_formula(parse("select(x > 0, x, expm1(x))")), (x,), (), -1)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert dx.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("shape", [(0,), (), (1,), (3, 0, 2)])
def test_empty_and_zero_dimensional_inputs(shape: tuple[int, ...]):
    x = torch.zeros(shape, requires_grad=True)
    y = apply_formula(load_formula(parse("x * gompertz(x)")), (x,), (), -1)
    y.sum().backward()
    assert y.shape == shape and x.grad is not None and x.grad.shape == shape


def test_only_inputs_and_parameters_are_saved():
    saved: list[torch.Tensor] = []
    expression = parse("(a - b) * mish(x) + b * x where a = 1 per layer, b = 0 per layer")
    tensors = sample(expression)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        apply_formula(load_formula(expression), *split(expression, tensors), -1)
    assert [id(t) for t in saved] == [id(t) for t in tensors]


def test_equal_subformulas_are_computed_once():
    program = lower(parse("exp(x) * exp(x) + exp(x)")).forward
    assert [op.function for op in program.operations].count("exp") == 1


def test_whole_powers_become_products_and_keep_signs():
    program = lower(parse("x ** 5")).forward
    assert {op.function for op in program.operations} == {"mul"}
    x = torch.tensor([-2.0, 3.0], dtype=torch.float64)
    y = apply_formula(load_formula(parse("x ** 5")), (x,), (), -1)
    assert y.tolist() == [-32.0, 243.0]


def test_the_rendered_text_is_stable():
    """A change of the emitter must be seen: it is the cache's key and the reviewer's diff."""
    text = render(lower(parse("x * gompertz(b * x) where b = 1 per layer")), "example")
    body = text[text.index("def forward") :]
    assert body == (
        "def forward(x, p_b, *, features, sample, tensor):\n"
        "    t0 = p_b * x\n"
        "    t1 = torch.exp(-torch.exp(-torch.clamp_min(t0, -7.0)))\n"
        "    t2 = x * t1\n"
        "    return t2\n"
        "\n\n\n"
        "def backward(dy, x, p_b, *, features, sample, tensor):\n"
        "    t0 = p_b * x\n"
        "    t1 = torch.exp(-torch.exp(-torch.clamp_min(t0, -7.0)))\n"
        "    t2 = (lambda a: torch.exp(-a - torch.exp(-a)))(torch.clamp_min(t0, -7.0))\n"
        "    t3 = x * t2\n"
        "    t4 = t3 * p_b\n"
        "    t5 = t1 + t4\n"
        "    t6 = dy * t5\n"
        "    t7 = t3 * x\n"
        "    t8 = dy * t7\n"
        "    return (t6, t8,)\n"
    )
