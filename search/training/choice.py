"""What the planner chose, in words and in a file of the study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from search.errors import StudyError
from search.training.side_by_side import Way

CHOICE = "batching.json"
"""The file in a study's folder."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How the runs of a study are trained."""

    at_once: int
    """Runs in one program; 1 is the plain loop."""
    speeds: tuple[tuple[int, float], ...] = ()
    """Model-steps per second of one process by how many train at once."""
    reason: str = ""
    """Why runs are not batched, where that is not a matter of speed."""
    way: Way | None = None
    """Processes and threads; None: as the resources say."""
    ways: tuple[tuple[Way, float], ...] = ()
    """Model-steps per second of all processes together, by way."""
    compile: str | None = None
    """How a step is computed, where the recipe leaves it open (`compile: auto`)."""
    compiled: str = ""
    """Why so."""

    @property
    def gain(self) -> float:
        """How many times as fast as the plain loop each process is; 1 where that was not
        measured."""
        speeds, ways = dict(self.speeds), dict(self.ways)
        if self.way in ways and 1 in speeds:
            return ways[self.way] / self.way.processes / speeds[1]
        return speeds[self.at_once] / speeds[1] if {1, self.at_once} <= speeds.keys() else 1.0

    @property
    def words(self) -> str:
        """The choice and what was measured.

        >>> Choice(10, ((1, 2031.0), (10, 4312.4))).words
        '10 runs in one program; model-steps/s: 2,031 one by one, 4,312 with 10'
        """
        way = f"{self.at_once} runs in one program" if self.at_once > 1 else "runs one by one"
        told = [
            f"{speed:,.0f} {'one by one' if size == 1 else f'with {size}'}"
            for size, speed in self.speeds
        ]
        told += [f"{speed:,.0f} in {each.words}" for each, speed in self.ways]
        parts = [
            way + (f", {self.way.shape}" if self.way else ""),
            self.reason,
            f"model-steps/s: {', '.join(told)}" if told else "",
            self.compiled,
        ]
        return "; ".join(filter(None, parts))


def write_choice(path: Path, choice: Choice, about: Mapping[str, object]) -> None:
    """Keep a choice with what it is for.

    Raises:
        StudyError: the file cannot be written.
    """
    text = json.dumps({"for": about, "choice": asdict(choice)}, indent=1)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise StudyError(f"{path}: cannot be written: {error.strerror or error}") from None


def read_choice(path: Path, about: Mapping[str, object]) -> Choice | None:
    """The kept choice, if it was made for the same; None: none yet, or it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["for"] != about:
            return None
        choice = found["choice"]
        way = choice["way"] and Way(**choice["way"])
        return Choice(
            at_once=int(choice["at_once"]),
            speeds=tuple((int(size), float(speed)) for size, speed in choice["speeds"]),
            reason=str(choice["reason"]),
            way=way,
            ways=tuple((Way(**each), float(speed)) for each, speed in choice["ways"]),
            compile=choice["compile"],
            compiled=str(choice["compiled"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
