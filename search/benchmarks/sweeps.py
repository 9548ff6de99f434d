"""Model-steps per second of a sweep: the plain loop, two processes, and many runs in one program.

Every way has processes of its own, which take turns, so that a busy machine slows all of them and
a peak of memory belongs to one way. The data are random numbers in the tasks' shapes (no figure
depends on them, and a GPU host need not have the data sets); models and recipes are the tasks' own.
Rates are tiny: nothing diverges, and every way does the same work.
"""

from __future__ import annotations

import ctypes
import gc
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch

from search.environment import environment
from search.errors import TaskError, near_miss
from search.tasks import TASKS
from search.tasks.task import Split, Splits, options_with

WAYS = ("loop", "processes", "batched")
PROCESSES = 2
OUTPUTS = {"cifar100": 100, "text": 96}
SAMPLES = 2048
"""Training samples of the random data."""


@dataclass(frozen=True, slots=True)
class Case:
    """A task with a model of its own size."""

    task: str
    options: Mapping[str, Any]
    shape: tuple[int, ...]
    """Of one sample; a text's are characters."""
    kind: str = "float"


CASES: dict[str, Case] = {
    "digits_mlp": Case("digits", {}, (1, 8, 8)),
    "digits_cnn": Case("digits", {"model": "cnn"}, (1, 8, 8)),
    "fashion_mlp": Case("fashion_mnist", {"model": "mlp"}, (1, 28, 28), "bytes"),
    "fashion_cnn": Case("fashion_mnist", {"model": "cnn"}, (1, 28, 28), "bytes"),
    "cifar_resnet20": Case("cifar10", {"model": "resnet20"}, (3, 32, 32), "bytes"),
    "text_gpt": Case("text", {}, (64,), "characters"),
    "extrapolation": Case("extrapolation", {}, (3,), "values"),
}
USUAL = ("digits_mlp", "digits_cnn", "extrapolation")
"""What is measured unless asked otherwise, in a minute. (A step of the GPT takes 40 ms.)"""


@dataclass(frozen=True, slots=True)
class Measured:
    """Some short runs in one process."""

    steps: int
    """Of all runs."""
    training: float
    """Seconds of their steps."""
    whole: float
    """Seconds until the sweep had ended: building, steps, evaluation."""
    memory: int
    """Bytes at the peak above what was there before."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way of training the same runs."""

    case: str
    way: str
    runs: int
    speeds: tuple[float, ...]
    """Model-steps per second, by round."""
    seconds: tuple[float, ...]
    """Until the sweep had ended, by round."""
    memory: int
    """Bytes at the peak, of all processes."""

    @property
    def speed(self) -> float:
        return statistics.median(self.speeds)


def compare(
    cases: Sequence[str], sizes: Sequence[int], steps: int, rounds: int, device: str
) -> list[Row]:
    """Every way of every case and number of runs, `rounds` times in turn."""
    for case in cases:
        if case not in CASES:
            raise TaskError(f"cases: unknown case {case!r}{near_miss(case, CASES)}")
    smallest = min(*sizes, steps, rounds)
    if smallest < 1:
        raise TaskError(f"--runs, --steps, --rounds: got {smallest}; expected whole numbers ≥ 1")
    return [
        row for case in cases for runs in sizes for row in _rows(case, runs, steps, rounds, device)
    ]


