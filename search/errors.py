"""What can go wrong, in the user's words.

    SearchError                 anything a user can mend; a CLI prints it and exits with 2
    ├── ExpressionError         a formula that is not in the language
    ├── SpaceError              a space file: every mistake of it, one a line
    ├── KernelError             a program that cannot be rendered, built or loaded
    ├── TaskError               a task, its data or its recipe
    └── StudyError              a study that cannot be read, written or continued

Diverged, pruned and rejected candidates are results, not errors (see `search.records`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches


class SearchError(Exception):
    """One or more mistakes, one line each: place, what was wrong, what was expected."""

    def __init__(self, *problems: str):
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class ExpressionError(SearchError):
    """A formula that is not in the language."""


class SpaceError(SearchError):
    """A space file, with every mistake found in it."""


class KernelError(SearchError):
    """A program that cannot be rendered, built or loaded."""


class TaskError(SearchError):
    """A task, its data or its recipe."""


class StudyError(SearchError):
    """A study that cannot be read, written or continued."""


def first_line(error: BaseException) -> str:
    """The first line of its own words; the name of its class where it has none.

    >>> first_line(ValueError("bad weather\\nfor ships")), first_line(KeyError())
    ('bad weather', 'KeyError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def near_miss(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'sigmoid'?` when a known word is close, else the known words if they are few.

    >>> near_miss("sigmiod", ["sigmoid", "tanh"])
    "; did you mean 'sigmoid'?"
    """
    known = list(known)
    swapped = [name for name in known if sorted(name) == sorted(word.lower())]
    close = swapped or get_close_matches(word, known, n=1) or get_close_matches(word.lower(), known)
    if close:
        return f"; did you mean '{shortened(close[0])}'?"
    return f"; known: {', '.join(map(shortened, known))}" if 0 < len(known) <= 12 else ""


def printable(line: str) -> str:
    """A line with nothing in it that a terminal obeys.

    >>> printable("x\\x1b[2J")
    'x\\\\x1b[2J'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def shortened(text: object, longest: int = 60) -> str:
    """A user's text in a message: on one line, cut, and with nothing in it that a terminal obeys.

    >>> shortened("x +\\n\\x1b[2J")
    'x + \\\\x1b[2J'
    """
    line = " ".join(str(text).split())
    line = printable(line[: longest + 1])
    return line if len(line) <= longest else line[: longest - 1] + "…"


def shown(word: object, limit: int = 60) -> str:
    """A user's word in a message: quoted, on one line, never longer than `limit`.

    >>> shown("sigmiod")
    "'sigmiod'"
    """
    text = repr(word)
    return text if len(text) <= limit else text[: limit - 3] + "…" + text[-1]


def run_cli(main: Callable[[], int | None]) -> None:
    """Run a command line: a user's mistake is printed line by line and exits with 2.

    One that was stopped by a signal (codes above 128) ends at once: taking Python apart, with all
    that was imported, took 8.6 of the 11.3 s of a stop on two cores that 15 processes shared.
    """
    try:
        code = main() or 0
        if code > 128:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        sys.exit(code)
    except SearchError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
