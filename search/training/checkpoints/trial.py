"""The checkpoints of one trial: one of every plain run and of every batch that is under way."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.errors import first_line
from search.records import Member
from search.training.checkpoints.keeping import Keeping
from search.training.checkpoints.store import State, Store

LOOKS = 0.25
"""Seconds between two looks whether to pause: one takes 2 µs on a local disk, and up to a
millisecond on a shared one."""
VERSION = 1
"""Of what is written."""


class Paused(Exception):  # noqa: N818 - not an error
    """Training was left where it can go on; every checkpoint of the trial is written."""


@dataclass(slots=True)
class Checkpoints:
    """Those of one trial, as a worker knows them."""

    store: Store
    keeping: Keeping
    about: str
    """What must be the same to go on: formula, task, recipe, device."""
    say: Callable[[str], None] = lambda line: None
    part: str = ""
    """Keeps apart what one trial trains in several ways."""
    _live: dict[str, Checkpoint] = field(default_factory=dict)
    _found: dict[str, State] = field(default_factory=dict)
    _looked: float = -LOOKS
    _failed: bool = False

    def run(self, rate: float, seed: int) -> Checkpoint:
        """Of a plain run."""
        return Checkpoint(self, f"{self.part}run_{rate!r}_{seed}")

    def batch(self, members: Sequence[Member]) -> Checkpoint:
        """Of runs that train together: one of `begun`, or a new one."""
        for name, state in self._found.items():
            if set(members) <= _members_of(state):
                return Checkpoint(self, name)
        digest = hashlib.sha256(repr([tuple(each) for each in members]).encode()).hexdigest()
        return Checkpoint(self, f"{self.part}batch_{digest[:12]}")

    def begun(self, members: Sequence[Member]) -> list[list[Member]]:
        """The batches among whose runs some of `members` are; each once, the latest batch first.

        A batch that was cut off goes on as a batch of those runs: another one might round
        differently.
        """
        parts, left = list[list[Member]](), list(members)
        for name in self.store.names():
            if not left or not name.startswith(f"{self.part}batch_"):
                continue
            if (state := self._read(name)) is not None:
                own = [member for member in left if member in _members_of(state)]
                left = [member for member in left if member not in own]
                if own:
                    self._found[name] = state
                    parts.append(own)
        return parts

    def any(self) -> bool:
        """Whether the trial has gone some way already."""
        return bool(self.store.names())

    def save(self) -> None:
        """Write down all that is under way: all of it is between two steps."""
        for checkpoint in list(self._live.values()):
            checkpoint.save()

    def asked_to_pause(self) -> bool:
        """Whether somebody asked for the end; looks now and then."""
        now = time.monotonic()
        if now - self._looked < LOOKS:
            return False
        self._looked = now
        return self.keeping.asked_to_pause()

    def _read(self, name: str) -> State | None:
        """What was written, if it can be used; else a line says why not."""
        if name in self._found:
            return self._found.pop(name)
        try:
            state = self.store.read(name)
        except ValueError as error:
            self.say(f"{error}; training begins anew")
            return None
        if state is None:
            return None
        if state.get("version") != VERSION or state.get("about") != self.about:
            self.say(f"checkpoint {name} is of another training; training begins anew")
            return None
        return state

    def _write(self, name: str, state: State) -> None:
        try:
            self.store.write(name, {**state, "version": VERSION, "about": self.about})
        except OSError as error:
            if not self._failed:  # said once; the training does not need it
                self.say(f"checkpoint {name} cannot be written: {error.strerror or error}")
            self._failed = True


class Checkpoint:
    """One plain run or one batch, and its file."""

    def __init__(self, trial: Checkpoints, name: str):
        self.trial, self.name = trial, name
        self.state: Callable[[], State] | None = None
        self.written = False
        self.last = time.monotonic()

    def read(self) -> State | None:
        """What was written last, if it can be used."""
        state = self.trial._read(self.name)
        self.written = state is not None
        return state

    def restored(self, restore: Callable[[State], None], state: State) -> bool:
        """Whether `restore` took the state; if not, a line says so, and what it touched is to be
        made anew."""
        try:
            restore(state)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            self.trial.say(
                f"checkpoint {self.name}: {first_line(error)[:120]}; training begins anew"
            )
            self.written = False
            return False
        return True

    def begin(self, state: Callable[[], State]) -> None:
        """From now on `state()` tells all that the next step depends on."""
        self.state, self.last = state, time.monotonic()
        self.trial._live[self.name] = self

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be written after `step` steps."""
        every = self.trial.keeping
        by_steps = every.steps is not None and step % every.steps == 0
        by_time = every.seconds is not None and time.monotonic() - self.last >= every.seconds
        return by_steps or by_time or self.trial.asked_to_pause()

    def keep(self) -> None:
        """Write it; when somebody asked for the end, those of all that is under way.

        Raises:
            Paused: everything is written.
        """
        if self.trial.keeping.asked_to_pause():
            self.trial.save()
            raise Paused("somebody asked for the end")
        self.save()

    def save(self) -> None:
        """Write it as the training stands."""
        if self.state is not None:
            self.trial._write(self.name, self.state())
            self.written, self.last = True, time.monotonic()

    def end(self, outcome: State) -> None:
        """Nothing more will be trained: of what was written, only what came of it is kept."""
        if self.written:
            self.trial._write(self.name, outcome)
        self.leave()

    def leave(self) -> None:
        """Let go of what `begin` was given: it holds the model."""
        self.state = None
        self.trial._live.pop(self.name, None)


def _members_of(state: Mapping[str, Any]) -> set[Member]:
    return {(place, rate, seed) for place, rate, seed in state["keys"]}
