"""CIFAR-10: 60,000 colour pictures of 32 × 32 pixels in 10 classes (Krizhevsky 2009)."""

from __future__ import annotations

from pathlib import Path

from search.tasks.cifar import read_batches
from search.tasks.data_root import require_files
from search.tasks.images import image_task
from search.tasks.mnist import Labelled
from search.tasks.task import Recipe

FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")

RESNET_RECIPE = Recipe(
    optimizer="sgd",
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    decay="all",
    schedule="multistep",
    milestones=(81 / 164, 122 / 164),
    gamma=0.1,
    batch_size=128,
    epochs=164,
    augmentation=("flip", "crop"),
)
"""He et al. 2015, section 4.2: 64,000 steps, the rate divided by 10 at 1/2 and 3/4."""


def read(data_root: Path) -> tuple[Labelled, Labelled]:
    """The training and test parts, downloaded by torchvision when they are not there."""
    folder = data_root / "cifar-10-batches-py"
    advice = f"put the batches of the Python version in {folder}, or set data_root to its parent"
    files = require_files("cifar10", FILES, [folder], data_root, _download, advice)
    return read_batches(files[:-1], "labels"), read_batches(files[-1:], "labels")


def _download(folder: Path) -> None:
    from torchvision.datasets import CIFAR10  # 3 s to import: only a missing data set pays it

    CIFAR10(str(folder), download=True)


TASK = image_task(
    "cifar10",
    "colour pictures of 32 × 32 pixels in 10 classes",
    read,
    classes=10,
    model="resnet20",
    recipe=RESNET_RECIPE,
)
