"""Model-steps per second of a sweep: the plain loop, two processes, many runs in one program, with
all threads or in two processes, and what the planner picks of them.

Every way has processes of its own, which take turns, so that a busy machine slows all of them and
a peak of memory belongs to one way. Where two processes have a program each, they train a sweep
each, as a search does. The data are random numbers in the tasks' shapes (no figure
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
from functools import partial
from typing import Any

import torch

from search.environment import environment
from search.errors import TaskError, near_miss
from search.tasks import TASKS
from search.tasks.task import Split, Splits, options_with

PROCESSES = 2
WAYS = ("loop", "processes", "batched", "threads", "both")
"""One process, one run after the other; the same runs in two processes; all in one program; that
with all threads; two processes with a sweep each in one program."""
PICK = "pick"
"""The way that the planner takes, measured among the others."""
LONG = 10**9
"""Runs of a study in which every way is worth its timing."""
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
    """Until a sweep had ended, by round; of two side by side, half of the time for both."""
    memory: int
    """Bytes at the peak, of all processes."""
    processes: int = 1
    """How many of them hold a whole batch."""
    picked: str = ""
    """What the planner said."""

    @property
    def speed(self) -> float:
        return statistics.median(self.speeds)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the processes of a way do."""

    parts: tuple[int, ...]
    """Runs of each process."""
    at_once: int
    threads: int = 1
    sweeps: int = 1
    """How many all of them train."""
    picked: str = ""


def compare(
    cases: Sequence[str],
    sizes: Sequence[int],
    steps: int,
    rounds: int,
    device: str,
    pick: bool = False,
    ways: Sequence[str] = WAYS,
) -> list[Row]:
    """Every way of every case and number of runs, `rounds` times in turn; the loop always.

    pick: whether the planner chooses a way that is measured too.
    """
    for case in cases:
        if case not in CASES:
            raise TaskError(f"cases: unknown case {case!r}{near_miss(case, CASES)}")
    smallest = min(*sizes, steps, rounds)
    if smallest < 1:
        raise TaskError(f"--runs, --steps, --rounds: got {smallest}; expected whole numbers ≥ 1")
    rows: list[Row] = []
    for case in cases:
        for runs in sizes:
            every = plans_of(runs)
            plans = {way: every[way] for way in every if way in ("loop", *ways)}
            plans |= {PICK: picked(case, runs, device)} if pick else {}
            rows += _rows(case, runs, plans, steps, rounds, device)
    return rows


