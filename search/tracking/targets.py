"""A study's records for other programs that show experiments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from search.database.reading import read_trials
from search.figures.settings import settings_from_folder
from search.tracking.event_files import write_events
from search.tracking.mlflow_runs import write_runs


def track(folder: Path, tensorboard: Path | None, mlflow: str | None) -> Iterator[str]:
    """Write what is wanted, and say a line for each.

    Args:
        tensorboard: a folder; a relative one lies in the study's.
        mlflow: a tracking URI.

    Raises:
        StudyError: there is no study, a package is missing, or nothing can be written.
    """
    settings, trials = settings_from_folder(folder), read_trials(folder)
    trials += [final for trial in trials for final in trial.finals]
    if tensorboard is not None:
        place = folder / tensorboard
        runs = write_events(trials, place, settings.maximize)
        yield f"tensorboard  {runs} new runs; tensorboard --logdir {place}"
    if mlflow is not None:
        new = write_runs(trials, settings.name, mlflow)
        yield f"mlflow       {new} new trials; mlflow ui --backend-store-uri {mlflow}"
