"""Formulas under torch.func, compiled, exported, checkpointed, differentiated twice."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint

from search.activation import Activation
from search.kernels.abreast import apply_abreast
from search.kernels.members import stack_members
from search.kernels.operators import apply_formula
from search.language.expression import Expression
from search.language.parser import parse

FORMULAS = {
    "pointwise": "golu(x)",
    "per layer": "(a - b) * mish(x) + b * x where a = 0.9 per layer, b = 0.1 per layer",
    "per channel": "x * sigmoid(b * x) where b = 0.7 per channel",
    "both scopes": "a * x * sigmoid(b * x) where a = 0.9 per layer, b = 0.7 per channel",
    "of a tensor": "x * (a + 0.1 * tanh(std(x, over=tensor))) where a = 1.1 per layer",
    "of a sample": "x / rms(x, over=sample)",
    "of features": "x * a / rms(x) where a = 1.3 per layer",
    "detached": "x * (1 + 0.1 * tanh(std(x, detach)))",
}
MEMBERS, SHAPE = 3, (4, 5)


def members_of(formula: str, kernel: str) -> tuple[Activation, dict[str, Tensor], Tensor]:
    """An activation, the parameters of some members, and an input of each."""
    activation = Activation(formula, channels=SHAPE[-1], kernel=kernel).double()
    draw = torch.Generator().manual_seed(1)
    values = {
        name: p.detach() + 0.3 * torch.rand(MEMBERS, *p.shape, generator=draw, dtype=torch.double)
        for name, p in activation.named_parameters()
    }
    return activation, values, torch.randn(MEMBERS, *SHAPE, generator=draw, dtype=torch.double)


def loss_of(activation: Activation):
    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(activation, parameters, (x,)).sin().sum()

    return loss


@pytest.mark.parametrize("kernel", ["c", "torch"])
@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_members_at_once_are_the_members_in_turn(formula: str, kernel: str):
    activation, values, x = members_of(formula, kernel)
    loss = loss_of(activation)
    together = vmap(grad(loss, argnums=(0, 1)))(values, x)
    for k in range(MEMBERS):
        own = {name: value[k].clone().requires_grad_() for name, value in values.items()}
        mine = x[k].clone().requires_grad_()
        loss(own, mine).backward()
        torch.testing.assert_close(together[1][k], mine.grad)
        for name, value in own.items():
            torch.testing.assert_close(together[0][name][k], value.grad)


@pytest.mark.parametrize("shape", [SHAPE, (2, *SHAPE)])
@pytest.mark.parametrize("kernel", ["c", "torch"])
@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_members_abreast_are_the_members_in_turn(formula: str, kernel: str, shape: tuple[int, ...]):
    activation, values, _ = members_of(formula, kernel)
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(MEMBERS, *shape, generator=draw, dtype=torch.double, requires_grad=True)
    own = [values[p.name].clone().requires_grad_() for p in activation.expression.trainable]
    y = apply_abreast(activation._formula, x, own, -1)
    found = torch.autograd.grad(y.sin().sum(), [x, *own])
    for k in range(MEMBERS):
        mine = [t.detach()[k].requires_grad_() for t in (x, *own)]
        alone = apply_formula(activation._formula, mine[:1], mine[1:], -1)
        torch.testing.assert_close(y[k], alone)
        for g, wanted in zip(found, torch.autograd.grad(alone.sin().sum(), mine), strict=True):
            torch.testing.assert_close(g[k], wanted)


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_members_may_share_parameters_or_the_input(formula: str):
    activation, values, x = members_of(formula, "c")
    loss = loss_of(activation)
    first = {name: value[0] for name, value in values.items()}
    slopes = vmap(grad(loss, argnums=(0, 1)), in_dims=(None, 1))(first, x.movedim(0, 1))
    for k in range(MEMBERS):
        wanted = grad(loss, argnums=(0, 1))(first, x[k])
        torch.testing.assert_close(slopes[1][k], wanted[1])
        for name in first:
            torch.testing.assert_close(slopes[0][name][k], wanted[0][name])
    if values:
        y = vmap(lambda own: functional_call(activation, own, (x[0],)))(values)
        for k in range(MEMBERS):
            own = {name: value[k] for name, value in values.items()}
            torch.testing.assert_close(y[k], functional_call(activation, own, (x[0],)))


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_the_second_derivative_under_transforms(formula: str):
    activation, values, x = members_of(formula, "c")
    composed = Activation(formula, channels=SHAPE[-1], kernel="composed").double()

    def curvature(module: Activation) -> Any:
        loss = loss_of(module)
        along = lambda own, x: grad(loss, argnums=1)(own, x).cos().sum()  # noqa: E731
        return vmap(grad(along, argnums=(0, 1)))(values, x)

    got, wanted = curvature(activation), curvature(composed)
    torch.testing.assert_close(got[1], wanted[1])
    for name in values:
        torch.testing.assert_close(got[0][name], wanted[0][name])


def test_members_within_members():
    activation, values, x = members_of(FORMULAS["per layer"], "c")
    twice = torch.stack([x, 2 * x])
    inner = vmap(grad(loss_of(activation), argnums=1))
    got = vmap(inner, in_dims=(None, 0))(values, twice)
    torch.testing.assert_close(got, torch.stack([inner(values, x), inner(values, 2 * x)]))


@pytest.mark.parametrize(
    ("formula", "own", "wanted"),
    [
        ("golu(x)", False, "golu(x)"),
        ("a * x where a = 1 per layer", True, "a * x where a = 1 per channel"),
        ("a * x where a = 1 per layer", False, "a * x where a = 1 per layer"),
        ("x * std(x, over=tensor)", False, "x * std(x, over=sample)"),
        ("x * std(x)", False, "x * std(x)"),
        ("x * std(x, over=sample)", False, None),
        ("a * x * std(x) where a = 1 per layer", True, None),
        ("a * x where a = 1 per channel", True, None),
    ],
)
def test_which_members_are_one_call(formula: str, own: bool, wanted: str | None):
    expected: Expression | None = None if wanted is None else parse(wanted)
    assert stack_members(parse(formula), own_parameters=own) == expected


@pytest.fixture
def quiet():
    """torch's own warnings while it traces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("formula", "shape"),
    [
        *((FORMULAS[name], (6, 5)) for name in ("pointwise", "both scopes", "of features")),
        *((FORMULAS["per channel"], shape) for shape in [(2, 5, 3, 3), (0, 5), (5,)]),
    ],
)
def test_opcheck(formula: str, shape: tuple[int, ...]):
    activation = Activation(formula, channels=5, kernel="c")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = x.to(memory_format=torch.channels_last) if x.ndim == 4 else x
    dim = 1 - x.ndim if x.ndim == 4 else -1
    ones = (1,) * (-dim - 1)
    parameters = [p.detach().view(-1, *ones) if p.ndim else p for p in activation.parameters()]
    tensors = [x.requires_grad_(), *(p.detach().requires_grad_() for p in parameters)]
    call = tensors, str(activation.expression), "c", dim
    torch.library.opcheck(torch.ops.search.activation.default, call)
    dy = torch.randn_like(x)
    torch.library.opcheck(torch.ops.search.activation_backward.default, (dy, *call))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("kernel", ["c", "auto"])
