"""Where checkpoints lie: a file each, whole or not there."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from search.errors import first_line

State = dict[str, Any]
"""Tensors, numbers, text, and lists and mappings of them."""


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
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:  # of a damaged file torch raises whatever it trips over
            raise ValueError(f"{path}: cannot be read: {first_line(error)[:120]}") from error

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
            raise OSError(first_line(error)) from error
        finally:
            draft.unlink(missing_ok=True)

    def remove(self) -> None:
        """All that was written, half-written files included; what is not ours stays."""
        with suppress(OSError):
            for path in [*self.path.glob("*.pt"), *self.path.glob(".*.[0-9]*")]:
                path.unlink(missing_ok=True)
            self.path.rmdir()
