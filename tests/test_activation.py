"""Activation as a module: state, laziness, dtypes, compilation, penalty, replacement in models."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from search.activation import Activation
from search.errors import ExpressionError, TaskError
from search.replacement import replace_activations

SWISH = "x * sigmoid(b * x) where b = 1 per channel"
VELU = (
    "lam * x * sigmoid(0.1 * x) where lam = 1 per layer"
    " penalty mean(x, over=tensor)**2 + (std(x, over=tensor) - 1)**2"
)


def test_parameters_are_named_as_declared_and_ride_in_the_state_dict():
    activation = Activation(
        "(a - c) * x + c * silu(x) where a = 1 per layer, c = 0.5 per channel", 3
    )
    state = activation.state_dict()
    assert {name: tuple(t.shape) for name, t in state.items()} == {"a": (), "c": (3,)}
    other = Activation(activation.expression, 3)
    with torch.no_grad():
        activation.get_parameter("c").mul_(3.0)
    other.load_state_dict(activation.state_dict())
    assert torch.equal(other.get_parameter("c"), activation.get_parameter("c"))


def test_channels_are_read_off_the_first_input():
    activation = Activation(SWISH)
    assert activation.has_uninitialized()
    activation(torch.randn(2, 7))
    assert tuple(activation.get_parameter("b").shape) == (7,)
    image = Activation(SWISH)
    image(torch.randn(2, 5, 4, 4))
    assert tuple(image.get_parameter("b").shape) == (5,)


def test_per_channel_parameters_broadcast_along_the_channel_dimension():
    x = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    activation = Activation(SWISH, channels=5).double()
    with torch.no_grad():
        activation.get_parameter("b").copy_(torch.arange(5.0))
    expected = x * torch.sigmoid(torch.arange(5.0, dtype=torch.float64).view(5, 1, 1) * x)
    torch.testing.assert_close(activation(x), expected)
    moved = Activation(SWISH, channels=5, channel_dim=-1).double()
    moved.load_state_dict(activation.state_dict())
    torch.testing.assert_close(moved(x.movedim(1, -1)).movedim(-1, 1), expected)


def test_a_lazy_activation_takes_its_size_from_a_state_dict():
    known = Activation(SWISH, channels=4)
    lazy = Activation(SWISH)
    lazy.load_state_dict(known.state_dict())
    assert tuple(lazy.get_parameter("b").shape) == (4,)


@pytest.mark.parametrize("lazy", [False, True])
def test_copies_and_pickles(lazy: bool):
    activation = Activation(VELU if not lazy else SWISH)
    x = torch.randn(4, 6)
    if not lazy:
        activation(x)
    for twin in (copy.deepcopy(activation), pickle.loads(pickle.dumps(activation))):
        torch.testing.assert_close(twin(x), activation(x))
        assert not set(map(id, twin.parameters())) & set(map(id, activation.parameters()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_output_has_the_dtype_and_shape_of_the_input(dtype: torch.dtype):
    activation = Activation("x * sigmoid(b * x) where b = 1 per layer")
    x = torch.randn(3, 4, dtype=torch.float64).to(dtype).requires_grad_()
    y = activation(x)
    y.sum().backward()
    assert y.dtype == dtype and x.grad is not None and x.grad.dtype == dtype
    slope = activation.get_parameter("b").grad
    assert slope is not None and slope.dtype == torch.float32
    tolerance = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        y.double(), torch.nn.functional.silu(x.double()), rtol=max(tolerance, 1e-6), atol=1e-6
    )


def test_half_precision_is_computed_in_float32():
    x = torch.linspace(-8, 8, 1001).to(torch.bfloat16)
    y = Activation("x * gompertz(x)")(x)
    exact = (x.double() * torch.exp(-torch.exp(-x.double()))).to(torch.bfloat16)
    assert torch.equal(y, exact)


def test_compiles_to_one_graph():
    activation = Activation("(a - b) * mish(x) + b * x where a = 0.9 per layer, b = 0.1 per layer")
    x = torch.randn(16, 32, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own compile-time warnings
        compiled = torch.compile(activation, fullgraph=True, backend="aot_eager")
        y = compiled(x)
    y.sum().backward()
    a = activation.get_parameter("a")
    got = (y.detach(), x.grad, a.grad)
    x.grad, a.grad = None, None
    activation(x).sum().backward()
    for given, wanted in zip(got, (activation(x).detach(), x.grad, a.grad), strict=True):
        torch.testing.assert_close(given, wanted)


def test_autocast_keeps_the_input_dtype():
    linear, activation = nn.Linear(8, 8), Activation("golu(x)")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = activation(linear(torch.randn(4, 8)))
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert linear.weight.grad is not None and torch.isfinite(linear.weight.grad).all()


def test_vmap_over_models():
    activation = Activation("x * sigmoid(b * x) where b = 1 per layer")
    x, b = torch.randn(3, 4, 5), torch.tensor([0.5, 1.0, 2.0])
    out = torch.func.vmap(lambda b, x: torch.func.functional_call(activation, {"b": b}, x))(b, x)
    torch.testing.assert_close(out, x * torch.sigmoid(b.view(3, 1, 1) * x))


def test_the_penalty_is_the_training_forwards_and_is_taken_once():
    activation = Activation(VELU)
    x = (2 * torch.randn(50, 8) + 1).requires_grad_()
    activation(x)
    value = activation.penalty()
    expected = x.mean() ** 2 + (x.std(correction=0) - 1) ** 2
    torch.testing.assert_close(value, expected)
    given = torch.autograd.grad(value, x)[0]
    torch.testing.assert_close(given, torch.autograd.grad(expected, x)[0], rtol=1e-4, atol=1e-7)
    assert activation.penalty().item() == 0
    activation.eval()
    activation(x)
    assert activation.penalty().item() == 0


@pytest.mark.parametrize(("text", "of"), [("mean(x, over=tensor)**2", 0), ("mean(u**2)", 1)])
def test_the_penalty_of_a_gated_pair_takes_what_it_uses(text: str, of: int):
    pair = torch.randn(4, 3), torch.randn(4, 3)
    activation = Activation(f"u * silu(x) penalty {text}")
    activation(*pair)
    wanted = pair[0].mean() ** 2 if of == 0 else (pair[1] ** 2).mean()
    torch.testing.assert_close(activation.penalty(), wanted)


def test_a_gated_pair_takes_two_inputs():
    x, u = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(Activation("u * silu(x)")(x, u), u * nn.functional.silu(x))
    with pytest.raises(TaskError, match="expects x and u, got x"):
        Activation("u * silu(x)")(x)
    with pytest.raises(TaskError, match="expects x, got x and u"):
        Activation("silu(x)")(x, u)


def test_mistakes_are_one_line():
    with pytest.raises(TaskError, match=r"floating-point tensor, got torch.int64"):
        Activation("relu(x)")(torch.arange(3))
    with pytest.raises(ExpressionError, match="unknown activation 'gulo'; did you mean 'golu'"):
        Activation("gulo")
    with pytest.raises(TaskError, match="channel_dim 5 of a 2-d input"):
        Activation(SWISH, channel_dim=5)(torch.randn(2, 2))


def test_tensors_that_do_not_fit_are_one_line():
    activation = Activation(SWISH, channels=5)
    with pytest.raises(TaskError, match=r"b has 5 channels, x has 4 in dimension -1 of \(3, 4\)"):
        activation(torch.randn(3, 4))
    with pytest.raises(TaskError, match="b is on meta, x on cpu"):
        activation.to("meta")(torch.randn(3, 5))
    with pytest.raises(TaskError, match=r"u has shape \(4, 5\), x \(3, 5\)"):
        Activation("u * silu(x)")(torch.randn(3, 5), torch.randn(4, 5))


def test_replacing_gives_every_site_its_own_parameters():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    assert replace_activations(model, nn.ReLU, lambda: Activation(SWISH)) == 2
    model(torch.randn(2, 4))
    sites = [m for m in model.modules() if isinstance(m, Activation)]
    assert len({id(p) for site in sites for p in site.parameters()}) == 2
    with pytest.raises(TaskError, match="Sequential: has no ReLU to replace"):
        replace_activations(model, nn.ReLU, lambda: Activation("silu"))


def test_a_shared_module_stays_shared():
    shared = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 4), shared, nn.Linear(4, 4), shared)
    assert replace_activations(model, nn.ReLU, lambda: Activation(SWISH)) == 1
    assert model[1] is model[3]


def test_torchvision_models_train_with_parameters_of_their_own_at_every_call():
    import torchvision

    model = torchvision.models.resnet50(num_classes=4)
    example = torch.randn(2, 3, 32, 32)
    sites = replace_activations(model, nn.ReLU, lambda: Activation(SWISH), example)
    assert sites == 1 + 3 * 16
    for _ in range(2):
        model(example).sum().backward()
    activations = [m for m in model.modules() if isinstance(m, Activation)]
    assert len(activations) == sites
    slopes = [a.get_parameter("b") for a in activations]
    assert all(b.grad is not None for b in slopes)
    assert {b.numel() for b in slopes} == {64, 128, 256, 512, 1024, 2048}
    twin = copy.deepcopy(model).eval()
    torch.testing.assert_close(twin(example), model.eval()(example))


def test_an_interrupted_forward_does_not_shift_the_call_sites():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x, fail=False):
            x = self.act(x)
            if fail:
                raise InterruptedError
            return self.act(torch.cat([x, x], -1))

    model, x = Twice(), torch.randn(1, 2)
    assert replace_activations(model, nn.ReLU, lambda: Activation(SWISH), x) == 2
    expected = model(x)
    with pytest.raises(InterruptedError):
        model(x, fail=True)
    torch.testing.assert_close(model(x), expected)
