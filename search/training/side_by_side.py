"""How many processes train side by side on one device: timed in processes, not reckoned.

Trials are independent, so a machine may serve one with all its threads or several with fewer; on a
GPU, as many as its memory holds. Which is best is a matter of caches and of who waits for whom:
two processes of Fashion-MNIST's MLP slow each other down by a quarter, two of a small CNN do not.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch

from search.orphans import no_orphans
from search.records import Key
from search.training.batched.memory import out_of_memory
from search.training.prepared import Prepared

ROUNDS = 3
PATIENCE = 1.0
"""Seconds that a timed way should take at least; its processes overlap but for their ends."""
LEAST, LONGEST = 6, 3.0
"""Steps of a timed run, at least, unless they take longer than so many seconds; two in any case. A
large batch's first step takes twice as long, for its memory: of ten small CNNs 3 steps measured 73
model-steps/s, 10 measured 100, and the loop 83 with any."""
ENOUGH = 60.0
"""Seconds after which no further round begins: steps of seconds are noisy by little."""
HOPELESS = 0.7
"""Ways of less than this share of the best one's speed are not timed again."""
KEPT = 0.9
"""Share of a GPU's memory that trials may fill."""
CONTEXT = 600 * 2**20
"""Bytes that a process takes of a GPU before it has a tensor there."""
CLEAR = 1.03
"""How many times as fast a way must be to be taken instead of the one that resources ask for."""

W = TypeVar("W")

Load = Callable[[], Prepared]
"""Loads the task in a process of its own; plain enough to be sent there."""


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """How trials are trained on one machine."""

    processes: int
    threads: int
    """Of each process."""
    at_once: int
    """Runs in one program of each; 1 is the plain loop."""

    @property
    def shape(self) -> str:
        """Processes and threads.

        >>> Way(2, 1, 10).shape
        '2 processes × 1 thread'
        """
        processes = f"{self.processes} process{'es' if self.processes > 1 else ''}"
        return f"{processes} × {self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def words(self) -> str:
        """As the plan tells it.

        >>> Way(1, 2, 1).words
        '1 process × 2 threads one by one'
        """
        return f"{self.shape} {'one by one' if self.at_once == 1 else f'with {self.at_once}'}"


@dataclass(frozen=True, slots=True)
class Room:
    """What a study has to choose from."""

    most: int
    """Trials that the resources let run side by side on one device."""
    cpus: int
    """Processors for all of them."""
    runs: int
    """Of the whole study."""


def ways_on_cpu(most: int, cpus: int, threads: int, sizes: Sequence[int]) -> list[Way]:
    """As many processes as may run, or one with all threads; each with every number of runs.

    >>> [way.words for way in ways_on_cpu(2, 2, 1, (10,))]
    ['2 processes × 1 thread with 10', '1 process × 2 threads with 10']
    """
    shapes = dict.fromkeys([(most, threads), (1, max(1, int(cpus)))])
    return [Way(processes, each, size) for processes, each in shapes for size in sizes]


def ways_on_gpu(most: int, threads: int, at_once: int, memory: int, total: int) -> list[Way]:
    """1, 2, 4, … processes and the most, as far as a batch of each fits.

    memory: bytes of one process's batch at its peak; total: of the GPU.

    >>> [way.processes for way in ways_on_gpu(12, 1, 10, memory=2**30, total=16 * 2**30)]
    [1, 2, 4, 8, 9]
    """
    fitting = max(1, min(most, int(KEPT * total // (memory + CONTEXT))))
    doubled = [2**k for k in range(fitting.bit_length()) if 2**k < fitting]
    return [Way(processes, threads, at_once) for processes in (*doubled, fitting)]


def fastest(speeds: Mapping[Way, float]) -> Way:
    """The fastest way; the first one unless another is clearly faster.

    >>> two, one = Way(2, 1, 10), Way(1, 2, 10)
    >>> fastest({two: 100.0, one: 101.0}) == two, fastest({two: 100.0, one: 110.0}) == one
    (True, True)
    """
    first = next(iter(speeds))
    best = max(speeds, key=lambda way: speeds[way])
    return best if speeds[best] > CLEAR * speeds[first] else first


def promising(speeds: Mapping[W, Sequence[float]]) -> list[W]:
    """The ways that are worth another round, by the medians so far.

    >>> promising({"loop": [50.0], "five": [90.0, 100.0], "ten": [80.0]})
    ['five', 'ten']
    """
    medians = {way: statistics.median(found) for way, found in speeds.items()}
    best = max(medians.values(), default=0.0)
    return [way for way in medians if medians[way] >= HOPELESS * best]


def steps_for(patience: float, speed: float) -> int:
    """Steps of a timed run that should take `patience` seconds, at `speed` steps a second.

    >>> steps_for(1.0, 50.0), steps_for(1.0, 4.0), steps_for(1.0, 1.0), steps_for(1.0, 0.2)
    (50, 6, 3, 2)
    """
    return max(2, min(LEAST, int(LONGEST * speed)), int(patience * speed))


def time_ways(
    load: Load, ways: Sequence[Way], keys: Sequence[Key]
) -> tuple[tuple[Way, float], ...]:
    """Model-steps per second of all processes of every way, medians of rounds in turn.

    Empty where processes cannot be started (a script that is not guarded by `__main__`).
    """
    context = multiprocessing.get_context("spawn")
    found: dict[Way, list[float]] = {}
    left, began = list(ways), time.perf_counter()
    try:
        with ExitStack() as stack:
            made = stack.enter_context(TemporaryDirectory(prefix="activations-"))
            stack.enter_context(no_orphans(Path(made)))  # they would wait for a task for ever
            pools = [
                stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
                for _ in range(max(way.processes for way in ways))
            ]
            steps: dict[Way, int] = {}
            for turn in range(1 + ROUNDS):
                for way in left.copy():
                    try:
                        speeds = _together(pools, load, way, keys, steps.get(way))
                    except (RuntimeError, MemoryError) as error:
                        if not out_of_memory(error):
                            raise
                        left.remove(way)
                        found.pop(way, None)
                        continue
                    steps.setdefault(way, steps_for(PATIENCE, min(speeds) / way.at_once))
                    if turn:  # the first loads, compiles and allocates
                        found.setdefault(way, []).append(sum(speeds))
                if turn:
                    left = promising({way: found[way] for way in left})
                if turn and time.perf_counter() - began > ENOUGH:
                    break
    except BrokenProcessPool:
        return ()
    return tuple((way, statistics.median(speeds)) for way, speeds in found.items())


def _together(
    pools: Sequence[ProcessPoolExecutor],
    load: Load,
    way: Way,
    keys: Sequence[Key],
    steps: int | None,
) -> list[float]:
    """The speeds of all processes of a way, at the same time."""
    asked = [
        pool.submit(timed_there, load, keys[: way.at_once], steps, way.threads)
        for pool in pools[: way.processes]
    ]
    return [future.result() for future in asked]


# --- in a process of its own ---------------------------------------------------------------------


def timed_there(load: Load, keys: Sequence[Key], steps: int | None, threads: int) -> float:
    """Model-steps per second; of a few steps, after a first one that is not counted, for None."""
    from search.training.planner import timed

    torch.set_num_threads(threads)
    prepared = load()
    if steps is None:
        timed(prepared, keys, 1)
    return timed(prepared, keys, steps or 3)
