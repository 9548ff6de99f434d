"""Workers that start are waited for.

A trial that waits for its own worker to start takes, in Tune, the next worker that comes free, and
the one that starts is ended. Where trials are shorter than a start, 4 s and more, that goes on for
ever: the free worker's next trial waits for a new one again, and a search whose worker was killed
once kept one of its two slots empty to its end (48 % busy; see `search.bench slots`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from ray.tune.execution.tune_controller import TuneController

LONGEST = 30.0
"""Seconds that a start is waited for while another worker is free: its machine may be gone."""


@contextmanager
def starts_awaited() -> Iterator[None]:
    """Tune leaves workers that start to start."""
    reuse = TuneController._maybe_reuse_cached_actor
    since: WeakKeyDictionary[Any, float] = WeakKeyDictionary()

    def patient(controller: TuneController, trial: Any) -> bool:
        starting = controller._trial_to_actor.get(trial)
        if starting is not None and starting not in controller._started_actors:
            now = time.monotonic()
            if now - since.setdefault(starting, now) < LONGEST:
                return False
        return reuse(controller, trial)

    TuneController._maybe_reuse_cached_actor = patient  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        TuneController._maybe_reuse_cached_actor = reuse
