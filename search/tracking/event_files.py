"""A study as TensorBoard's event files: `python -m search.report results/gated --tensorboard`.

    tensorboard/study/                        score of every trial, and the best so far, by number
    tensorboard/0012 x * gompertz(x)/0.01 1/  curves of a run, by step: its rate, its seed

A run that has been written is left as it is, so the same command adds what is new.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from search.errors import StudyError
from search.records import Run, Trial

LONGEST = 60
"""Characters of a formula in a folder's name."""


def write_events(trials: Sequence[Trial], folder: Path, maximize: bool) -> int:
    """Write what is not there yet; how many runs that was.

    Raises:
        StudyError: the package is missing, or the folder cannot be written.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise StudyError(
            "--tensorboard needs the package tensorboardX; expected pip install"
            " 'activation-search[tensorboard]'"
        ) from None
    try:
        _whole(folder / "study", SummaryWriter, lambda writer: _study(writer, trials, maximize))
        new = [(place, run) for place, run in places(trials, folder) if not place.exists()]
        for place, run in new:
            _whole(place, SummaryWriter, lambda writer, run=run: _curve(writer, run))
    except OSError as error:
        told = error.strerror or error
        raise StudyError(f"{error.filename or folder}: cannot be written: {told}") from None
    return len(new)


def places(trials: Sequence[Trial], folder: Path) -> Iterator[tuple[Path, Run]]:
    """Every run, after the folder of its event file."""
    for trial in trials:
        what = f"{trial.name} {trial.expression}" if trial.name else trial.expression
        label = re.sub(r"[^\w *+().,-]", "_", what)[:LONGEST].strip()
        for run in trial.runs:
            yield folder / f"{trial.number:04d} {label}" / f"{run.learning_rate:g} {run.seed}", run


def _whole(place: Path, writer: Any, write: Callable[[Any], None]) -> None:
    """Write a folder under another name and then move it: it is there whole or not at all."""
    draft = place.with_name(f".{place.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    with closing(writer(str(draft))) as opened:
        write(opened)
    shutil.rmtree(place, ignore_errors=True)
    os.replace(draft, place)


def _curve(writer: Any, run: Run) -> None:
    for point in run.curve:
        writer.add_scalar("validation/score", point.score, point.step)
        writer.add_scalar("validation/loss", point.loss, point.step)
        writer.add_scalar("training/loss", point.train_loss, point.step)


def _study(writer: Any, trials: Sequence[Trial], maximize: bool) -> None:
    best = None
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.origin != "search" or trial.score is None:
            continue
        better = best is None or (trial.score > best) == maximize
        best = trial.score if better else best
        writer.add_scalar("study/score", trial.score, trial.number)
        writer.add_scalar("study/best", best, trial.number)
        if trial.cost is not None:
            writer.add_scalar("study/cost", trial.cost, trial.number)
