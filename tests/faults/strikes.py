"""What strikes a search: processes that are killed, nodes that are lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ray.cluster_utils import Cluster

from search.orphans import descendants
from tests.cluster_cases import STORE, token
from tests.run_cases import driver, words

LOST = "its worker process crashed or was killed"


def schedule(
    faults: Mapping[str, int], runs: int, draw: random.Random
) -> Iterator[tuple[str, int]]:
    """What strikes, and after how many of so many runs: by what was done, not by the clock, so that
    a slow machine sees all of it and a fast one too. The last tenth is left in peace."""
    kinds = [kind for kind, times in faults.items() for _ in range(times)]
    draw.shuffle(kinds)
    return zip(kinds, sorted(draw.sample(range(5, runs * 9 // 10), len(kinds))), strict=True)


def kill_a_worker(driver: int, draw: random.Random) -> int:
    """Kill one of the processes that train; how many were killed."""
    workers = []
    for process in descendants(driver):
        pid = int(process.partition(":")[0])
        with suppress(OSError):
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            if title.startswith(b"ray::ImplicitFunc"):
                workers.append(pid)
    if not workers:
        return 0
    with suppress(ProcessLookupError):
        os.kill(draw.choice(sorted(workers)), signal.SIGKILL)
    return 1


class Nodes:
    """A head and two other nodes, of one processor each."""

    def __init__(self) -> None:
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE}
        )
        self.others = [self.joins() for _ in range(2)]

    def joins(self):
        return self.cluster.add_node(num_cpus=1, object_store_memory=STORE)

    def lose(self, draw: random.Random) -> None:
        """Kill one, with all that runs there; another joins after a while."""
        self.cluster.remove_node(self.others.pop(draw.randrange(2)), allow_graceful=False)
        time.sleep(draw.uniform(2, 6))
        self.others.append(self.joins())


@contextmanager
def three_nodes(folder: Path) -> Iterator[Nodes]:
    with token(folder):
        nodes = Nodes()
        try:
            yield nodes
        finally:
            nodes.cluster.shutdown()


class Driver:
    """A search on the cluster, in a process of its own."""

    def __init__(self, space: Path, address: str):
        self.words = words(space, "--address", address)
        self.process = self._popen()

    def _popen(self) -> subprocess.Popen[str]:
        return driver(self.words, subprocess.STDOUT)

    def trains(self) -> None:
        """Wait until it has finished its first trial."""
        assert self.process.stdout is not None
        told = ""
        while " at rate " not in told:
            told += (line := self.process.stdout.readline())
            assert line, told

    def still_runs(self) -> None:
        assert self.process.poll() is None, "it came to its end: too short"

    def begin_again(self) -> None:
        self.kill()
        self.process = self._popen()
        self.trains()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def ends(self) -> None:
        told, _ = self.process.communicate()
        assert self.process.returncode == 0, told


@contextmanager
def started(space: Path, address: str) -> Iterator[Driver]:
    driver = Driver(space, address)
    try:
        driver.trains()
        yield driver
    finally:
        driver.kill()
