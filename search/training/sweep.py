"""The sweep of a candidate, or of several beside each other: its grid, then what extends it.

Which rates and which is the best: `search.training.rates`. How the runs are trained, one after the
other, in step or many in one program, is whoever calls.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from search.records import Epoch, Key, Member, Point, Run, SharedEpoch
from search.training.course import Course, OnEpoch
from search.training.rates import Grid

Start = Callable[[float, int], Generator[Point, Any, Run]]
"""`start(rate, seed)` begins a run: it yields a point after every epoch and returns the run."""

Epochs = Generator[Epoch, Mapping[Key, str] | None, None]
"""What each epoch of several runs brings, every run once among those that ended; `send({key:
reason})` ends some of them as pruned."""

Together = Callable[[Sequence[Key]], Epochs]
"""`together(keys)` trains the runs of several rates and seeds."""

SharedEpochs = Generator[SharedEpoch, Mapping[Member, str] | None, None]
"""The same for the runs of several candidates."""

AllTogether = Callable[[Sequence[Member]], SharedEpochs]
"""`together(members)` trains the runs of several candidates, rates and seeds."""


def sweep(
    grid: Grid,
    start: Start,
    *,
    finished: Sequence[Run] = (),
    on_run: Callable[[Run], None] = lambda run: None,
    on_all: Callable[[], None] = lambda: None,
    on_epoch: OnEpoch | None = None,
    together: Together | None = None,
    epochs: int = 0,
) -> tuple[Run, ...]:
    """Train the whole grid, then extend it; every run of the sweep, the `finished` ones included.

    Args:
        start: begins one run.
        finished: runs of this candidate that need not be repeated (an earlier driver was killed).
        on_run: called with every run as soon as it has ended.
        on_all: called after it was for all runs that ended together.
        on_epoch: given, the runs of the grid advance together, an epoch at a time, and it is
            called after every epoch; what it raises ends the sweep. All models of the grid are in
            memory at once. Rates that extend the grid come later and are not told.
        together: trains several runs, in place of `start`.
        epochs: of a run, with `grid.halving`, for which the runs advance together too.
    """
    heard: dict[str, Any] = {"on_run": on_run, "on_all": on_all, "on_epoch": on_epoch}
    course = Course(grid, finished=finished, epochs=epochs, **heard)
    while (keys := course.next_round()) is not None:
        if together is not None:
            stream = together(keys)
        else:
            stream = in_step(start, keys) if course.in_step else one_by_one(start, keys)
        _follow(course, stream)
    return tuple(course.runs)


def _follow(course: Course, stream: Epochs) -> None:
    """Let the course hear all epochs, and end the runs that it drops."""
    dropped: dict[Key, str] | None = None  # a generator that has not begun takes None
    while True:
        try:
            epoch = stream.send(dropped)
        except StopIteration:
            return
        dropped = course.hear(epoch)


def sweep_abreast(courses: Sequence[Course], together: AllTogether) -> None:
    """Train the sweeps of several candidates: all grids, then all rates that extend them.

    together: trains runs of several candidates, named by their places among the courses.
    """
    while True:
        asked = [course.next_round() for course in courses]
        if all(keys is None for keys in asked):
            return
        members = [(place, *key) for place, keys in enumerate(asked) for key in keys or ()]
        _follow_all(courses, together(members))


def _follow_all(courses: Sequence[Course], stream: SharedEpochs) -> None:
    dropped: dict[Member, str] | None = None
    while True:
        try:
            epoch = stream.send(dropped)
        except StopIteration:
            return
        dropped = {
            (place, *key): reason
            for place, course in enumerate(courses)
            for key, reason in course.hear(epoch.of(place)).items()
        }


def one_by_one(start: Start, keys: Sequence[Key]) -> Epochs:
    """One run after the other, each to its end."""
    for key in keys:
        yield Epoch({}, (drain(start(*key)),))


def in_step(start: Start, keys: Sequence[Key]) -> Epochs:
    """All runs, an epoch of each at a time; those that are dropped end with the next one."""
    alive = {key: start(*key) for key in keys}
    dropped: Mapping[Key, str] = {}
    while alive:
        points, ended = dict[Key, Point](), list[Run]()
        for key, stream in list(alive.items()):
            try:
                points[key] = stream.send(dropped.get(key))
            except StopIteration as stop:
                del alive[key]
                ended.append(stop.value)
        dropped = (yield Epoch(points, tuple(ended))) or {}


def drain(stream: Generator[Point, Any, Run]) -> Run:
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(stream)
        except StopIteration as stop:
            return stop.value
