"""The books of a study after faults: what was lost, what was repeated, and how soon it went on.

The log is the witness: a line stands there for every run that ended, and the study must have each
of them once, whatever was killed since. Where FAULTS_RECORD names a file, a line of JSON for every
fault is added to it, which `results/records/2026-11-22_faults` was made of.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from search.decisions import LOG, read_log
from search.records import Trial
from search.study import read_trials

ENDED = ("complete", "pruned", "diverged", "failed", "rejected", "duplicate")

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Books:
    """What became of a study."""

    trials: int
    """That were trained."""
    runs: int
    """That ended, by the log."""
    lost: int
    """Runs of the log that the study does not have."""
    repeated: int
    """Runs that ended again after they had ended."""
    unended: int
    """Trials without a final state, and functions with two trials."""


def books_of(folder: Path) -> Books:
    """The books of a study that is complete."""
    searched = read_trials(folder)
    trials = [*searched, *(final for trial in searched for final in trial.finals)]
    trained = [t for t in trials if t.state not in ("rejected", "duplicate")]
    kept = {(t.expression, t.origin, r.learning_rate, r.seed) for t in trained for r in t.runs}
    logged = Counter(_runs(read_log(folder)))
    twice = Counter(t.fingerprint for t in trained if t.of is None)
    open_ends = sum(t.state not in ENDED for t in trials)
    return Books(
        trials=len(trained),
        runs=len(logged),
        lost=len(set(logged) - kept),
        repeated=sum(times - 1 for times in logged.values()),
        unended=open_ends + sum(times - 1 for times in twice.values()),
    )


def _runs(log: Sequence[Line]) -> list[tuple[str, str, float, int]]:
    """Every run that ended: formula, origin, rate, seed."""
    launched = {line["trial"]: line for line in log if line["what"] == "launched"}
    ended = [(line, launched[line["trial"]]) for line in log if line["what"] == "run"]
    return [
        (of["expression"], of["origin"], line["learning_rate"], line["seed"]) for line, of in ended
    ]


def told(folder: Path, what: str) -> int:
    """How many lines of this kind the log of a study has so far."""
    log = folder / LOG
    return log.read_bytes().count(f'"what": "{what}"'.encode()) if log.exists() else 0


def ended(folder: Path) -> dict[int, Trial]:
    """The trials that have ended so far."""
    return {trial.number: trial for trial in read_trials(folder) if trial.state in ENDED}


def now() -> datetime:
    """As the log writes it."""
    return datetime.now(UTC)


def until_a_run(folder: Path, since: datetime) -> float | None:
    """Seconds until the next run ended: of a driver's start, all that it takes to train again."""
    runs = (_time(line) for line in read_log(folder) if line["what"] == "run")
    return next(((time - since).total_seconds() for time in runs if time >= since), None)


def until_they_went_on(folder: Path, cause: str, struck: Sequence[datetime]) -> list[float]:
    """Of every trial that was lost by `cause`, the seconds from the last time that it struck until
    the trial had a worker again, or was given up."""
    log, found = read_log(folder), list[float]()
    for place, lost in enumerate(log):
        before = [time for time in struck if time <= _time(lost)]
        if lost["what"] == "lost" and lost["cause"] == cause and before:
            later = (line for line in log[place:] if _goes_on(line, lost["trial"]))
            found += [(_time(line) - before[-1]).total_seconds() for line in islice(later, 1)]
    return found


def _goes_on(line: Line, number: int) -> bool:
    own = number if number >= 0 else -1 - number
    again = line["what"] == "launched" and line.get("continues") == own
    return (again and (line["trial"] < 0) == (number < 0)) or (
        line["what"] == "ended" and line["trial"] == number
    )


def seconds_between(first: Line, later: Line) -> float:
    """Of two lines of a log."""
    return (_time(later) - _time(first)).total_seconds()


def _time(line: Line) -> datetime:
    return datetime.fromisoformat(line["time"])


def record(fault: str, times: int, found: Books, seconds: Sequence[float | None] = ()) -> None:
    """Add a fault to the record, where one is kept.

    seconds: to recover, each time; None where nothing was cut off.
    """
    path = os.environ.get("FAULTS_RECORD")
    if not path:
        return
    known = [round(each, 2) for each in seconds if each is not None]
    line = {"fault": fault, "times": times, **asdict(found), "seconds": known}
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
