"""The Python format of CIFAR-10 and CIFAR-100: https://www.cs.toronto.edu/~kriz/cifar.html."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.errors import TaskError


def read_batches(paths: Sequence[Path], labels: str) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 3, 32, 32) and classes int64 (N,) of some batch files, in order.

    `labels` is the key of the classes: "labels" in CIFAR-10, "fine_labels" in CIFAR-100.
    """
    batches = [_read_batch(path, labels) for path in paths]
    images = np.concatenate([images for images, _ in batches]).reshape(-1, 3, 32, 32)
    classes = np.concatenate([classes for _, classes in batches])
    return torch.from_numpy(images), torch.from_numpy(classes)


def _read_batch(path: Path, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of 3,072 bytes (red, green, blue planes) and their classes."""
    try:
        with path.open("rb") as file:
            batch = _ArrayUnpickler(file, encoding="latin1").load()
        images, classes = np.asarray(batch["data"]), np.asarray(batch[labels], dtype=np.int64)
    except (OSError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        words = f"{type(error).__name__}: {error}"
        raise TaskError(f"{path}: not a CIFAR batch in the Python format ({words})") from error
    if images.dtype != np.uint8 or images.shape != (len(classes), 3072):
        found = f"{images.dtype} {images.shape} for {len(classes)} classes"
        raise TaskError(f"{path}: its data are {found}; expected uint8 (N, 3072)")
    return images, classes


def _dtype(name: str, align: object = False, copy: object = False) -> np.dtype:
    """A dtype as Python 2 pickled it: with align as 0 or 1, which NumPy ≥ 2.4 warns about."""
    return np.dtype(name, bool(align), bool(copy))


def _from_latin1(data: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into pickles of protocol 2."""
    return data.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, lists and text, and nothing else: a pickle may otherwise run any code."""

    def find_class(self, module: str, name: str) -> Any:
        """The few constructors that a pickled array names; raises UnpicklingError for others."""
        match module, name:
            case (("numpy.core.multiarray" | "numpy._core.multiarray"), "_reconstruct"):
                return np.ndarray(0).__reduce__()[0]
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return _dtype
            case "_codecs", "encode":
                return _from_latin1
        raise pickle.UnpicklingError(f"it names {module}.{name}")
