"""`log.jsonl` in a study's folder: a line of JSON for every decision, in the order they were taken.

    {"time": "2026-11-22T06:00:00.123+00:00", "what": "launched", "trial": 3, "by": "tpe", …}

Lines are only ever added. A driver that is killed leaves half a line at most, and the next one
begins a new line after it. The database is the truth; what cannot be written here is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from search.records import Run, Trial

LOG = "log.jsonl"


Decide = Callable[..., None]
"""`decide(what, **fields)` keeps a decision."""


def unlogged(what: str, **fields: Any) -> None:
    """Keeps nothing: of studies in memory."""


class Log:
    """Adds lines to a file."""

    def __init__(self, path: Path):
        self.path = path
        self.whole = False
        """Whether the file is known to end with a line's end."""

    def __call__(self, what: str, **fields: Any) -> None:
        """One decision; fields that are None or empty are left out."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        kept = {key: value for key, value in fields.items() if value is not None and value != ""}
        line = json.dumps({"time": now, "what": what, **kept}, ensure_ascii=False) + "\n"
        with suppress(OSError):
            before = "" if self.whole or _ends_whole(self.path) else "\n"
            self.whole = False
            with self.path.open("ab") as file:
                file.write((before + line).encode())
            self.whole = True


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The decisions of the study in a folder; half a line, of a driver that was killed, is not one.

    Nothing is read of a study without a log.
    """
    try:
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(json.loads(line))
    return [each for each in found if isinstance(each, dict)]


def run_summary(run: Run) -> dict[str, Any]:
    """A run in a few words."""
    keys = ("learning_rate", "seed", "state", "reason", "score")
    return {key: getattr(run, key) for key in keys} | {"seconds": round(run.seconds, 3)}


def trial_summary(trial: Trial) -> dict[str, Any]:
    """A trial's end in a few words."""
    keys = ("state", "reason", "score", "best_rate", "duplicate_of")
    return {key: getattr(trial, key) for key in keys} | {"seconds": round(trial.seconds, 3)}


def _ends_whole(path: Path) -> bool:
    """Whether a file is missing, empty, or ends with a line's end."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            if file.tell() == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except FileNotFoundError:
        return True
