"""The IDX format of MNIST and its kin: http://yann.lecun.com/exdb/mnist."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from search.errors import TaskError


def read_idx(path: Path, dimensions: int) -> Tensor:
    """An IDX file of bytes (plain or .gz) as a uint8 tensor.

    Layout: two zero bytes, 0x08 for unsigned bytes, the number of dimensions, each dimension as a
    big-endian uint32, then the bytes. Raises TaskError in one line when it is anything else.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise TaskError(f"{path}: cannot be read: {error}") from error
    start = 4 + 4 * dimensions
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) < start:
        expected = f"an IDX file of unsigned bytes in {dimensions} dimension(s)"
        raise TaskError(f"{path}: it begins with 0x{data[:4].hex()}; expected {expected}")
    shape = [int(size) for size in np.frombuffer(data, ">u4", dimensions, offset=4)]
    if len(data) - start != math.prod(shape):
        size = " × ".join(map(str, shape))
        raise TaskError(f"{path}: {len(data) - start} bytes of data; expected {size}")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy())
