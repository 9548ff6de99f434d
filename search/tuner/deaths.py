"""Why a worker broke down, from what Ray says of it; and how long it may be silent.

A worker may hang where no Python runs any more, so its time is kept in the driver, which has Ray
end the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ray._private import ray_logging

from search.study import Launch
from search.training.job import Training
from search.trials.continuing import Cause

LONGEST_PAUSE = 1.0
"""Seconds that count, at most, between two looks at the clock: a driver that was busy or stopped
has unread messages, and the workers are not to blame."""
LONGEST = 200
"""Characters of an error that are kept."""
_NODE_LOST = ("node has died", "node was dead", "actor is temporarily unavailable")
"""The last where a worker's machine neither answers nor is known to be dead: of a process that died
on a machine that lives, Ray knows it within milliseconds."""
_RAYLET = re.compile(
    r"orker died or was killed|orker\(s\) were killed|Raylet is terminated|\[state-dump\]"
)


@dataclass(frozen=True, slots=True)
class Death:
    """How a trial broke down."""

    reason: str
    cause: Cause | None
    """Who ended the process; None where it lives and the candidate raised an error."""


def death(told: str) -> Death:
    """What Ray's text of an error means.

    >>> death("The actor is dead because its node has died.").cause
    'node'
    >>> death("Failure # 1\\nray::train() (pid=7)\\nValueError: no")
    Death(reason='ValueError: no', cause=None)
    """
    if any(words in told for words in _NODE_LOST):
        return Death("its machine was lost", "node")
    if "low on memory" in told:
        return Death("out of memory: Ray ended its worker process", "worker")
    if "failed to import on the worker" in told:
        errors = re.findall(r"^\s*(\w+(?:Error|Exception): .*)$", told, re.MULTILINE)
        why = errors[-1][:LONGEST] if errors else "packages differ"
        return Death(f"it cannot load what it is sent: {why}", "worker")
    if "worker process has died" in told or "actor died unexpectedly" in told:
        code = re.search(r"with an exit code (\d+)", told)
        how = f"ended with exit code {code[1]}" if code else "crashed or was killed"
        return Death(f"its worker process {how}", "worker")
    lines = [line.strip() for line in told.split("\n") if line.strip()]
    return Death(lines[-1][:LONGEST] if lines else "its worker broke down", None)


@contextmanager
def quiet_deaths() -> Iterator[None]:
    """Ray prints 200 words for every worker that dies, also with `log_to_driver=False`; a line of
    ours stands for them. Its variable for that, RAY_DEDUP_LOGS_SKIP_REGEX, is read once and before
    anything of ours runs."""
    printed = getattr(ray_logging, "stdout_deduplicator", None)
    before = getattr(printed, "skip_re", None)
    if printed is not None:
        printed.skip_re = _RAYLET
    try:
        yield
    finally:
        if printed is not None:
            printed.skip_re = before


def patience(timeout: float | None, training: Training, launch: Launch) -> float | None:
    """Seconds in which a worker must send something: `timeout` for every run that trains at once.

    Args:
        timeout: of one run of the search.
    """
    if timeout is None:
        return None
    again = launch.rate is not None
    rates = launch.rates or ((launch.rate,) if again else training.grid.rates)
    runs = len(rates) * len(launch.seeds or training.grid.seeds)
    at_once = runs if training.in_step and not again else 1 if launch.alone else training.at_once
    return timeout * launch.budget * min(at_once, runs)


class Silence:
    """How long each trial's worker has sent nothing."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.allowed: dict[str, float] = {}
        self.looked: float | None = None

    def broken(self, trial_id: str, allowed: float | None) -> None:
        """A message came; the next one must come within `allowed` seconds."""
        if allowed is not None:
            self.allowed[trial_id], self.seconds[trial_id] = allowed, 0.0

    def ended(self, trial_id: str) -> None:
        """Nothing more will come of this one."""
        self.seconds.pop(trial_id, None)

    def too_long(self, now: float) -> list[str]:
        """Who has been silent for too long at `now`, in seconds of a clock."""
        passed = 0.0 if self.looked is None else min(now - self.looked, LONGEST_PAUSE)
        self.looked = now
        for trial_id in self.seconds:
            self.seconds[trial_id] += passed
        return [each for each, silent in self.seconds.items() if silent > self.allowed[each]]
