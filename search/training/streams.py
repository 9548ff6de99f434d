"""Random streams: everything random in a run follows from its seed, through streams that never
touch each other or the caller's generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

INITIAL, ORDER, AUGMENTATION, LAYERS = range(4)
"""Initial weights; order of the data; flips and crops; random layers (dropout, by epoch)."""


def stream_seed(seed: int, stream: int, part: int = 0) -> int:
    """A 63-bit seed mixed from the run's seed (any integer), the stream and a part of it."""
    mixed = np.random.SeedSequence([seed % 2**64, stream, part])
    return int(mixed.generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, stream: int) -> torch.Generator:
    """A generator of the CPU: the same draws whatever device trains."""
    return torch.Generator().manual_seed(stream_seed(seed, stream))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's own generators seeded within the block, and as they were after it.

    Layers initialise and drop out by torch's global generators, which cannot be handed over.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
