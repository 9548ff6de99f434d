"""What became of an input: read, or refused by lines of the project's own; nothing else may be."""

from __future__ import annotations

import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from search.errors import SearchError

SECONDS = 4.0
"""Of this process's own computing that an input may take before it counts as a hang. Records were
counted with 1.0 on a machine with little else to do, where the slowest takes 0.4; a core that is
shared computes at a fraction of that."""
LONGEST_LINE = 600
STARTED = frozenset(
    {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect"}
)
CHANGED = frozenset({"os.remove", "os.rename", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.kill"})
"""What Python reports of itself, and reading a text never does."""


class TooLong(BaseException):
    """Raised in the middle of an input that takes more than its time."""


class Executed(BaseException):
    """Raised where an input had something done."""


class Outcomes:
    """How many inputs were read, and how many were refused in which words."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Of the inputs."""
        return sum(self.counts.values())

    def of(
        self, read: Callable[[], object], seconds: float = SECONDS, watching: Watching = "reads"
    ) -> object:
        """What `read` gives, or None where it refuses."""
        try:
            with bounded(seconds, watching):
                found = read()
        except SearchError as error:
            told(error.problems)
            self.counts[f"refused: {type(error).__name__}"] += 1
            self.lines.update({words(line) for line in error.problems})
            return None
        self.counts["read"] += 1
        return found

    def as_json(self) -> dict[str, Any]:
        """Counts, the most frequent words first."""
        return {
            "inputs": self.total,
            "outcomes": dict(self.counts.most_common()),
            "refusals by their words": dict(self.lines.most_common()),
        }


def told(problems: tuple[str, ...]) -> None:
    """Every problem is one line that a terminal can show."""
    assert problems
    for line in problems:
        assert line.isprintable(), f"not printable: {line!r}"
        assert 0 < len(line) <= LONGEST_LINE, f"{len(line)} characters: {line[:200]!r}"


_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
_AFTER = re.compile(r"(got|known:|by way of|low=|high=|the first is at|did you mean) ?.*")
_PLACE = re.compile(r"^(\S*\.yaml:?\d*|--set .*?): |^(formula|fuzz|activation): ")


def words(line: str) -> str:
    """What a line says, without what the input says: a class of messages."""
    line = re.sub(r"\S*/", "", line)  # where the inputs lie
    line = _QUOTED.sub("'…'", _PLACE.sub("", line))
    line = re.sub(r"\b[A-Z][A-Z0-9_]*(\[\d+\])?(?=[\s:;,])", "R", line)
    line = re.sub(r"-?\d[\d,.e+]*", "N", line)
    return _AFTER.sub(r"\1 …", line)[:90].strip()


# --- what is not allowed -------------------------------------------------------------------------

Watching = Literal["", "reads", "works"]
_watching: list[Watching] = [""]


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching[0]:
        return
    written = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if event in STARTED or (_watching[0] == "reads" and (written or event in CHANGED)):
        raise Executed(f"{event}{arguments!r}")


def watch() -> None:
    """From now on, whatever an input would have done raises. A hook stays for good: ask once."""
    if len(_watching) == 1:
        sys.addaudithook(_audit)
        _watching.append("")


@contextmanager
def bounded(seconds: float = SECONDS, watching: Watching = "reads") -> Iterator[None]:
    """Raise `TooLong` after so many seconds of computing; once there is a `watch`, `Executed` where
    a program is started, and by what only reads where a file is changed."""

    def late(_signal: int, _frame: object) -> None:
        raise TooLong(f"more than {seconds} s of computing")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    _watching[0] = watching
    try:
        yield
    finally:
        _watching[0] = ""
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
