"""Nothing is left behind when the driver is killed.

Ray's workers end with the driver, but two of its own processes wait another minute for a reply
that cannot come. A small process of ours waits for the driver's death and ends what is left of
them at once, and removes the temporary folder. Linux only; elsewhere they end by themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# argv: folder, then pid:start of every process. Reading ends when the driver does, however it
# does; one second later Ray's own processes have ended by themselves, all but those two.
_WATCHER = """
import os, shutil, sys, time
sys.stdin.buffer.read()
time.sleep(1)
for pid, _, start in (item.partition(":") for item in sys.argv[2:]):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            if stat.read().rpartition(")")[2].split()[19] == start:
                os.kill(int(pid), 9)
    except OSError:
        pass
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


@contextmanager
def no_orphans(folder: Path) -> Iterator[None]:
    """While it lasts, a sudden death of this process takes the processes that it has started by
    now with it, and `folder`."""
    started = _descendants(os.getpid())
    if not started:
        yield
        return
    # A session of its own, so that a signal to the driver's group does not reach it.
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCHER, str(folder), *started],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        watcher.kill()
        watcher.communicate()


def _descendants(ancestor: int) -> list[str]:
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