def plans_of(runs: int) -> dict[str, _Plan]:
    """Every way of training so many runs."""
    half = -(-runs // PROCESSES)
    split = tuple(n for n in (half, runs - half) if n)
    return {
        "loop": _Plan((runs,), 1),
        "processes": _Plan(split, 1),
        "batched": _Plan((runs,), runs),
        "threads": _Plan((runs,), runs, threads=PROCESSES),
        "both": _Plan((runs,) * PROCESSES, runs, sweeps=PROCESSES),
    }


def picked(case: str, runs: int, device: str) -> _Plan:
    """The planner's way, on a device that at most two trials share."""
    from search.training.planner import plan_batching, with_processes
    from search.training.rates import Grid
    from search.training.side_by_side import Room

    keys = keys_of(runs)
    rates, seeds = (tuple(dict.fromkeys(part)) for part in zip(*keys, strict=True))
    grid, load = Grid(rates, rates[0], seeds), partial(prepared_case, case, device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        choice = plan_batching(load(), grid)
    finally:
        torch.set_num_threads(threads)
    choice = with_processes(choice, load, grid, 1, Room(PROCESSES, PROCESSES, LONG))
    processes, each = (choice.way.processes, choice.way.threads) if choice.way else (1, 1)
    parts = (runs,) * processes
    return _Plan(parts, min(runs, choice.at_once), each, processes, choice.words)


def _rows(
    case: str, runs: int, plans: Mapping[str, _Plan], steps: int, rounds: int, device: str
) -> list[Row]:
    found: dict[str, list[list[Measured]]] = {way: [] for way in plans}
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:

        def process() -> ProcessPoolExecutor:
            return stack.enter_context(ProcessPoolExecutor(1, mp_context=context))

        pools = {way: [(process(), n) for n in plan.parts] for way, plan in plans.items()}
        for turn in range(rounds + 1):
            for way, workers in pools.items():
                most, how = 3 if turn == 0 else steps, plans[way]
                asked = [
                    pool.submit(measure, case, n, most, how.at_once, device, how.threads)
                    for pool, n in workers
                ]
                done = [future.result() for future in asked]
                if turn:  # the first loads, compiles and allocates
                    found[way].append(done)
    return [_row(case, way, runs, plan, found[way]) for way, plan in plans.items()]


def _row(case: str, way: str, runs: int, plan: _Plan, rounds: Sequence[Sequence[Measured]]) -> Row:
    return Row(
        case,
        way,
        runs,
        tuple(_speed(plan, done) for done in rounds),
        tuple(max(m.whole for m in done) / plan.sweeps for done in rounds),
        max(sum(m.memory for m in done) for done in rounds),
        len(plan.parts),
        plan.picked,
    )


def _speed(plan: _Plan, done: Sequence[Measured]) -> float:
    """Of processes with a sweep each the sum: the one that ends first begins another trial."""
    if plan.sweeps > 1:
        return sum(m.steps / m.training for m in done)
    return sum(m.steps for m in done) / max(m.training for m in done)


# --- in a process of its own ---------------------------------------------------------------------


def keys_of(runs: int) -> list[tuple[float, int]]:
    """Five rates, then the same with the next seed."""
    return [(0.001 * (1 + k % 5), k // 5) for k in range(runs)]


def measure(
    case: str, runs: int, steps: int, at_once: int, device: str, threads: int = 1
) -> Measured:
    """Train `runs` runs of `steps` steps, `at_once` in a program."""
    from search.training.planner import train_short

    torch.set_num_threads(threads)
    prepared, keys = prepared_case(case, device), keys_of(runs)
    before, began = _memory(device), time.perf_counter()
    groups = [keys[k : k + at_once] for k in range(0, runs, at_once)]
    ended = [run for group in groups for run in train_short(prepared, group, steps)]
    whole = time.perf_counter() - began
    seconds = sum(run.seconds for run in ended)
    return Measured(sum(run.steps for run in ended), seconds, whole, _peak(device) - before)


def prepared_case(name: str, device: str) -> Any:
    """The case as the trainings take it, with random data."""
    from search.tasks.task import splits_to
    from search.training.prepared import Prepared

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
    """Medians (least to most, n), each way against the loop of its case; memory also as a share of
    what the runs would take one beside the other; what the planner picks, against the best."""
    head = f"{'case':<15}{'runs':>5}  {'way':<10}{'model-steps/s':>27}{'× loop':>8}"
    lines = [head + f"{'sweep s':>9}{'peak MB':>9}{'/ K × 1':>9}{'n':>4}"]
    loops = {(row.case, row.runs): row for row in rows if row.way == "loop"}
    for row in rows:
        loop = loops[row.case, row.runs]
        spread = f"{row.speed:,.0f} ({min(row.speeds):,.0f} to {max(row.speeds):,.0f})"
        share = row.memory / row.processes / (row.runs * max(1, loop.memory))
        lines.append(
            f"{row.case:<15}{row.runs:>5}  {row.way:<10}{spread:>27}{_ratio(row, loop):>8.2f}"
            f"{statistics.median(row.seconds):>9.2f}{row.memory / 1e6:>9.1f}{share:>9.2f}"
            f"{len(row.speeds):>4}"
        )
    return "\n".join([*lines, *told(rows)])


def told(rows: Sequence[Row]) -> list[str]:
    """What the planner picks in every case, and how fast that is against the best way."""
    lines = []
    for row in rows:
        if row.way == PICK:
            others = [r for r in rows if (r.case, r.runs) == (row.case, row.runs) and r != row]
            best = max(others, key=lambda other: other.speed)
            how = f"{_ratio(row, best):.2f} × the best ({best.way})"
            lines.append(f"{row.case}, {row.runs} runs: {how}; the planner takes {row.picked}")
    return lines


def _ratio(row: Row, other: Row) -> float:
    """The median over the rounds."""
    return statistics.median(a / b for a, b in zip(row.speeds, other.speeds, strict=True))


def as_json(rows: Iterable[Row]) -> str:
    """Every figure, with what it was measured on."""
    listed = [{**asdict(row), "speed": row.speed} for row in rows]
    return json.dumps({"sweeps": listed, **environment()}, indent=2)