def _rows(case: str, runs: int, steps: int, rounds: int, device: str) -> list[Row]:
    found: dict[str, list[list[Measured]]] = {way: [] for way in WAYS}
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:

        def process() -> ProcessPoolExecutor:
            return stack.enter_context(ProcessPoolExecutor(1, mp_context=context))

        half = -(-runs // PROCESSES)
        parts = {"loop": [runs], "processes": [half, runs - half], "batched": [runs]}
        pools = {way: [(process(), n) for n in parts[way] if n] for way in WAYS}
        for turn in range(rounds + 1):
            for way, workers in pools.items():
                asked = [
                    pool.submit(measure, case, n, 3 if turn == 0 else steps, way, device)
                    for pool, n in workers
                ]
                done = [future.result() for future in asked]
                if turn:  # the first loads, compiles and allocates
                    found[way].append(done)
    return [_row(case, way, runs, found[way]) for way in WAYS]


def _row(case: str, way: str, runs: int, rounds: Sequence[Sequence[Measured]]) -> Row:
    return Row(
        case,
        way,
        runs,
        tuple(sum(m.steps for m in done) / max(m.training for m in done) for done in rounds),
        tuple(max(m.whole for m in done) for done in rounds),
        max(sum(m.memory for m in done) for done in rounds),
    )


# --- in a process of its own ---------------------------------------------------------------------


def measure(case: str, runs: int, steps: int, way: str, device: str) -> Measured:
    """Train `runs` runs of `steps` steps, together or one after the other."""
    from search.training.planner import train_short

    torch.set_num_threads(1)
    prepared = prepared_case(case, device)
    keys = [(0.001 * (1 + k % 5), k // 5) for k in range(runs)]
    before, began = _memory(device), time.perf_counter()
    groups = [keys] if way == "batched" else [[key] for key in keys]
    ended = [run for group in groups for run in train_short(prepared, group, steps)]
    whole = time.perf_counter() - began
    seconds = sum(run.seconds for run in ended)
    return Measured(sum(run.steps for run in ended), seconds, whole, _peak(device) - before)


def prepared_case(name: str, device: str) -> Any:
    """The case as the trainings take it, with random data."""
    from search.tasks.task import splits_to
    from search.training.candidate import Prepared

    case = CASES[name]
    task = TASKS[case.task]
    options = options_with(task, case.options)
    splits = splits_to(_random(case), device)
    return Prepared(task, options, task.recipe, splits, constant=0.0, device=device)


def _random(case: Case) -> Splits:
    numbers = torch.Generator().manual_seed(0)
    outputs = OUTPUTS.get(case.task, 10)
    if case.kind == "values":
        return TASKS[case.task].load(None)
    parts = []
    for count in (SAMPLES, 256, 2):
        size = (count, *case.shape)
        classes = torch.randint(outputs, (count,), generator=numbers)
        match case.kind:
            case "bytes":
                inputs = torch.randint(256, size, generator=numbers, dtype=torch.uint8)
            case "characters":
                inputs = torch.randint(outputs, size, generator=numbers)
                classes = inputs.roll(-1, 1)
            case _:
                inputs = torch.randn(size, generator=numbers)
        parts.append(Split(inputs, classes))
    return Splits(*parts, outputs=outputs)


def _memory(device: str) -> int:
    """Bytes in use now."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if sys.platform != "linux":
        return 0
    gc.collect()
    with suppress(AttributeError):  # glibc's alone: what is free goes back to the system
        ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the peak begins anew
    return _status("VmRSS")


def _peak(device: str) -> int:
    """Bytes at the peak since `_memory`."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _status("VmHWM")


def _status(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0


# --- what is shown -------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """Medians (least to most, n), each way against the loop of its case."""
    head = f"{'case':<15}{'runs':>5}  {'way':<10}{'model-steps/s':>27}{'× loop':>8}"
    lines = [head + f"{'sweep s':>9}{'peak MB':>9}{'n':>4}"]
    loops = {(row.case, row.runs): row for row in rows if row.way == "loop"}
    for row in rows:
        loop = loops[row.case, row.runs]
        ratio = statistics.median(a / b for a, b in zip(row.speeds, loop.speeds, strict=True))
        spread = f"{row.speed:,.0f} ({min(row.speeds):,.0f} to {max(row.speeds):,.0f})"
        lines.append(
            f"{row.case:<15}{row.runs:>5}  {row.way:<10}{spread:>27}{ratio:>8.2f}"
            f"{statistics.median(row.seconds):>9.2f}{row.memory / 1e6:>9.1f}{len(row.speeds):>4}"
        )
    return "\n".join(lines)


def as_json(rows: Iterable[Row]) -> str:
    """Every figure, with what it was measured on."""
    listed = [{**asdict(row), "speed": row.speed} for row in rows]
    return json.dumps({"sweeps": listed, **environment()}, indent=2)
