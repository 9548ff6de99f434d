"""How many runs of a sweep train at once: timed, not guessed.

One batch of all members is not always the fastest: small models leave a device idle and gain, large
ones gain nothing. Short real runs (`PROBE` steps, no evaluation to speak of) of every way take
turns, and the fastest by model-steps per second is taken. In a study of many minutes it is timed
too how many processes share the machine, and where the recipe leaves it open (`compile: auto`),
whether a compiled step wins back its compiler's time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from search.environment import environment
from search.records import Key, Run
from search.tasks.task import Split, find_task, recipe_with
from search.training.batched import BatchingError, run_together
from search.training.batched.memory import out_of_memory
from search.training.choice import Choice, read_choice, write_choice
from search.training.job import Training
from search.training.loop import run_epochs
from search.training.prepared import Prepared, prepare
from search.training.rates import Grid
from search.training.side_by_side import (
    ENOUGH,
    Load,
    Room,
    fastest,
    promising,
    steps_for,
    time_ways,
    ways_on_cpu,
    ways_on_gpu,
)
from search.training.sweep import drain

PROBE = 40
"""Steps of a timed run, at most; the first pays for allocation, and all ways pay it."""
PATIENCE = 0.6
"""Seconds that a timed batch should take; long steps make its runs shorter."""
ROUNDS = 3
TYPICAL = "x * sigmoid(b * x) where b = 1 per layer"
"""The activation that is timed: one fused kernel and a parameter, as most candidates have."""


def plan_batching(prepared: Prepared, grid: Grid) -> Choice:
    """The fastest way to train the grid's runs on this device, measured now."""
    runs = runs_of(grid)
    sizes = sorted({len(runs), -(-len(runs) // 2), 1})
    if len(sizes) < 2:
        return Choice(1, reason="a sweep is a single run")
    speeds: dict[int, list[float]] = {}
    began, steps = time.perf_counter(), _steps(prepared, runs)
    for _ in range(ROUNDS):
        for size in sizes:
            try:
                speed = timed(prepared, runs[:size], steps)
            except BatchingError as error:
                return Choice(1, reason=str(error))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or size == 1:
                    raise
                speeds.pop(size, None)
                smaller = {s for s in sizes if s < size}
                sizes = sorted(smaller if smaller - {1} else {1, -(-size // 2)})
                break
            speeds.setdefault(size, []).append(speed)
        if time.perf_counter() - began > ENOUGH:
            break
        good = promising(speeds)
        sizes = [size for size in sizes if size in good or size not in speeds]
    medians = tuple((size, statistics.median(found)) for size, found in sorted(speeds.items()))
    return Choice(max(medians, key=lambda pair: pair[1])[0], medians)


def runs_of(grid: Grid) -> list[Key]:
    """Every rate with every seed."""
    return [(rate, seed) for rate in grid.rates for seed in grid.seeds]


def _steps(prepared: Prepared, runs: Sequence[Key]) -> int:
    """Steps with which the largest batch takes about PATIENCE seconds."""
    speed = timed(prepared, runs[:1], 2)
    return min(PROBE, steps_for(PATIENCE, speed / len(runs)))


def timed(prepared: Prepared, keys: Sequence[Key], steps: int, compile: str = "off") -> float:
    """Model-steps per second of short runs that train together; of one, by the plain loop."""
    validation = prepared.splits.validation
    few = Split(validation.inputs[:2], validation.targets[:2])
    short = replace(
        prepared,
        splits=replace(prepared.splits, validation=few),
        recipe=recipe_with(prepared.recipe, {"compile": compile}),
    )
    return speed_of(train_short(short, [(1e-9 * rate, seed) for rate, seed in keys], steps))


def train_short(prepared: Prepared, keys: Sequence[Key], steps: int) -> list[Run]:
    """Runs of at most `steps` steps: several together, one by the plain loop."""
    most = min(steps, prepared.steps)
    shared: dict[str, Any] = {
        "options": prepared.options,
        "recipe": replace(prepared.recipe, max_steps=most),
        "device": prepared.device,
    }
    program = prepared.task, prepared.splits, prepared.maker(TYPICAL)
    if len(keys) > 1:
        epochs = run_together(*program, keys=keys, **shared)
        return [run for epoch in epochs for run in epoch.ended]
    ((rate, seed),) = keys
    return [drain(run_epochs(*program, learning_rate=rate, seed=seed, **shared))]


def speed_of(runs: Sequence[Run]) -> float:
    """Model-steps per second of training."""
    return sum(run.steps for run in runs) / sum(run.seconds for run in runs)


# --- processes, and compiled steps ---------------------------------------------------------------

WORTH = 300.0
"""Seconds of training from which processes are timed, which takes 10."""
AGAIN = 2.0
"""How often a candidate compiles: its grid, and a rate that extends it, are of two sizes."""


def with_processes(
    choice: Choice, load: Load, grid: Grid, threads: int, room: Room | None
) -> Choice:
    """The choice with how many processes train side by side, measured where it matters.

    load: of the task, in this process and in others.
    """
    if room is None or max(room.most, room.cpus) < 2:
        return choice
    prepared, runs = load(), runs_of(grid)
    alone = dict(choice.speeds).get(choice.at_once) or timed(prepared, runs[:1], 3)
    if room.runs * prepared.steps / alone < WORTH:
        return choice
    if prepared.device == "cpu":
        sizes = [choice.at_once]
        if choice.speeds:  # what is best alone need not be where two share a cache
            sizes = sorted({1, choice.at_once, len(runs)}, reverse=True)
        ways = ways_on_cpu(room.most, room.cpus, threads, sizes)
    else:
        timed(prepared, runs[: choice.at_once], 3)
        memory = torch.cuda.max_memory_reserved(prepared.device)
        _, total = torch.cuda.mem_get_info(prepared.device)
        ways = ways_on_gpu(room.most, threads, choice.at_once, memory, total)
    if len(ways) < 2 or not (speeds := time_ways(load, ways, runs)):
        return choice
    way = fastest(dict(speeds))
    return replace(choice, at_once=way.at_once, way=way, ways=speeds)


def with_compile(choice: Choice, prepared: Prepared, grid: Grid) -> Choice:
    """The choice with the step compiled, where that saves more time than the compiler takes."""
    keys = runs_of(grid)[: choice.at_once]
    if len(keys) < 2:
        return replace(choice, compile="off", compiled="not compiled: runs train one by one")
    steps = _steps(prepared, keys)
    best, told = "off", []
    speed = eager = timed(prepared, keys, steps)
    for way in ("cudagraphs", "inductor") if prepared.device != "cpu" else ("inductor",):
        began = time.perf_counter()
        found = timed(prepared, keys, steps, way)
        spent = time.perf_counter() - began - steps * len(keys) / found
        told.append(f"{way} {found:,.0f} after {spent:.1f} s against {eager:,.0f} as it is")
        if pays(prepared.steps * len(runs_of(grid)), speed, found, spent):
            best, speed = way, found
    how = "as it is" if best == "off" else f"compiled by {best}"
    return replace(choice, compile=best, compiled=f"a step {how}: {', '.join(told)}")


def pays(steps: int, before: float, after: float, spent: float) -> bool:
    """Whether `steps` model-steps at `after` a second, in place of `before`, are worth `spent`
    seconds of compiling, and those of a grid's extension.

    >>> pays(5_000, 5000.0, 10000.0, 15.0), pays(500_000, 5000.0, 10000.0, 15.0)
    (False, True)
    """
    return steps * (1 / before - 1 / after) > AGAIN * spent


# --- kept with the study -------------------------------------------------------------------------


def measured(training: Training, wanted: int | None = None, room: Room | None = None) -> Choice:
    """The fastest way to train, measured now and here; see `planned`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(training.threads)
    try:
        return _measured(training, wanted, room)
    finally:
        torch.set_num_threads(threads)


Measure = Callable[[Training, int | None, Room | None], Choice]
"""Takes the measurement as `measured` does, here or on another machine."""


def planned(
    training: Training,
    wanted: int | None,
    path: Path | None,
    room: Room | None = None,
    measure: Measure = measured,
) -> tuple[Training, Choice]:
    """The training with its runs batched as `wanted` (see `Space.batching`), and the choice.

    Args:
        path: where a measured choice is kept; None: it is measured now.
        room: what the number of processes may be chosen from; None: it is as the resources say.
        measure: takes the measurement, where it is not to be taken here.
    """
    if training.workers > 1:
        reason = f"a run takes {training.workers} processes"
        return replace(training, at_once=1), Choice(1, reason=reason)
    choice = _kept(path, training, wanted, room, measure)
    training = replace(training, at_once=choice.at_once)
    if choice.way is not None:
        way = choice.way
        training = replace(training, threads=way.threads, processes=way.processes)
    if choice.compile is not None:
        training = replace(training, recipe={**training.recipe, "compile": choice.compile})
    return training, choice


def _kept(
    path: Path | None, training: Training, wanted: int | None, room: Room | None, measure: Measure
) -> Choice:
    """The choice in the file, if it was made for the same training on the same machine; else a new
    one, written there."""
    here = environment()
    about = {
        "training": repr(replace(training, folder=Path(), data_root=None)),
        **{name: here[name] for name in ("cpu", "cpus", "gpu")},
    }
    about |= {"torch": torch.__version__, "wanted": wanted, "room": room and asdict(room)}
    about |= {} if measure is measured else {"cluster": True}
    if path is not None and (found := read_choice(path, about)):
        return found
    if wanted is not None and room is None and not _open(training):
        return _as_said(wanted)
    choice = measure(training, wanted, room)
    if path is not None and (wanted is None or choice.way or choice.compile):
        write_choice(path, choice, about)
    return choice


def _measured(training: Training, wanted: int | None, room: Room | None) -> Choice:
    load = partial(prepare, training)
    choice = plan_batching(load(), training.grid) if wanted is None else _as_said(wanted)
    choice = with_processes(choice, load, training.grid, training.threads, room)
    return with_compile(choice, load(), training.grid) if _open(training) else choice


def _as_said(wanted: int) -> Choice:
    return Choice(wanted, reason="as the space file says")


def _open(training: Training) -> bool:
    """Whether it is left open how a step is computed."""
    recipe = find_task(training.task, training.folder).recipe
    return recipe_with(recipe, training.recipe).compile == "auto"