@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_compiled_whole_with_gradients(formula: str, kernel: str):
    model = nn.Sequential(nn.Linear(5, 5), Activation(formula, channels=5, kernel=kernel))
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    wanted = gradients(model, model, x)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(model, compiled, x), wanted)


def gradients(model: nn.Module, call: Any, x: Tensor) -> list[Tensor]:
    y = call(x)
    return [y.detach(), *torch.autograd.grad(y.sin().sum(), list(model.parameters()))]


@pytest.mark.parametrize(("kernel", "opaque"), [("c", True), ("auto", False)])
def test_an_exported_program_names_its_formula(kernel: str, opaque: bool):
    activation = Activation(FORMULAS["per layer"], kernel=kernel)
    x = torch.randn(4, 5)
    program = torch.export.export(activation, (x,))
    calls = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert ("search.activation.default" in calls) is opaque
    torch.testing.assert_close(program.module()(x), activation(x))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_recomputes_the_same(reentrant: bool):
    activation = Activation(FORMULAS["of features"])
    x = torch.randn(6, 5, requires_grad=True)
    checkpoint(activation, x, use_reentrant=reentrant).sin().sum().backward()
    got = [x.grad, *(p.grad for p in activation.parameters())]
    wanted = torch.autograd.grad(activation(x).sin().sum(), [x, *activation.parameters()])
    for given, right in zip(got, wanted, strict=True):
        torch.testing.assert_close(given, right)


@pytest.mark.usefixtures("quiet")
def test_composed_is_torchs_own_autograd_and_knows_forward_mode():
    x = torch.randn(4, 5, dtype=torch.double)
    composed, fused = Activation("golu(x)", kernel="composed"), Activation("golu(x)")
    slope = torch.func.jvp(composed, (x,), (torch.ones_like(x),))[1]
    torch.testing.assert_close(slope, grad(lambda x: fused(x).sum())(x))
