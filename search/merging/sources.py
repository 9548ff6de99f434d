"""The studies that are merged, each read from a copy of its database: nothing of theirs changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from search.claiming import in_use
from search.database.attributes import launched, recorded, runs_of
from search.database.definitions import Direction, differences, directions_of
from search.database.opening import existing_database
from search.database.storage import DATABASE, POINTER, found_place, reading
from search.errors import StudyError, shown
from search.integrity.audit import Entry, entries_of, problems
from search.integrity.salvage import BESIDE
from search.merging.joining import Kept

MAY_DIFFER = ("name", "search.seed", "search.sampler")
"""Keys of a definition that say nothing about what a score means."""
TRAINED = ("complete", "pruned", "diverged", "failed")


@dataclass(frozen=True, slots=True)
class Source:
    """A study that is merged."""

    folder: Path
    study: str
    """Optuna's name."""
    definition: dict[str, Any]
    directions: list[Direction]
    exhausted: str
    trials: tuple[Kept, ...]
    """Those that were launched, but for those that go on in a later one."""
    space: dict[str, Any]
    """Its space.yaml and environment.json, as far as they can be read."""
    environment: dict[str, Any]

    def trained(self) -> int:
        """Candidates that count against the budget."""
        candidates = [kept.trial for kept in self.trials if kept.trial.origin == "search"]
        return sum(trial.state in TRAINED for trial in candidates)

    @property
    def left(self) -> int:
        """Of its budget."""
        search = self.space.get("search")
        trials = search.get("trials", 0) if isinstance(search, dict) else 0
        return max(0, int(trials) - self.trained()) if isinstance(trials, int) else 0


def read_source(index: int, folder: Path) -> Source:
    """Everything of a study, from a copy of its database.

    Raises:
        StudyError: a search writes there, or its records are not what was written.
    """
    found_place(folder)
    if in_use(folder):
        raise StudyError(f"{folder}: a search is writing here; expected that to end")
    with TemporaryDirectory(prefix="merge-") as copy:
        try:
            for name in (DATABASE, f"{DATABASE}{BESIDE[0]}", POINTER):
                with suppress(FileNotFoundError):
                    shutil.copyfile(folder / name, Path(copy) / name)
            return _source(index, folder, Path(copy))
        except OSError as error:
            raise StudyError(f"{folder}: cannot be read: {error.strerror or error}") from None
        except StudyError as error:  # in the words of its own place
            raise StudyError(
                *(each.replace(copy, str(folder)) for each in error.problems)
            ) from None


def _source(index: int, folder: Path, copy: Path) -> Source:
    with existing_database(copy) as database:
        wrong = [each.told for each in problems(database, driven=True)]
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            mend = f"expected python -m search.run --check {folder} to find nothing"
            raise StudyError(f"{folder}: {wrong[0]}{more}; {mend}")
        with reading(database.place):
            return Source(
                folder,
                database.search.study_name,
                database.search.user_attrs["definition"],
                directions_of(database.search),
                database.search.user_attrs.get("exhausted", ""),
                tuple(_kept(index, folder, entry) for entry in entries_of(database) if _is(entry)),
                _mapping(folder / "space.yaml", yaml.safe_load),
                _mapping(folder / "environment.json", json.loads),
            )


def _is(entry: Entry) -> bool:
    return "candidate" in entry.attributes and "continued" not in entry.attributes


def _kept(index: int, folder: Path, entry: Entry) -> Kept:
    candidate = entry.attributes["candidate"]
    trial = recorded(entry.frozen) or launched(entry.number, candidate)
    runs = runs_of(entry.attributes)
    trial = replace(trial, runs=runs, choices=candidate["choices"])
    place = f"{folder}/{entry.number}"
    return Kept(index, place, entry.baselines, entry.frozen, trial)


def _mapping(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def refuse_another_space(first: Source, other: Source) -> None:
    """Raises StudyError with the first key that differs."""
    for key, here, there in differences(first.definition, other.definition):
        if key not in MAY_DIFFER:
            told = f"{other.folder}: another space than that of {first.folder}"
            values = f"{key} is {shown(there)}, and there {shown(here)}"
            raise StudyError(f"{told}: {values}; expected studies of one space")
    if first.directions != other.directions:
        raise StudyError(f"{other.folder}: its directions are {other.directions}")
