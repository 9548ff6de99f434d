"""The model families: sizes, sites of activations, what they cannot take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from search.activation import Activation
from search.tasks.models import row_of
from search.tasks.models.gpt import GPT, FeedForward, GatedFeedForward
from search.tasks.models.normalise import fit_normalise
from search.tasks.models.resnet import Block
from search.tasks.models.torchvision_models import torchvision_model
from tests.task_cases import Counted, problems, trainable


def test_raw_images_are_normalised_per_channel():
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2500, 3, 4, 4), generator=random, dtype=torch.uint8)
    images[:, 1] //= 7
    images[:, 2] = 9  # a constant channel
    result = fit_normalise(images)(images)
    assert result.dtype == torch.float32
    assert result.mean((0, 2, 3)).abs().max() < 1e-5
    std = result.std((0, 2, 3), correction=0)
    assert torch.allclose(std, torch.tensor([1.0, 1.0, 0.0]), atol=1e-5)


@pytest.mark.parametrize(
    ("model", "options", "sites"),
    [
        ("mlp", {"depth": 3, "width": 16, "norm": "layernorm"}, 3),
        ("mlp", {"depth": 1, "width": 16, "norm": "none"}, 1),
        ("cnn", {"width": 4, "norm": "batchnorm"}, 3),
        ("cnn", {"width": 4, "norm": "layernorm"}, 3),
        ("cnn", {"width": 4, "norm": "none"}, 3),
        ("resnet20", {"width": 4}, 19),
        ("resnet32", {"width": 2}, 31),
        ("resnet44", {"width": 2}, 43),
        ("resnet56", {"width": 2}, 55),
        ("resnet110", {"width": 2}, 109),
    ],
)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_every_image_model_takes_grey_and_colour(
    model: str, options: dict, sites: int, shape: tuple[int, int, int]
):
    make = Counted()
    network = row_of(model).build(make, shape, 7, **options)
    assert network(torch.zeros(2, *shape)).shape == (2, 7)
    assert make.sites == sites == sum(isinstance(m, nn.ReLU) for m in network.modules())


def test_the_small_cnn_takes_the_digits():
    network = row_of("cnn").build(nn.ReLU, (1, 8, 8), 10, width=4, norm="batchnorm")
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(("model", "millions"), [("resnet20", 0.27), ("resnet56", 0.85)])
def test_resnets_weigh_what_their_paper_says(model: str, millions: float):
    network = row_of(model).build(nn.ReLU, (3, 32, 32), 10)
    assert round(trainable(network) / 1e6, 2) == millions
    convolutions = sum(isinstance(m, nn.Conv2d) for m in network.modules())
    assert convolutions + 1 == int(model.removeprefix("resnet"))


def test_the_shortcut_of_option_a_drops_pixels_and_adds_empty_channels():
    x = torch.arange(1.0, 33.0).reshape(1, 2, 4, 4)
    block = Block(nn.ReLU, 2, 4, stride=2).eval()
    nn.init.zeros_(block.convolution2.weight)
    y = block(x)
    assert y.shape == (1, 4, 2, 2)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, 0].any() and not y[:, 3].any()


def test_torchvision_models_get_a_fresh_activation_for_every_call():
    made: list[Activation] = []

    def make() -> Activation:
        made.append(Activation("x * sigmoid(b * x) where b = 1 per channel"))
        return made[-1]

    model = torchvision_model("resnet18", make, (1, 32, 32), 7)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert len(made) == 17 and model.training
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())
    assert all(not activation.has_uninitialized() for activation in made)


def test_torchvision_models_take_images_of_another_size():
    model = torchvision_model("squeezenet1_1", nn.SiLU, (3, 8, 8), 5, image_size=32)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("alexnet", "alexnet: it cannot take images of 32 × 32 (Given input size"),
        ("googlenet", "googlenet: ThreeChannels: has no ReLU or "),
    ],
)
def test_torchvision_models_that_do_not_fit(name: str, words: str):
    (line,) = problems(lambda: torchvision_model(name, nn.SiLU, (3, 32, 32), 5))
    assert line.startswith(f"options.model: torchvision:{words}")


SHAPE = {"layers": 2, "heads": 2, "width": 12, "context": 8}


@pytest.mark.parametrize("ffn", ["plain", "gated"])
def test_a_gpt_sees_the_past_alone(ffn: str):
    torch.manual_seed(0)
    make = Counted()
    model = GPT(make, 11, **SHAPE, ffn=ffn)
    x = torch.randint(11, (3, 8))
    later = x.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 11
    y, changed = model(x), model(later)
    assert y.shape == (3, 8, 11) and make.sites == 2
    assert torch.allclose(y[:, :5], changed[:, :5], atol=1e-6)
    assert not torch.allclose(y[:, 5], changed[:, 5], atol=1e-6)


def test_a_gated_feed_forward_weighs_as_much_as_a_plain_one():
    plain, gated = trainable(FeedForward(nn.ReLU, 96)), trainable(GatedFeedForward(nn.ReLU, 96))
    assert plain == gated == 8 * 96**2


def test_an_activation_of_a_pair_gets_both_inputs():
    results = []
    for make in (nn.SiLU, lambda: Activation("x * sigmoid(x) * u")):
        torch.manual_seed(0)
        results.append(GatedFeedForward(make, 12)(torch.linspace(-3, 3, 60).reshape(1, 5, 12)))
    assert torch.allclose(*results, atol=1e-6)
