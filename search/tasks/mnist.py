"""MNIST: 70,000 handwritten digits of 28 × 28 pixels (LeCun et al. 1998)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from search.tasks.data_root import require_files
from search.tasks.idx import read_idx
from search.tasks.images import image_task
from search.tasks.task import Recipe

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
Labelled = tuple[Tensor, Tensor]


def read(data_root: Path) -> tuple[Labelled, Labelled]:
    """The training and test parts, downloaded by torchvision when they are not there."""
    folders = [data_root / "MNIST" / "raw", data_root / "mnist"]
    advice = f"put the four IDX files in {folders[-1]}, or set data_root to where they are"
    files = require_files("mnist", FILES, folders, data_root, _download, advice)
    return read_mnist_files(files)


def read_mnist_files(files: Sequence[Path]) -> tuple[Labelled, Labelled]:
    """Images uint8 (N, 1, H, W) and classes int64 (N,) of the four IDX files, in FILES' order."""
    images, labels, test_images, test_labels = files
    train = read_idx(images, 3).unsqueeze(1), read_idx(labels, 1).long()
    return train, (read_idx(test_images, 3).unsqueeze(1), read_idx(test_labels, 1).long())


def _download(folder: Path) -> None:
    from torchvision.datasets import MNIST  # 3 s to import: only a missing data set pays it

    MNIST(str(folder), download=True)


TASK = image_task(
    "mnist",
    "handwritten digits of 28 × 28 pixels",
    read,
    classes=10,
    model="mlp",
    # The small study of GoLU (arXiv 2502.03654).
    recipe=Recipe(optimizer="sgd", momentum=0.9, batch_size=128, epochs=8),
)
