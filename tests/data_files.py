"""Generated data sets in the genuine formats on disk."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np


def idx(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def write_mnist(folder: Path, train: int, test: int, packed: bool = True) -> dict[str, np.ndarray]:
    """The four files of MNIST; what they hold, by their names without the ending."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    arrays = {}
    for part, count in (("train", train), ("t10k", test)):
        arrays[f"{part}-images"] = random.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}-labels"] = np.arange(count, dtype=np.uint8) % 10
    for name, array in arrays.items():
        path = folder / f"{name}-idx{array.ndim}-ubyte"
        if packed:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(idx(array)))
        else:
            path.write_bytes(idx(array))
    return arrays


def python2_batch(images: np.ndarray, key: str, labels: list[int]) -> bytes:
    """A CIFAR batch, opcode by opcode as Python 2's cPickle and NumPy 1 wrote it (protocol 2):
    names as byte strings, the array through numpy.core.multiarray, its dtype with align 0."""

    def word(value: str) -> bytes:
        return b"U" + bytes((len(value),)) + value.encode()

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + word("u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + word("|") + b"NNN" + number(-1) + number(-1) + b"K\x00tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + word("b") + b"\x87R"
    )
    array += b"(K\x01" + number(images.shape[0]) + number(images.shape[1]) + b"\x86" + dtype
    array += b"\x89T" + struct.pack("<i", images.size) + images.tobytes() + b"tb"
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + word("data") + array + word(key) + listed + b"u."


def write_cifar(folder: Path, files: dict[str, int], key: str, classes: int) -> np.ndarray:
    """CIFAR's files with so many images each; all images in order, (N, 3072)."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    everything = []
    for name, count in files.items():
        images = random.integers(0, 256, (count, 3072), np.uint8)
        labels = [n % classes for n in range(count)]
        (folder / name).write_bytes(python2_batch(images, key, labels))
        everything.append(images)
    return np.concatenate(everything)
