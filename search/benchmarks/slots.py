"""How busy a search keeps its slots: read from a study's log, or measured with runs that wait.

A slot is busy while a trial's worker has its candidate: from the gate in training to the last run
and the cost. What is left of the time goes to starting, proposing and writing down.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from search.benchmarks import waiting_task
from search.decisions import read_log
from search.environment import available_cpus, environment
from search.errors import SearchError, StudyError

BEGINS = ("opened", "resumed")
"""What a driver writes first."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """The slots of one search, from its driver's first line on."""

    slots: int
    trials: int
    """That were trained."""
    seconds: float
    """Until the last of them ended."""
    first: float
    """Seconds until the first of them began: Ray's start, the planner, the first gates."""
    busy: float
    """Share of the slots' time from the first trial's begin to the last one's end."""
    steady: float | None
    """The same share after the warm-up, while there is still work to give: from the time by which
    every slot has had a trial to the time when the last one begins. None: too few trials."""
    longest: float
    """Seconds that the longest trial took."""


@dataclass(frozen=True, slots=True)
class Span:
    """A trial's time in its worker, in seconds."""

    begin: float
    end: float


def occupancy(log: Sequence[dict[str, Any]], slots: int) -> Occupancy:
    """What the lines of `log.jsonl` say, of the last driver that trained anything.

    Raises:
        StudyError: no trial has ended in it.
    """
    opened, spans = last_session(log)
    if not spans:
        raise StudyError("no trial has ended: there is nothing to tell of the slots")
    begins = sorted(span.begin for span in spans)
    begin, end = begins[0], max(span.end for span in spans)
    steady = None
    if len(spans) > 2 * slots:
        steady = _share(spans, slots, begins[slots - 1], begins[-1])
    return Occupancy(
        slots=slots,
        trials=len(spans),
        seconds=end - opened,
        first=begin - opened,
        busy=_share(spans, slots, begin, end),
        steady=steady,
        longest=max(span.end - span.begin for span in spans),
    )


def last_session(log: Sequence[dict[str, Any]]) -> tuple[float, list[Span]]:
    """When the last driver that trained began, and its trials."""
    found: tuple[float, list[Span]] = (0.0, [])
    opened, spans = 0.0, list[Span]()
    for line in log:
        at = datetime.fromisoformat(line["time"]).timestamp()
        if line["what"] in BEGINS or not opened:
            opened, spans = at, []
        if line["what"] == "ended" and line.get("seconds"):
            spans.append(Span(at - line["seconds"], at))
            found = opened, spans
    return found


def _share(spans: Sequence[Span], slots: int, begin: float, end: float) -> float:
    """The spans' part of the slots' time between two moments."""
    busy = sum(max(0.0, min(span.end, end) - max(span.begin, begin)) for span in spans)
    return busy / (slots * (end - begin)) if end > begin else 1.0


def measure(slots: int, seconds: float, trials: int, tell: Callable[[str], None]) -> Occupancy:
    """A real search, by the command itself, of `trials` runs that wait for `seconds` each.

    The slots are parts of this machine's processors: a run that waits needs none.

    Raises:
        SearchError: the numbers make no sense, or the search failed.
    """
    if slots < 1 or trials < 1 or seconds <= 0:
        raise SearchError(
            f"--slots {slots}, --trials {trials}, --seconds {seconds}: expected numbers above 0"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "waiting.yaml"
        path.write_text(json.dumps(waiting_space(slots, seconds, trials)), encoding="utf-8")
        tell(f"{trials} trials of {seconds:g} s in {slots} slots: {_least(slots, seconds, trials)}")
        command = [sys.executable, "-m", "search.run", str(path), "--results", name]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise SearchError(f"search.run: {(run.stderr.strip() or run.stdout).splitlines()[-1]}")
        return occupancy(read_log(folder / "waiting"), slots)


def _least(slots: int, seconds: float, trials: int) -> str:
    return f"{-(-trials // slots) * seconds:g} s at least"


def waiting_space(slots: int, seconds: float, trials: int) -> dict[str, Any]:
    """The space file of a search that waits: the usual sampler, gates and all."""
    return {
        "name": "waiting",
        "task": {"name": str(Path(waiting_task.__file__).resolve()), "seconds": seconds},
        "activation": {"F": ["x * sigmoid(s * x)   where s in log[0.1, 10]"]},
        "depth": 1,
        "baselines": ["relu"],
        "learning_rate": {"grid": [0.01], "default": 0.01, "extend": False},
        "seeds": [0],
        "batching": "off",
        "search": {"trials": trials},
        "resources": {"cpu": available_cpus() / slots},
    }


def line(found: Occupancy) -> str:
    """What was measured, in words."""
    steady = "" if found.steady is None else f", {100 * found.steady:.1f} % after the warm-up"
    return (
        f"{found.slots} slots, {found.trials} trials in {found.seconds:.0f} s: the first began"
        f" after {found.first:.1f} s; busy {100 * found.busy:.1f} % from then on{steady}"
    )


def as_json(found: Occupancy) -> str:
    """Every figure, with what it was measured on."""
    return json.dumps({**asdict(found), **environment()}, indent=2)
