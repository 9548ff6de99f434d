"""The model families. A model calls `make_activation()` once per site.

`IMAGE_MODELS` maps the option `model` to a builder `(make_activation, shape, outputs, **options)`
with shape (C, H, W), and to the options it takes with their defaults. `torchvision:` stands for
`torchvision:<name>`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from search.tasks.models.cnn import cnn
from search.tasks.models.mlp import mlp
from search.tasks.models.norms import NORMS
from search.tasks.models.resnet import cifar_resnet
from search.tasks.models.torchvision_models import torchvision_model, torchvision_problems

__all__ = ["IMAGE_MODELS", "NORMS", "ImageModel", "image_model_problems", "row_of"]


@dataclass(frozen=True, slots=True)
class ImageModel:
    """A family: its builder and its options with their defaults."""

    build: Callable[..., nn.Module]
    options: Mapping[str, Any] = field(default_factory=dict)


IMAGE_MODELS: dict[str, ImageModel] = {
    "mlp": ImageModel(mlp, {"depth": 2, "width": 512, "norm": "layernorm"}),
    "cnn": ImageModel(cnn, {"width": 16, "norm": "batchnorm"}),
    "resnet20": ImageModel(partial(cifar_resnet, blocks=3), {"width": 16}),
    "resnet32": ImageModel(partial(cifar_resnet, blocks=5), {"width": 16}),
    "resnet44": ImageModel(partial(cifar_resnet, blocks=7), {"width": 16}),
    "resnet56": ImageModel(partial(cifar_resnet, blocks=9), {"width": 16}),
    "resnet110": ImageModel(partial(cifar_resnet, blocks=18), {"width": 16}),
    "torchvision:": ImageModel(torchvision_model, {"image_size": 0}),
}


def row_of(model: str) -> ImageModel:
    """The row of a model's name, with the name after `torchvision:` bound."""
    family, colon, name = model.partition(":")
    row = IMAGE_MODELS[family + colon]
    return ImageModel(partial(row.build, name), row.options) if name else row


def image_model_problems(model: str) -> list[str]:
    """What is wrong with a known family's name; importing torchvision only when it is meant."""
    family, colon, name = model.partition(":")
    return torchvision_problems(name) if family + colon == "torchvision:" else []
