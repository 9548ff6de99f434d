"""Whether the server of Ray's that keeps a cluster together still answers.

Where it dies with its machine, Ray waits for a minute, prints the state of the node in 200 lines
and ends the program, whatever that is doing; here it is one line, and before that.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 2.0
"""Seconds between two looks."""
LOOKS = 20
"""So many in a row without an answer, 40 s, end the program: a server may be started again, and
Ray's own patience is 60 s."""


@contextmanager
def head_watched(
    address: str, end: Callable[[int], object] = os._exit, every: float = EVERY
) -> Iterator[None]:
    """While it lasts, the program ends with code 2 and a line when nobody answers at `address` any
    more.

    end: ends the program from a thread of its own: the others wait for Ray where no Python runs.
    What has ended is in the database by then, as after a kill.
    """
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(address, over, end, every), daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()


def _watch(address: str, over: threading.Event, end: Callable[[int], object], every: float) -> None:
    silent = 0
    while not over.wait(every):
        silent = 0 if _answers(address, every) else silent + 1
        if silent >= LOOKS:
            told = "the head of the cluster does not answer any more; what has ended is kept,"
            sys.stderr.write(f"address: {address}: {told} the same command goes on\n")
            sys.stderr.flush()
            end(2)
            return


def _answers(address: str, seconds: float) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except OSError:
        return False
    return True
