"""The end was asked for: workers write their checkpoints and leave, if that takes no longer than it
may."""

from __future__ import annotations

import time
from collections.abc import Collection

from search.study import Study
from search.training.checkpoints import Keeping, ask_to_pause, tidy

GRACE = 5.0
"""Seconds in which a worker is to end its step and write. Ray's own end takes 1 to 3 more, and
SLURM, Kubernetes and shells wait for 30 or more."""


class Pausing:
    """The driver's part in checkpoints."""

    def __init__(self, keeping: Keeping | None, study: Study):
        self.keeping = keeping
        self.study = study
        self.until: float | None = None

    def tidy(self) -> None:
        """Remove what no trial goes on from, and an earlier wish to pause."""
        if self.keeping is not None:
            tidy(self.keeping.folder, self.study.checkpoints())

    def ended(self, name: str) -> None:
        """A trial will not go on from its checkpoints: it has ended."""
        if self.keeping is not None:
            self.keeping.of_trial(name).remove()

    def over(self, running: Collection[str]) -> bool:
        """Whether the search may be left: nobody runs any more, or the time is up. The first call
        asks them."""
        if self.keeping is None:
            return True
        if self.until is None:
            asked = ask_to_pause(self.keeping.folder)
            self.until = time.monotonic() + (GRACE if asked else 0.0)
        return not running or time.monotonic() > self.until
