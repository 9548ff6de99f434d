"""Any classifier of torchvision, its activations replaced.

torchvision is imported when a model of it is asked for, not with this file: it takes 3 s.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.errors import TaskError, first_line, near_miss
from search.replacement import replace_activations
from search.tasks.task import MakeActivation

REPLACED = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish)


def torchvision_names() -> list[str]:
    """The names of torchvision's classifiers; raises TaskError where it cannot be imported."""
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        words = " ".join(str(error).split())
        raise TaskError(f"options.model: torchvision cannot be imported ({words})") from error
    return models.list_models(module=models)


def torchvision_problems(name: str) -> list[str]:
    """What is wrong with a classifier's name, if anything."""
    names = torchvision_names()
    if name in names:
        return []
    close = near_miss(name, names)
    return [f"options.model: unknown torchvision classifier {name!r}{close}"]


class ThreeChannels(nn.Module):
    """A model for colour images, fed images of one or three channels of another size."""

    def __init__(self, model: nn.Module, image_size: int):
        super().__init__()
        self.model = model
        self.image_size = image_size

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1 or 3, H, W) → (N, outputs): grey is repeated, the size bilinearly changed."""
        if self.image_size and x.shape[-1] != self.image_size:
            x = F.interpolate(x, (self.image_size, self.image_size), mode="bilinear")
        return self.model(x.expand(-1, 3, -1, -1))


def torchvision_model(
    name: str,
    make_activation: MakeActivation,
    shape: tuple[int, int, int],
    outputs: int,
    *,
    image_size: int = 0,
) -> nn.Module:
    """torchvision's classifier `name` with every ReLU, ReLU6, SiLU, GELU and Hardswish module
    replaced: (N, C, H, W) → (N, outputs).

    A module that is called several times, as in residual blocks, becomes a site for each call;
    functional calls stay as they are (the last one of DenseNet).
    image_size 0 keeps the images' own size. Raises TaskError in one line when there is nothing to
    replace or the model cannot take such images.
    """
    place = f"options.model: torchvision:{name}"
    size = image_size or shape[-1]
    try:
        model = ThreeChannels(_classifier(name, outputs, size), image_size)
        example = torch.zeros(2, *shape)
        with torch.no_grad():
            result = model.eval()(example)
        replace_activations(model.train(), REPLACED, make_activation, example)
    except TaskError as error:
        raise TaskError(f"{place}: {error}; expected another model") from error
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        hint = "expected a model for them, or options.image_size: 224"
        wrong = f"it cannot take images of {size} × {size} ({first_line(error)})"
        raise TaskError(f"{place}: {wrong}; {hint}") from error
    if not isinstance(result, Tensor) or result.shape != (2, outputs):
        raise TaskError(f"{place}: it does not return {outputs} numbers for each image")
    return model


def _classifier(name: str, outputs: int, image_size: int) -> nn.Module:
    """The classifier with fresh weights, for `outputs` classes."""
    from torchvision import models

    arguments: dict[str, Any] = {"num_classes": outputs}
    if name.startswith("vit_"):
        arguments["image_size"] = image_size
    elif name in ("googlenet", "inception_v3"):
        arguments |= {"init_weights": False, "aux_logits": False}
    return models.get_model(name, weights=None, **arguments)
