"""Who may write in a study's folder: one driver at a time, which holds `study.lock`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from search.errors import StudyError

LOCK = "study.lock"
PATIENCE = 0.5
"""Seconds to wait for the lock: `in_use` holds it for an instant."""


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The folder, made if there is none, for this process alone.

    Raises:
        StudyError: another process has it, or it cannot be written.
    """
    lock = FileLock(folder / LOCK, timeout=PATIENCE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise StudyError(f"{folder}: another search writes here; expected one at a time") from None
    except OSError as error:
        told = error.strerror or error
        raise StudyError(f"{folder}: cannot be written: {told}") from None
    try:
        yield
    finally:
        lock.release()


def in_use(folder: Path) -> bool:
    """Whether a search is writing in the folder."""
    if not (folder / LOCK).is_file():
        return False
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:
        return False  # not ours to lock: nobody of this user writes there
    lock.release()
    return False
