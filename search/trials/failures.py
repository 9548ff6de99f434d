"""Failures before anything worked are held back: it may be the task that is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from search.errors import StudyError

ALIKE = 3
"""So many failures with one reason, before anything worked, end the search: the task is wrong."""


def refuse_alike(reasons: Iterable[str], what: str, place: str = "") -> None:
    """Raises StudyError when `ALIKE` failures give one reason; `what` failed, and where.

    >>> refuse_alike(["no memory", "no such layer", "no memory"], "trials")
    """
    for reason, times in Counter(reasons).most_common(1):
        if times >= ALIKE:
            raise StudyError(f"{place}the first {times} {what} failed alike: {reason}")


@dataclass(slots=True)
class Failures:
    """Trials that failed and of which the study is not told yet, with their outcomes."""

    held: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def hold(self, study: str, number: int, outcome: Mapping[str, Any]) -> None:
        """Hold a failure back; `outcome` has the fields of its record.

        Raises:
            StudyError: that many trials failed alike, and none worked.
        """
        self.held[number] = outcome
        refuse_alike((told["reason"] for told in self.held.values()), "trials", f"{study}: ")

    def taken(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Each of them, to be told: something worked, or nothing is left to try."""
        for number in list(self.held):
            yield number, self.held.pop(number)
