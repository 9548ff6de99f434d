"""The folder of a study, `results/<name>`: who may write it, and what stands beside the database.

study.db                the trials; with `storage` in the space, storage.json tells where they are
space.yaml              the space, every default filled in
batching.json           how many runs train at once, and the timings behind that
environment.json        what was measured, on what machine, when
log.jsonl               a line for every decision
study.lock              held by the driver that writes
leaderboard.*, lr_heatmap.*, report/    see `search.figures.report`
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from search.claiming import LOCK, claimed, in_use
from search.environment import environment
from search.errors import StudyError
from search.space.settings import Space
from search.tasks.task import Task, options_with, recipe_with

__all__ = ["about", "claimed", "driver_recorded", "in_use", "lasting", "set_aside", "write_whole"]

JOB_FOLDER = "working_dir_files"
"""Under a folder of this name Ray unpacks what `ray job submit --working-dir` sends."""


def lasting(results: Path, here: Path | None = None, home: Path | None = None) -> Path:
    """Where results are kept: as given, but never in the working directory of a Ray job, which is
    thrown away when the job has ended; there, relative to `~/activation-search`.

    >>> lasting(Path("results"), Path("/tmp/ray/s/runtime_resources/working_dir_files/_ray_pkg_1"))
    ... # doctest: +ELLIPSIS
    PosixPath('.../activation-search/results')
    """
    if JOB_FOLDER not in (here or Path.cwd()).parts:
        return results
    return (home or Path.home()) / "activation-search" / results


def set_aside(folder: Path) -> Path | None:
    """Rename an earlier study's folder to the first free `folder.1`, `folder.2`, …

    Returns the new path, or None when there was nothing to set aside.

    Raises:
        StudyError: a search is writing there, or it cannot be renamed.
    """
    if not folder.is_dir() or not any(path.name != LOCK for path in folder.iterdir()):
        return None
    with claimed(folder):
        pass  # nobody writes there now
    numbered = (folder.with_name(f"{folder.name}.{number}") for number in count(1))
    aside = next(path for path in numbered if not path.exists())
    try:
        folder.rename(aside)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be renamed to {aside}: {error.strerror}") from None
    return aside


@contextmanager
def driver_recorded(folder: Path, space: Space, task: Task, study: str) -> Iterator[None]:
    """Write the settings now, and the driver's end when it ends, however it does."""
    began, clock = _now(), time.monotonic()
    path = folder / "environment.json"
    earlier = _earlier_drivers(path)
    settings = {**about(space, task, study), **environment()}
    text = yaml.safe_dump(space.resolved(), sort_keys=False, allow_unicode=True, width=100)
    write_whole(folder / "space.yaml", text)

    def write() -> None:
        now = {"started": began, "ended": _now(), "seconds": round(time.monotonic() - clock, 1)}
        every = [*earlier, now]
        times = {
            "started": every[0]["started"],
            "ended": now["ended"],
            "seconds": round(sum(each["seconds"] for each in every), 1),
            "sessions": every,  # the file's word for its drivers
        }
        write_whole(path, json.dumps({**settings, **times}, indent=2, ensure_ascii=False) + "\n")

    write()
    try:
        yield
    finally:
        write()


def about(space: Space, task: Task, study: str) -> dict[str, Any]:
    """What a report must know that the space leaves to the task: JSON values."""
    recipe = recipe_with(task.recipe, space.recipe)
    return {
        "study": study,
        "space": str(space.source),
        "title": task.title,
        "metric": task.metric,
        "maximize": task.maximize,
        "percent": "accuracy" in task.metric,
        "default_rate": space.learning_rate.default,
        "options": options_with(task, space.options),
        # Without the rate, which the sweep sets.
        "recipe": {k: v for k, v in asdict(recipe).items() if k != "learning_rate"},
    }


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step: a killed process leaves the old one or the new one.

    Raises:
        StudyError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise StudyError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)


def _earlier_drivers(path: Path) -> list[Mapping[str, Any]]:
    """When earlier drivers worked; none when the file is missing or not ours."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["sessions"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found if isinstance(found, list) else []


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
