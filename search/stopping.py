"""Being asked to end: Ctrl-C and SIGTERM, remembered until it is safe to leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Somebody asked for the end; what has ended is in the study."""

    def __init__(self, number: int = signal.SIGINT):
        super().__init__(number)
        self.code = 128 + number
        """The exit code that a shell expects: 130 for Ctrl-C, 143 for SIGTERM."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM raises `Stopped` while it lasts, as Ctrl-C raises KeyboardInterrupt: what has been
    begun is put away and the command says its line, where the process would just be gone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: object) -> None:
        raise Stopped(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """The signals that came while it lasts; the second of a kind acts as it would have without us.

    Outside the main thread, where Python takes no signals, the list stays empty.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def remember(number: int, _frame: object) -> None:
        asked.append(number)
        signal.signal(number, before[number])

    for number in SIGNALS:
        signal.signal(number, remember)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
