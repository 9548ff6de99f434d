"""Where data sets lie, and what to say when they do not."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from search.errors import TaskError


def default_data_root(
    platform: str = sys.platform, environment: Mapping[str, str] | None = None
) -> Path:
    """`activation-search/data` in the platform's cache folder.

    Linux and the like: `$XDG_CACHE_HOME`, else `~/.cache`; macOS: `~/Library/Caches`; Windows:
    `%LOCALAPPDATA%`, else `~/AppData/Local`.
    """
    environment = os.environ if environment is None else environment
    home = Path(environment.get("HOME") or Path.home())
    if platform == "win32":
        cache = Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif platform == "darwin":
        cache = home / "Library" / "Caches"
    else:
        cache = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    return cache / "activation-search" / "data"


def find_files(names: Sequence[str], folders: Sequence[Path]) -> list[Path] | None:
    """The files in the first folder that has all of them, each as it is or with `.gz`."""
    for folder in folders:
        found = [_plain_or_gz(folder / name) for name in names]
        if all(found):
            return [path for path in found if path]
    return None


def _plain_or_gz(path: Path) -> Path | None:
    packed = path.with_name(path.name + ".gz")
    return path if path.is_file() else packed if packed.is_file() else None


def require_files(
    task: str,
    names: Sequence[str],
    folders: Sequence[Path],
    download: Callable[[], object],
    advice: str,
) -> list[Path]:
    """The files, downloaded when no folder has them; raises TaskError with the advice."""
    if found := find_files(names, folders):
        return found
    try:
        with _patience(seconds=20):
            download()
        failure = "the download did not bring them"
    except (OSError, RuntimeError, HTTPException, EOFError, ImportError) as error:
        # torchvision tells of every mirror it tried, over several lines; the last word is enough.
        words = f"{type(error).__name__}: {error}".split()
        failure = f"the download failed ({shortened(' '.join(words))})"
    if found := find_files(names, folders):
        return found
    places = " or ".join(map(str, folders))
    raise TaskError(f"{task}: no {names[0]} (nor .gz) in {places}, and {failure}; {advice}")


def shortened(text: str, longest: int = 90) -> str:
    """The end of a long text, where an error says what happened.

    >>> shortened("abcdef", longest=4)
    '…def'
    """
    return text if len(text) <= longest else "…" + text[1 - longest :]


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """How long a silent server is waited for: without it a firewall that drops packets hangs us."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
