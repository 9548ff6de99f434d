"""Contestants timed in turn: every round runs each of them once, and the order rotates.

CPU: wall time of some passes in a row, so many that they take 2 ms together. Outputs are made by
the allocator and let go before the next pass, for every contestant alike; only the copy's are
there beforehand. That costs: a fresh 64 MB output takes 40 ms of page faults where a reused one
takes 1.8. The C library hands them out again where `keep_freed_memory` told it to; left to itself
it does so at times, and dynActivation's step over 2^22 numbers takes 5 or 9 ms.

CUDA: events around the passes, queued while the device sleeps, so that the host's launches are
not what is measured; inputs rotate over more bytes than the device's cache holds.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

Call = Callable[[], object]
"""One pass, ready to run; its result is dropped."""
Prepare = Callable[[int], Sequence[Call]]
"""Makes so many passes, with the graphs that a backward alone needs, outside the clock."""
SAMPLE = 2e-3
"""Seconds that a sample takes at least, unless MOST passes take less."""
MOST = 400
ON_DEVICE = 50  # passes in a sample on a GPU: a backward's graphs all exist at once
HOST_CYCLES = 400_000  # 0.2 ms of a GPU's sleep a pass: autograd's work on the host


def calibrate(prepare: Prepare, device: torch.device) -> int:
    """How many passes make a sample, after two that warm up."""
    for _ in range(2):
        seconds(prepare(1), device)
    once = min(seconds(prepare(1), device) for _ in range(3))
    most = ON_DEVICE if device.type == "cuda" else MOST
    return max(1, min(most, math.ceil(SAMPLE / max(once, 1e-9))))


def interleaved(
    prepared: Mapping[str, Prepare],
    repetitions: Mapping[str, int],
    rounds: int,
    device: torch.device,
) -> dict[str, list[float] | Exception]:
    """Seconds of one pass by contestant, one figure a round, or why it could not go on."""
    found: dict[str, list[float]] = {name: [] for name in prepared}
    failed: dict[str, Exception] = {}
    for turn in range(rounds):
        for name in rotated(list(found), turn):
            try:
                calls = prepared[name](repetitions[name])
                found[name].append(seconds(calls, device) / len(calls))
            except Exception as error:  # memory, above all
                failed[name] = error
                del found[name]
            calls = ()  # a backward's graphs go before the next contestant's come
    return {**found, **failed}


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """
    >>> rotated(["a", "b", "c"], 4)
    ['b', 'c', 'a']
    """
    first = turn % len(names) if names else 0
    return [*names[first:], *names[:first]]


def seconds(calls: Sequence[Call], device: torch.device) -> float:
    """All calls in a row, by the clock of the device that runs them."""
    if device.type == "cuda":
        return _device_seconds(calls, device)
    began = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - began


def _device_seconds(calls: Sequence[Call], device: torch.device) -> float:
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    torch.cuda._sleep(HOST_CYCLES * len(calls))
    began.record()
    for call in calls:
        call()
    ended.record()
    torch.cuda.synchronize(device)
    return began.elapsed_time(ended) / 1e3


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's
_LARGEST_OF_HEAP = 32 * 2**20  # bytes of one allocation; glibc takes no more


def keep_freed_memory() -> bool:
    """Blocks of up to 32 MB stay with this process when freed, for every contestant alike.

    False where the C library has no such switch (it is glibc's).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_OF_HEAP) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads for torch, for its compiler's kernels and for ours."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
