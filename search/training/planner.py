"""How many runs of a sweep train at once: timed, not guessed.

One batch of all members is not always the fastest: small models leave a device idle and gain, large
ones gain nothing. Short real runs (`PROBE` steps, no evaluation to speak of) of every way take
turns, and the fastest by model-steps per second is taken.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from search.activation import Activation
from search.environment import environment
from search.errors import StudyError
from search.records import Key, Run
from search.tasks.task import Split
from search.training.batched import run_together
from search.training.candidate import Prepared, Training, prepare
from search.training.loop import run_epochs
from search.training.memory import out_of_memory
from search.training.stacked import BatchingError
from search.training.sweep import Grid, drain

PROBE = 40
"""Steps of a timed run, at most; the first pays for allocation, and all ways pay it."""
PATIENCE = 0.25
"""Seconds that a timed batch should take; long steps make its runs shorter."""
ROUNDS = 3
TYPICAL = "x * sigmoid(b * x) where b = 1 per layer"
"""The activation that is timed: one fused kernel and a parameter, as most candidates have."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How the runs of a study are trained."""

    at_once: int
    """Runs in one program; 1 is the plain loop."""
    speeds: tuple[tuple[int, float], ...] = ()
    """Model-steps per second by how many train at once."""
    reason: str = ""
    """Why runs are not batched, where that is not a matter of speed."""

    @property
    def gain(self) -> float:
        """How many times as fast as the plain loop; 1 where that was not measured."""
        speeds = dict(self.speeds)
        return speeds[self.at_once] / speeds[1] if {1, self.at_once} <= speeds.keys() else 1.0

    @property
    def words(self) -> str:
        """The choice and what was measured.

        >>> Choice(10, ((1, 2031.0), (10, 4312.4))).words
        '10 runs in one program; model-steps/s: 2,031 one by one, 4,312 with 10'
        """
        way = f"{self.at_once} runs in one program" if self.at_once > 1 else "runs one by one"
        told = ", ".join(
            f"{speed:,.0f} {'one by one' if size == 1 else f'with {size}'}"
            for size, speed in self.speeds
        )
        return way + (f"; {self.reason}" if self.reason else f"; model-steps/s: {told}")


def plan_batching(prepared: Prepared, grid: Grid) -> Choice:
    """The fastest way to train the grid's runs on this device, measured now."""
    runs = [(rate, seed) for rate in grid.rates for seed in grid.seeds]
    sizes = sorted({len(runs), -(-len(runs) // 2)} - {1})
    if not sizes:
        return Choice(1, reason="a sweep is a single run")
    speeds: dict[int, list[float]] = {}
    steps = _steps(prepared, runs)
    for _ in range(ROUNDS):
        for size in (1, *sizes):
            try:
                speed = timed(prepared, runs[:size], steps)
            except BatchingError as error:
                return Choice(1, reason=str(error))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or size == 1:
                    raise
                sizes = [s for s in sizes if s < size] or [-(-size // 2)]
                break
            speeds.setdefault(size, []).append(speed)
    medians = tuple((size, statistics.median(found)) for size, found in sorted(speeds.items()))
    return Choice(max(medians, key=lambda pair: pair[1])[0], medians)


def _steps(prepared: Prepared, runs: Sequence[Key]) -> int:
    """Steps with which the largest batch takes about PATIENCE seconds."""
    speed = timed(prepared, runs[:1], 3)
    return max(3, min(PROBE, int(PATIENCE * speed / len(runs))))


def timed(prepared: Prepared, keys: Sequence[Key], steps: int) -> float:
    """Model-steps per second of short runs that train together; of one, by the plain loop."""
    validation = prepared.splits.validation
    few = Split(validation.inputs[:2], validation.targets[:2])
    short = replace(prepared, splits=replace(prepared.splits, validation=few))
    return speed_of(train_short(short, [(1e-9 * rate, seed) for rate, seed in keys], steps))


def train_short(prepared: Prepared, keys: Sequence[Key], steps: int) -> list[Run]:
    """Runs of at most `steps` steps: several together, one by the plain loop."""
    most = min(steps, prepared.steps)
    shared: dict[str, Any] = {
        "options": prepared.options,
        "recipe": replace(prepared.recipe, max_steps=most),
        "device": prepared.device,
    }
    program = prepared.task, prepared.splits, partial(Activation, TYPICAL)
    if len(keys) > 1:
        epochs = run_together(*program, keys=keys, **shared)
        return [run for epoch in epochs for run in epoch.ended]
    ((rate, seed),) = keys
    return [drain(run_epochs(*program, learning_rate=rate, seed=seed, **shared))]


def speed_of(runs: Sequence[Run]) -> float:
    """Model-steps per second of training."""
    return sum(run.steps for run in runs) / sum(run.seconds for run in runs)


# --- kept with the study -------------------------------------------------------------------------

CHOICE = "batching.json"
"""The file in a study's folder."""


def measured(training: Training) -> Choice:
    """The fastest way to train, measured now and here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(training.threads)
    try:
        return plan_batching(prepare(training), training.grid)
    finally:
        torch.set_num_threads(threads)


def planned(
    training: Training,
    wanted: int | None,
    path: Path | None,
    measure: Callable[[Training], Choice] = measured,
) -> tuple[Training, Choice]:
    """The training with its runs batched as `wanted` (see `Space.batching`), and the choice.

    Args:
        path: where a measured choice is kept; None: it is measured now.
        measure: takes the measurement, where it is not to be taken here.
    """
    if training.workers > 1:
        reason = f"a run takes {training.workers} processes"
        return replace(training, at_once=1), Choice(1, reason=reason)
    if wanted is not None:
        return replace(training, at_once=wanted), Choice(wanted, reason="as the space file says")
    choice = _kept(path, training, measure)
    return replace(training, at_once=choice.at_once), choice


def _kept(path: Path | None, training: Training, measure: Callable[[Training], Choice]) -> Choice:
    """The choice in the file, if it was made for the same training on the same machine; else a new
    one, written there."""
    here = environment()
    about = {
        "training": repr(replace(training, folder=Path(), data_root=None)),
        **{name: here[name] for name in ("cpu", "cpus", "gpu")},
    }
    about |= {"torch": torch.__version__} | ({} if measure is measured else {"cluster": True})
    if path is not None and (found := _read(path, about)):
        return found
    choice = measure(training)
    if path is not None:
        text = json.dumps({"for": about, "choice": asdict(choice)}, indent=1)
        try:
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise StudyError(f"{path}: cannot be written: {error.strerror or error}") from None
    return choice


def _read(path: Path, about: Mapping[str, object]) -> Choice | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["for"] != about:
            return None
        choice = found["choice"]
        speeds = tuple((int(size), float(speed)) for size, speed in choice["speeds"])
        return Choice(int(choice["at_once"]), speeds, str(choice["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none yet, or one that cannot be read: it is made again
