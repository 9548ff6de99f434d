"""What a study wants of checkpoints, and how its driver asks for a pause and clears up."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from search.training.checkpoints.store import Directory

STOP = "stop"
"""The file that asks all workers to pause; see `ask_to_pause`."""
TRIAL = "trial_"
"""How a trial's folder is called, with its number."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where a study keeps checkpoints, and how often one is written."""

    folder: Path
    steps: int | None = None
    """After every so many."""
    seconds: float | None = 60.0
    """After so many since the last, or since the training began: shorter ones write none."""

    def of_trial(self, name: str) -> Directory:
        """Those of one trial."""
        return Directory(self.folder / name)

    def asked_to_pause(self) -> bool:
        """Whether somebody asked for the end."""
        return (self.folder / STOP).exists()


def ask_to_pause(folder: Path) -> bool:
    """Ask every worker to write its checkpoints and leave; whether that could be said."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STOP).touch()
        return True
    return False


def tidy(folder: Path, wanted: Collection[str]) -> None:
    """Remove the checkpoints of trials that nobody goes on with, and an earlier wish to pause."""
    with suppress(OSError):
        (folder / STOP).unlink(missing_ok=True)
        for path in folder.glob(f"{TRIAL}*"):
            if path.name not in wanted:
                Directory(path).remove()
        if not any(folder.iterdir()):
            folder.rmdir()
