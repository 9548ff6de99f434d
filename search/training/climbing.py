"""What happens in a worker when a candidate reaches a rung (`search.promotion`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from search.records import Key, Point
from search.training.checkpoints import Checkpoints, Paused
from search.training.course import OnEpoch

OnRung = Callable[[int, float], None]
"""`on_rung(epoch, value)`: a candidate has reached a rung."""


def at_rungs(
    on_epoch: OnEpoch | None,
    on_rung: OnRung,
    rungs: Collection[int],
    kept: Checkpoints,
    promoted: int | None,
) -> OnEpoch:
    """`on_epoch`, then at a rung `on_rung`; behind the last rung that it was promoted from, a
    candidate is written down and leaves.

    promoted: that rung's epoch, 0 for none; None for a baseline, which waits nowhere.
    """

    def told(epoch: int, value: float, points: Mapping[Key, Point]) -> None:
        if on_epoch is not None:
            on_epoch(epoch, value, points)
        if epoch not in rungs:
            return
        waits = promoted is not None and epoch > promoted
        if waits:
            kept.save()  # first: told of a rung, the driver may launch it elsewhere at once
        on_rung(epoch, value)
        if waits:
            raise Paused(f"at the rung of epoch {epoch}")

    return told


def before_last(on_epoch: OnEpoch | None, steps: int) -> OnEpoch:
    """`on_epoch` without the last epoch: a scheduler has nothing left to stop there, and must not
    take a trained candidate for a stopped one."""

    def told(epoch: int, value: float, points: Mapping[Key, Point]) -> None:
        if on_epoch is not None and all(point.step < steps for point in points.values()):
            on_epoch(epoch, value, points)

    return told
