"""Checkpoints: a training that was cut off goes on where it was last written down.

    <folder>/trial_7/<run or batch>.pt   all that the next step depends on; whole, or not there
    <folder>/stop                        somebody asked for the end: write what there is, and leave

A plain run and a batch are a *stream* each (`Stream`), with a file each. A file is written under
another name and renamed; it is torch's own, read with `weights_only`, and every part of it has a
checksum. What cannot be read, or is of another training, is left aside with one line, and its
stream begins anew. When a stream has ended, its file shrinks to what came of it, so that a driver
killed before it heard of that loses nothing; the driver removes the folder when the trial ends.
"""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from search.records import Member

STOP = "stop"
"""The file that asks all workers to pause; see `ask_to_pause`."""
TRIAL = "trial_"
"""How a trial's folder is called, with its number."""
LOOKS = 0.25
"""Seconds between two looks for it: one takes 2 µs on a local disk, and up to a millisecond on a
shared one."""
VERSION = 1

State = dict[str, Any]
"""Tensors, numbers, text, and lists and mappings of them."""


class Paused(Exception):  # noqa: N818 - not an error
    """Training was left where it can go on; every stream of the trial is written."""


class Store(Protocol):
    """Where the checkpoints of one trial lie."""

    def names(self) -> list[str]:
        """What has been written, the latest first."""
        ...

    def read(self, name: str) -> State | None:
        """What was written under a name, None if nothing was; raises ValueError with the reason
        when it cannot be read."""
        ...

    def write(self, name: str, state: State) -> None:
        """Replace it, in one step; raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Directory:
    """A folder on a file system that whoever goes on with the trial can read."""

    path: Path

    def names(self) -> list[str]:
        found = {path: path.stat().st_mtime_ns for path in self.path.glob("*.pt")}
        return [path.stem for path in sorted(found, key=lambda path: (-found[path], path.name))]

    def read(self, name: str) -> State | None:
        path = self.path / f"{name}.pt"
        try:
            with zipfile.ZipFile(path) as parts:  # torch reads a flipped bit without a word
                if damaged := parts.testzip():
                    raise ValueError(f"{damaged} is damaged")
            return torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # of a damaged file torch raises whatever it trips over
            told = str(error).strip().split("\n")[0]
            raise ValueError(f"{path}: cannot be read: {told[:120]}") from error

    def write(self, name: str, state: State) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / f".{name}.{os.getpid()}"
        try:
            with draft.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self.path / f"{name}.pt")
        except RuntimeError as error:  # torch's word for a full disk
            raise OSError(str(error).strip().split("\n")[0]) from error
        finally:
            draft.unlink(missing_ok=True)

    def remove(self) -> None:
        """All that was written, half-written files included; what is not ours stays."""
        with suppress(OSError):
            for path in [*self.path.glob("*.pt"), *self.path.glob(".*.[0-9]*")]:
                path.unlink(missing_ok=True)
            self.path.rmdir()


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where a study keeps checkpoints, and how often a stream writes one."""

    folder: Path
    steps: int | None = None
    """After every so many."""
    seconds: float | None = 60.0
    """After so many since the last, or since the stream began: shorter ones write none."""

    def of_trial(self, name: str) -> Directory:
        """Those of one trial."""
        return Directory(self.folder / name)


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
    _live: dict[str, Stream] = field(default_factory=dict)
    _found: dict[str, State] = field(default_factory=dict)
    _looked: float = -LOOKS
    _failed: bool = False

    def run(self, rate: float, seed: int) -> Stream:
        """The stream of a plain run."""
        return Stream(self, f"{self.part}run_{rate!r}_{seed}")

    def batch(self, members: Sequence[Member]) -> Stream:
        """The stream of runs that train together: one of `begun`, or a new one."""
        for name, state in self._found.items():
            if set(members) <= _members_of(state):
                return Stream(self, name)
        digest = hashlib.sha256(repr([tuple(each) for each in members]).encode()).hexdigest()
        return Stream(self, f"{self.part}batch_{digest[:12]}")

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
        """Write every stream as it stands now: all of them are between two steps."""
        for stream in list(self._live.values()):
            stream.save()

    def asked_to_pause(self) -> bool:
        """Whether somebody asked for the end; looks now and then."""
        now = time.monotonic()
        if now - self._looked < LOOKS:
            return False
        self._looked = now
        return (self.keeping.folder / STOP).exists()

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


class Stream:
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
            told = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.trial.say(f"checkpoint {self.name}: {told[:120]}; training begins anew")
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
        """Write one; when somebody asked for the end, of all streams.

        Raises:
            Paused: everything is written.
        """
        if (self.trial.keeping.folder / STOP).exists():
            self.trial.save()
            raise Paused("somebody asked for the end")
        self.save()

    def save(self) -> None:
        """Write the stream as it stands."""
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


# --- the driver's part ---------------------------------------------------------------------------


def ask_to_pause(folder: Path) -> bool:
    """Ask every worker to write its checkpoints and leave; whether that could be said."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STOP).touch()
        return True
    return False


def tidy(folder: Path, wanted: Collection[str]) -> None:
    """Remove the checkpoints of trials that nobody goes on with, and an earlier wish to pause."""
    with suppress(OSError):
        (folder / STOP).unlink(missing_ok=True)
        for path in folder.glob(f"{TRIAL}*"):
            if path.name not in wanted:
                Directory(path).remove()
        if not any(folder.iterdir()):
            folder.rmdir()
