"""CIFAR-100: 60,000 colour pictures of 32 × 32 pixels in 100 classes (Krizhevsky 2009)."""

from __future__ import annotations

from pathlib import Path

from search.tasks.cifar import read_batches
from search.tasks.cifar10 import RESNET_RECIPE
from search.tasks.data_root import require_files
from search.tasks.images import image_task
from search.tasks.mnist import Labelled

FILES = ("train", "test")


def read(data_root: Path) -> tuple[Labelled, Labelled]:
    """The training and test parts, downloaded by torchvision when they are not there."""
    folder = data_root / "cifar-100-python"
    advice = f"put the files of the Python version in {folder}, or set data_root to its parent"
    files = require_files("cifar100", FILES, [folder], data_root, _download, advice)
    return read_batches(files[:1], "fine_labels"), read_batches(files[1:], "fine_labels")


def _download(folder: Path) -> None:
    from torchvision.datasets import CIFAR100  # 3 s to import: only a missing data set pays it

    CIFAR100(str(folder), download=True)


TASK = image_task(
    "cifar100",
    "colour pictures of 32 × 32 pixels in 100 classes",
    read,
    classes=100,
    model="resnet20",
    recipe=RESNET_RECIPE,
)
