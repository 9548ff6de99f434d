"""Our kernels against torch's operator, the composed formula, torch.compile and a copy.

Every case (a formula in one direction, size and dtype) is timed with all contestants in turn; see
`timing.py` for the clock, `contestants.py` for who runs, `goals.py` for what is to be reached. A
contestant that cannot run is a cell with its reason, and the others go on.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from search.benchmarks import contestants
from search.benchmarks.contestants import Contestant, Tensors
from search.benchmarks.first_step import CACHES, WARM_UP, first_steps
from search.benchmarks.kernel_plan import Plan
from search.benchmarks.kernel_table import Bench, goals, head, lines
from search.benchmarks.measured import (
    COMPILED,
    COPY,
    OURS,
    PEERS,
    First,
    Measurement,
    Spread,
    Timed,
)
from search.benchmarks.timing import (
    Prepare,
    calibrate,
    interleaved,
    keep_freed_memory,
    threads,
)
from search.environment import available_cpus, environment_variables
from search.language.expression import Expression
from search.language.parser import parse

_INDUCTOR = ("TORCHINDUCTOR_CACHE_DIR", *CACHES[1:])


@dataclass(frozen=True, slots=True)
class Subject:
    """A formula in one size and dtype, with everything built for it."""

    name: str
    expression: Expression
    elements: int
    dtype: str
    rendering: str
    sets: tuple[Tensors, ...]
    contestants: Mapping[str, Contestant]
    problems: Mapping[str, str]


# --- measuring ---------------------------------------------------------------------------------


def measure(plan: Plan) -> Iterator[Measurement]:
    """Every case of a plan, one after the other: formulas, then dtypes, sizes, directions."""
    for name, expression in plan.formulas:
        for dtype in plan.dtypes:
            for elements in plan.sizes:
                yield from _measure_subject(plan, name, expression, elements, dtype)


@contextmanager
def empty_caches() -> Iterator[None]:
    """Inductor compiles everything itself: its seconds are those of a formula never seen."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        environment_variables({name: f"{folder}/{name}" for name in _INDUCTOR}),
    ):
        yield


def start_compiler(plan: Plan) -> float | None:
    """Seconds of the first compilation in this process, most of them Inductor's start.

    Paid once and not charged to a formula. None where it fails, which every cell will tell, or
    where nothing is to be compiled.
    """
    if COMPILED not in plan.peers:
        return None
    device, expression = torch.device(plan.device), parse(WARM_UP)
    began = time.perf_counter()
    try:
        sets = contestants.make_tensors(expression, 2**12, torch.float32, device)
        contestant = contestants.make_compiled(expression, sets[0])
        for call in contestants.passes(contestant, "both", sets)(1):
            call()
    except Exception:
        return None
    return time.perf_counter() - began


def _measure_subject(
    plan: Plan, name: str, expression: Expression, elements: int, dtype: str
) -> Iterator[Measurement]:
    if COMPILED in plan.peers:  # compiled formulas share one module's code, which has a limit
        torch.compiler.reset()
    subject = _subject(plan, name, expression, elements, dtype)
    compile_seconds: dict[bool, float] = {}
    for direction in plan.directions:
        with torch.set_grad_enabled(direction != "forward"):
            measured = _measure(plan, subject, direction, compile_seconds)
        yield measured


def _subject(plan: Plan, name: str, expression: Expression, elements: int, dtype: str) -> Subject:
    """Build all contestants; what fails is kept as a line."""
    empty = Subject(name, expression, elements, dtype, "", (), {}, {})
    try:
        sets = contestants.make_tensors(
            expression, elements, getattr(torch, dtype), torch.device(plan.device)
        )
    except Exception as error:  # memory, or a dtype that a device cannot draw
        return replace(empty, problems=dict.fromkeys((OURS, *plan.peers), one_line(error)))
    rendering, built, problems = "", {}, {}
    try:
        built[OURS], rendering = contestants.make_ours(expression, sets[0], plan.kernel)
    except Exception as error:  # a kernel that cannot be built, on any device
        problems[OURS] = one_line(error)
    for peer, make in _MAKERS.items():
        try:
            contestant = make(expression, sets[0]) if peer in plan.peers else None
        except Exception as error:  # whatever torch says
            problems[peer] = one_line(error)
        else:
            if contestant is not None:
                built[peer] = contestant
    return replace(empty, sets=sets, rendering=rendering, contestants=built, problems=problems)


