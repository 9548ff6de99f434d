"""Generated source on disk: a content-addressed cache, safe under concurrent processes."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

from search.errors import KernelError


def cache_folder() -> Path:
    """`$ACTIVATION_SEARCH_CACHE`, else the platform's cache folder for this package."""
    named = os.environ.get("ACTIVATION_SEARCH_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "activation-search"


@cache
def load_source(source: str, kind: str = "torch") -> ModuleType:
    """The module of a generated text, from its file in the cache's folder of that kind.

    The file's name is a hash of the text, so that equal text is one file; it is written beside and
    renamed, so that another process never sees half of it, and rewritten when it was damaged.
    Raises KernelError when neither the cache nor the temporary folder can be written.
    """
    name = f"formula_{hashlib.sha256(source.encode()).hexdigest()[:24]}"
    path = _write(name, source, kind)
    spec = importlib.util.spec_from_file_location(f"search_generated.{name}", path)
    if spec is None or spec.loader is None:
        raise KernelError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # torch 2.11's compiler imports what it traces by its name
    spec.loader.exec_module(module)
    return module


def _write(name: str, source: str, kind: str) -> Path:
    for folder in (cache_folder() / kind, Path(tempfile.gettempdir()) / _private_name()):
        path = folder / f"{name}.py"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.is_file() or path.read_text(encoding="utf-8") != source:
                with tempfile.NamedTemporaryFile(
                    "w", dir=folder, suffix=".tmp", delete=False, encoding="utf-8"
                ) as file:
                    file.write(source)
                os.replace(file.name, path)
        except OSError:
            continue
        return path
    raise KernelError(f"{cache_folder()}: cannot be written; set ACTIVATION_SEARCH_CACHE")


def writable_folder(kind: str) -> Path:
    """The cache's folder of a kind of file, or one of the temporary folder when it is read-only."""
    return _writable(cache_folder() / kind, Path(tempfile.gettempdir()) / _private_name() / kind)


@cache
def _writable(*folders: Path) -> Path:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise KernelError(f"{folders[0]}: cannot be written; set ACTIVATION_SEARCH_CACHE")


def _private_name() -> str:
    return f"activation-search-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
