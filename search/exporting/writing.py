"""Writes the file: rendered, loaded, measured against float64, rendered with what was found."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from search.environment import processor, versions
from search.errors import KernelError
from search.exporting.certificate import docstring, error_rows
from search.exporting.module_text import class_name, module_text
from search.exporting.programs import triton_text
from search.exporting.source import Rows, Source
from search.exporting.speed import relative_time

PACKAGES = ("torch", "triton", "numpy")


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written."""

    path: Path
    name: str
    """Of the class."""
    checks: int
    failed: tuple[str, ...]
    """Checks that do not hold, in the words of the self-test."""


def check_path(path: Path, force: bool, suffix: str = ".py") -> None:
    """Raises KernelError where a file must not, or cannot, be written."""
    if path.suffix != suffix:
        raise KernelError(f"{path}: expected a name that ends in {suffix}")
    if path.exists() and not force:
        raise KernelError(f"{path}: exists; expected a new file, or --force to replace it")
    if not path.parent.is_dir():
        raise KernelError(f"{path}: cannot be written: no folder {path.parent}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise KernelError(f"{path}: cannot be written")


def export_file(source: Source, path: Path) -> Exported:
    """Write the activation of `source` to `path`, with its certificate.

    Raises:
        KernelError: the file cannot be written.
    """
    name, date = class_name(path), datetime.now(UTC).date().isoformat()
    triton = triton_text(source.expression) is not None

    def rendered(measured: Rows) -> str:
        told = docstring(name, path.stem, source, triton, measured, date)
        return module_text(source.expression, path, told)

    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        draft.write_text(rendered(()), encoding="utf-8")
        rows, checks = _measured(load_file(draft), name, source)
    try:
        path.write_text(rendered(rows), encoding="utf-8")
    except OSError as error:
        raise KernelError(f"{path}: cannot be written: {error.strerror or error}") from None
    failed = tuple(str(check) for check in checks if not check.share <= 1)
    return Exported(path, name, len(checks), failed)


def load_file(path: Path) -> ModuleType:
    """The module of an exported file."""
    spec = importlib.util.spec_from_file_location(f"exported_{path.stem}", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _measured(module: ModuleType, name: str, source: Source) -> tuple[Rows, list[Any]]:
    """What the certificate says of numbers and of speed, and the checks behind it."""
    known = versions()
    rows: list[tuple[str, str]] = [
        ("measured with", ", ".join(f"{p} {known[p]}" for p in PACKAGES if p in known))
    ]
    checks = list[Any]()
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        found = module.measure(device)
        rows += error_rows(_place(module, device), found)
        checks += found
    rows.append(("speed", _speed(module, name, source)))
    return tuple(rows), checks


def _speed(module: ModuleType, name: str, source: Source) -> str:
    if source.cost is not None:
        return (
            f"a training step of the study's model takes {source.cost:.2f} times what it takes"
            " with ReLU (measured by the study, with the kernels of activation-search)"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ratio, spread = relative_time(getattr(module, name), source.expression, device)
    return (
        f"forward and backward of 2^20 float32 numbers take {ratio:.1f} times ReLU's (median of"
        f" 9 rounds that took turns, {spread[0]:.1f} to {spread[1]:.1f}; {_device_name(device)}"
        f"{', 1 thread' if device == 'cpu' else ''})"
    )


def _place(module: ModuleType, device: str) -> str:
    triton = device == "cuda" and hasattr(module, "define_kernels") and module.define_kernels()
    return f"{'Triton' if triton else 'torch operations'} on {_device_name(device)}"


def _device_name(device: str) -> str:
    return processor() if device == "cpu" else torch.cuda.get_device_name()