_MAKERS: dict[str, Callable[[Expression, Tensors], Contestant | None]] = {
    "native": contestants.make_native,
    "eager": contestants.make_eager,
    COMPILED: contestants.make_compiled,
}


def _measure(
    plan: Plan, subject: Subject, direction: str, compile_seconds: dict[bool, float]
) -> Measurement:
    """One case. `compile_seconds` remembers what the graphs with and without autograd took."""
    device, problems = torch.device(plan.device), dict(subject.problems)
    prepared = _prepared(plan, subject, direction)
    repetitions = dict[str, int]()
    for name, prepare in list(prepared.items()):
        try:
            began = time.perf_counter()
            for call in prepare(1):
                call()
            if name == COMPILED:
                compile_seconds.setdefault(direction != "forward", time.perf_counter() - began)
            repetitions[name] = calibrate(prepare, device)
        except Exception as error:  # a compiler that fails, memory, a dtype without an operator
            problems[name] = one_line(error)
            del prepared[name]
    times = {name: Timed(None, problem=problem) for name, problem in problems.items()}
    for name, found in interleaved(prepared, repetitions, plan.rounds, device).items():
        if isinstance(found, Exception):
            times[name] = Timed(None, problem=one_line(found))
            continue
        compiled = compile_seconds[direction != "forward"] if name == COMPILED else None
        times[name] = Timed(Spread(tuple(1e6 * s for s in found)), repetitions[name], compiled)
    return _measurement(subject, direction, times)


def _prepared(plan: Plan, subject: Subject, direction: str) -> dict[str, Prepare]:
    """How to make the passes of everybody who was built."""
    prepared = {
        name: contestants.passes(contestant, direction, subject.sets)
        for name, contestant in subject.contestants.items()
    }
    if COPY in plan.peers and subject.sets:
        prepared[COPY] = contestants.copies(direction, subject.sets)
    return prepared


def _measurement(subject: Subject, direction: str, times: Mapping[str, Timed]) -> Measurement:
    itemsize = getattr(torch, subject.dtype).itemsize
    moved = contestants.bytes_moved(subject.expression, direction, subject.elements, itemsize)
    return Measurement(
        name=subject.name,
        expression=str(subject.expression),
        direction=direction,
        elements=subject.elements,
        dtype=subject.dtype,
        bytes=moved,
        rendering=subject.rendering,
        times={name: times[name] for name in (OURS, *PEERS) if name in times},
    )


def one_line(error: Exception) -> str:
    """An error's class and what it says, cut to a line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:140]


# --- a whole run -------------------------------------------------------------------------------


def run(plan: Plan, say: Callable[[str], None]) -> Bench:
    """Measure a plan; `say` gets the table's lines as they are known. Ctrl-C keeps what is done."""
    first, batch, problems = _first_steps(plan)
    keep_freed_memory()
    found: list[Measurement] = []
    started = None
    try:
        with threads(plan.threads), empty_caches():
            started = start_compiler(plan)
            say(head(plan.peers))
            for measured in measure(plan):
                known = first.get((measured.expression, measured.dtype))
                found.append(replace(measured, first=known))
                for line in lines(found[-1], plan.peers):
                    say(line)
    except KeyboardInterrupt:
        problems = (*problems, f"stopped: {len(found)} of {plan.cases} cases are measured")
    problems = (*problems, *_busy())
    bench = Bench(plan, tuple(found), batch, started, problems)
    for line in (*problems, *goals(bench)):
        say(line)
    return bench


def _busy() -> tuple[str, ...]:
    """A line where more wanted to run than there are processors: medians are then too long."""
    load, cpus = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, available_cpus()
    busy = f"a busy machine: {load:.1f} processes for {cpus} processors in the last minute"
    return (busy,) if load > cpus else ()


def _first_steps(
    plan: Plan,
) -> tuple[dict[tuple[str, str], First | None], dict[str, float | None], tuple[str, ...]]:
    texts = [str(expression) for _, expression in plan.formulas]
    found: dict[tuple[str, str], First | None] = {}
    batch: dict[str, float | None] = {}
    problems = []
    for dtype in plan.dtypes:
        steps = first_steps(texts, plan.kernel, dtype, plan.device, plan.threads)
        found |= {(text, dtype): step for text, step in zip(texts, steps.steps, strict=True)}
        batch[dtype] = steps.batch_seconds
        if steps.problem:
            problems.append(f"first steps in {dtype} were not measured: {steps.problem}")
    return found, batch, tuple(problems)
