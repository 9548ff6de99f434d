"""Fashion-MNIST: 70,000 pictures of clothes of 28 × 28 pixels (arXiv 1708.07747)."""

from __future__ import annotations

from pathlib import Path

from search.tasks.data_root import require_files
from search.tasks.images import image_task
from search.tasks.mnist import FILES, Labelled, read_mnist_files
from search.tasks.task import Recipe

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""


def read(data_root: Path) -> tuple[Labelled, Labelled]:
    """The training and test parts, downloaded by torchvision when they are not there."""
    folders = [data_root / "FashionMNIST" / "raw", data_root / "fashion-mnist", DEBIAN]
    advice = (
        f"run `apt-get install dataset-fashion-mnist`, put the four IDX files in {folders[1]}, "
        "or set data_root to where they are"
    )
    files = require_files("fashion_mnist", FILES, folders, data_root, _download, advice)
    return read_mnist_files(files)


def _download(folder: Path) -> None:
    from torchvision.datasets import FashionMNIST  # 3 s to import

    FashionMNIST(str(folder), download=True)


TASK = image_task(
    "fashion_mnist",
    "pictures of clothes of 28 × 28 pixels",
    read,
    classes=10,
    model="cnn",
    recipe=Recipe(optimizer="sgd", momentum=0.9, batch_size=64, epochs=8, schedule="cosine"),
)
