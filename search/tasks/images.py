"""What the image-classification tasks share: options, models, building."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from search.tasks.data_root import default_data_root
from search.tasks.models import IMAGE_MODELS, NORMS, image_model_problems, row_of
from search.tasks.models.normalise import fit_normalise
from search.tasks.splitting import carve
from search.tasks.task import MakeActivation, Recipe, Split, Splits, Task

ReadImages = Callable[[Path], tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]
"""From a data root: (images uint8 (N, C, H, W), classes int64 (N,)) to train on, and to test."""


def image_task(
    name: str, title: str, read: ReadImages, classes: int, model: str, recipe: Recipe
) -> Task:
    """A task over images in the models of `search.tasks.models`, the official test part kept."""

    def load(data_root: Path | None, *, train_size: int, validation_size: int, **_: Any) -> Splits:
        official, test = read(data_root or default_data_root())
        sizes = {"validation_size": validation_size, "train_size": train_size}
        return Splits(*carve(*official, **sizes), Split(*test), outputs=classes)

    models = {key: row.options for key, row in IMAGE_MODELS.items()}
    shared = {"model": model, "train_size": 0, "validation_size": 5000}
    return Task(
        name=name,
        title=title,
        load=load,
        build=build_image_model,
        options={**shared, **models[model]},
        models=models,
        choices={"norm": NORMS},
        check=check_image_options,
        recipe=recipe,
    )


def build_image_model(
    make_activation: MakeActivation,
    splits: Splits,
    *,
    model: str,
    train_size: int = 0,
    validation_size: int = 0,
    **options: Any,
) -> nn.Module:
    """The model on raw images: its first layer normalises by the training part's mean and std."""
    shape = tuple(splits.train.inputs.shape[1:])
    network = row_of(model).build(make_activation, shape, splits.outputs, **options)
    return nn.Sequential(fit_normalise(splits.train.inputs), network)


def check_image_options(options: Mapping[str, Any]) -> Iterable[str]:
    """What the rules of single options cannot see."""
    return image_model_problems(options["model"])
