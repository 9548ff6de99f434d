"""Where data sets lie, and what to say when they do not."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from search.errors import TaskError

LONGEST_WAIT = 3600
"""Seconds that a process waits for another's download."""


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
    data_root: Path,
    download: Callable[[Path], object],
    advice: str,
) -> list[Path]:
    """The files, downloaded when no folder has them; raises TaskError with the advice.

    `download(folder)` brings them under a folder as it is to be under `data_root`. Of all processes
    that miss them one downloads, and the others wait for it and find them.
    """
    if found := find_files(names, folders):
        return found
    failure = "the download did not bring them"
    try:
        with _alone(data_root, task), _patience(seconds=20):
            if not find_files(names, folders):
                _download_whole(data_root, download)
    except (OSError, RuntimeError, HTTPException, EOFError, ImportError) as error:
        # torchvision tells of every mirror it tried, over several lines; the last word is enough.
        words = f"{type(error).__name__}: {error}".split()
        failure = f"the download failed ({shortened(' '.join(words))})"
    if found := find_files(names, folders):
        return found
    places = " or ".join(map(str, folders))
    raise TaskError(f"{task}: no {names[0]} (nor .gz) in {places}, and {failure}; {advice}")


@contextmanager
def _alone(data_root: Path, task: str) -> Iterator[None]:
    """While it lasts no other process of this machine (or file system) downloads the task's data;
    a lock ends with its process."""
    data_root.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(data_root / f".{task}.lock", timeout=LONGEST_WAIT).acquire()
    except NotImplementedError:  # a file system without locks: files appear whole all the same
        lock = nullcontext()
    with lock:
        yield


def _download_whole(data_root: Path, download: Callable[[Path], object]) -> None:
    """Download beside, then rename every file: another process sees a whole one or none, and what a
    killed download left is never taken for a data set."""
    with tempfile.TemporaryDirectory(dir=data_root, prefix=".download-") as draft:
        download(Path(draft))
        for path in sorted(path for path in Path(draft).rglob("*") if path.is_file()):
            target = data_root / path.relative_to(draft)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


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
