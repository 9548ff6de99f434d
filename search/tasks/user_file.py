"""Imports a Python file of the user's, wherever it lies."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from search.errors import TaskError


def load_user_file(path: Path) -> ModuleType:
    """The file as a module under a name of its own, so that two `my_task.py` never meet.

    It may import its neighbours. Raises TaskError in one line, with the place in the user's file
    and the error's own words.
    """
    path = path.resolve()
    if not path.is_file():
        raise TaskError(f"{path}: no such file; expected a Python file that defines TASK")
    name = f"user_task_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where pickle and dataclasses look a module up
    try:
        with _importable(path.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = f":{_line_in(path, error)}" if _line_in(path, error) else ""
        words = " ".join(traceback.format_exception_only(error)[-1].split())
        raise TaskError(f"{path}{line}: error while importing: {words}") from error
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The folder last on the import path: its files never hide an installed module."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _line_in(path: Path, error: BaseException) -> int | None:
    """The last line of the file that the error came through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return lines[-1] if lines else None
