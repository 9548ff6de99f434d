"""What a cluster's nodes need of the driver: the package, the files of a user's tasks, its folder.

On one machine they have it all. A node of a cluster may have nothing but Ray: the package and the
task's file, with its neighbours, then travel in Ray's runtime environment. A Ray job brings its
working directory with the package in it; only the task's files are added.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from search.errors import StudyError
from search.training.job import Training

FOLDER = "activation_search_tasks"
"""The name under which task files lie on a node's import path."""
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in the entry point of a job."""
LARGEST = 50 * 2**20
"""Bytes of a task's modules; Ray itself refuses 500 MiB."""
KEPT = ("ACTIVATION_SEARCH_CACHE", "TRITON_CACHE_DIR")
"""Variables that workers get from the driver: where a node keeps its kernels."""
WORKERS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0"}
"""Ray's own, for workers that another process started."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the driver is, as far as paths of the space file mean anything by it."""

    folder: str = ""
    """Its working directory; empty on one machine, where workers are in it already."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Of every task that is a file, by its name in the space: its place under `FOLDER`."""

    def settle(self) -> None:
        """Go where the driver is, if this node has that folder: relative paths then agree.

        In the driver too: Ray unpacks a job's working directory anew, in place of the old one, for
        every node that shares its temporary folder, and a process in the old one has none.
        """
        if self.folder and os.path.isdir(self.folder):
            os.chdir(self.folder)

    def here(self, training: Training) -> Training:
        """The training with its task's file as it lies on this node."""
        return replace(training, task=self.task(training.task, training.folder))

    def task(self, name: str, folder: Path) -> str:
        """A task's name on this node: the driver's path where the same files lie there (a shared
        file system), else the path of the copy that came with the search."""
        if name not in self.files:
            return name
        copies = (Path(entry) / FOLDER / self.files[name] for entry in sys.path)
        shipped = next((copy for copy in copies if copy.is_file()), None)
        own = _path(name, folder)
        return str(own if shipped is None or _same(shipped.parent, own.parent) else shipped)


def runtime_env(
    tasks: Iterable[str], folder: Path, draft: Path, environment: Mapping[str, str]
) -> tuple[Origin, dict[str, Any]]:
    """What workers are told of the driver, and the runtime environment that brings the rest.

    Args:
        tasks: of the search and its finalists, by name; those that end in `.py` are files.
        folder: of the space file.
        draft: an empty folder, where what is sent is laid out.
        environment: the driver's variables.

    Raises:
        StudyError: a task has more modules beside it than can be sent.
    """
    files = {name: _laid_out(_path(name, folder), draft / FOLDER) for name in _files(tasks)}
    job = json.loads(environment.get(JOB, "{}")).get("runtime_env") or {}
    modules = [] if JOB in environment else [str(Path(__file__).parent.parent)]
    modules += [str(draft / FOLDER)] if files else []
    variables = WORKERS | {name: environment[name] for name in KEPT if name in environment}
    wanted = {name: v for name, v in variables.items() if name not in job.get("env_vars", {})}
    found: dict[str, Any] = {"env_vars": wanted}
    if modules and "py_modules" not in job:
        found["py_modules"] = modules
    return Origin(os.getcwd(), files), found


def _files(tasks: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(tasks) if name.endswith(".py")]


def _path(name: str, folder: Path) -> Path:
    return (folder / Path(name).expanduser()).resolve()


def _laid_out(path: Path, target: Path) -> str:
    """Copy the modules beside a task's file; the file's place under `target`."""
    own = hashlib.sha256(str(path.parent).encode()).hexdigest()[:12]
    size = 0
    for module in _modules(path.parent):
        copy = target / own / module.relative_to(path.parent)
        size += module.stat().st_size
        if size > LARGEST:
            raise StudyError(
                f"{path}: over {LARGEST // 2**20} MiB of modules lie beside it, and all are sent to"
                " the cluster's nodes; expected a folder of its own"
            )
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, copy)
    return f"{own}/{path.name}"


def _modules(folder: Path) -> Iterable[Path]:
    """What a file in the folder can import from it: modules, and packages with all in them."""
    package = Path(__file__).parent.parent
    yield from sorted(folder.glob("*.py"))
    for below in sorted(folder.iterdir()):
        if (below / "__init__.py").is_file() and below.resolve() != package:
            yield from sorted(path for path in below.rglob("*.py") if path.is_file())


def _same(copy: Path, folder: Path) -> bool:
    """Whether every file of the copy lies in the folder, with the same content."""
    return all(
        (folder / file.relative_to(copy)).is_file()
        and filecmp.cmp(file, folder / file.relative_to(copy), shallow=False)
        for file in copy.rglob("*.py")
    )
