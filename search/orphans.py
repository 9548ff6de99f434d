"""Nothing is left behind when the driver is killed.

Ray's workers end with the driver, but two of its own processes wait another minute for a reply
that cannot come. A small process of ours waits for the driver's death, ends what is left and
removes the temporary folder. The processes are known on Linux only; elsewhere they end by
themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Input: a line of pid:start for every process. It ends when the driver does, however it does; one
# second later Ray's own processes have ended by themselves, all but those two.
_WATCHER = """
import os, shutil, sys, time
known = sys.stdin.read().split()
time.sleep(1)
for pid, _, start in (item.partition(":") for item in known):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            found = stat.read().rpartition(")")[2].split()[19]
            if found == start and int(pid) != os.getpid():
                os.kill(int(pid), 9)
    except OSError:
        pass
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


@contextmanager
def no_orphans(folder: Path) -> Iterator[Callable[[], None]]:
    """While it lasts, a sudden death of this process takes `folder` with it, and the processes
    that it had started when the function it gives was last called."""
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCHER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a signal to the driver's group does not reach it
    )
    assert watcher.stdin is not None, "a pipe was asked for"
    pipe = watcher.stdin

    def note() -> None:
        pipe.write("".join(f"{item}\n" for item in descendants(os.getpid())).encode())
        pipe.flush()

    try:
        yield note
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
