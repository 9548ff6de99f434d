"""Nothing is left behind when the driver is killed.

Ray's workers end with the driver, but two of its own processes wait another minute for a reply
that cannot come, all of them when Ray was only starting, and processes that time a sweep wait for
ever. A small process of ours waits for the driver's death, ends what is left and removes the
temporary folder. The processes are known on Linux only; elsewhere they end by themselves.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from search.environment import environment_variables

MARK = "ACTIVATION_SEARCH_DRIVER"
"""An environment variable of all that a driver starts, at whatever moment it is killed."""

# Its input ends when the driver does, however it does; one second later most processes have ended
# by themselves. Ray's agents write their titles over their environment, and logs into the folder.
_WATCHER = """
import os, shutil, sys, time
def is_ours(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as words:
            if mark in words.read():
                return True
        files = os.listdir(f"/proc/{pid}/fd")
        return any(os.readlink(f"/proc/{pid}/fd/{each}").startswith(folder) for each in files)
    except OSError:
        return False
mark, folder = sys.argv[1].encode(), os.path.realpath(sys.argv[2]) + os.sep
sys.stdin.read()
for _ in range(10):
    time.sleep(1)
    ours = [int(pid) for pid in filter(str.isdigit, os.listdir("/proc")) if is_ours(pid)]
    for pid in ours:
        try:
            os.kill(pid, 9)
        except OSError:
            pass
    if not ours:
        break
shutil.rmtree(folder, ignore_errors=True)
"""


@contextmanager
def no_orphans(folder: Path) -> Iterator[None]:
    """While it lasts, a sudden death of this process takes `folder` with it, and the processes
    that were started in the meantime."""
    mark = uuid4().hex
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCHER, mark, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a signal to the driver's group does not reach it
    )
    try:
        with environment_variables({MARK: mark}):
            yield
    finally:
        watcher.kill()
        watcher.communicate()


def started_at(pid: int) -> str:
    """`pid:start time` of a process, which no other process ever has; Linux only."""
    # The name, in brackets, may hold spaces and brackets itself.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return f"{pid}:{fields[19]}"


def descendants(ancestor: int) -> list[str]:
    """`pid:start time` of every process that descends from `ancestor`; empty without /proc."""
    parents: dict[int, int] = {}
    starts: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The name, in brackets, may hold spaces and brackets itself.
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid], starts[pid] = int(fields[1]), fields[19]
    found, waiting = list[int](), [ancestor]
    while waiting:
        parent = waiting.pop()
        children = [pid for pid, above in parents.items() if above == parent]
        found += children
        waiting += children
    return [f"{pid}:{starts[pid]}" for pid in found]
