"""Where results were made: versions, machine, state of the code. Plain JSON values."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("activation-search", "torch", "triton", "ray", "optuna", "numpy", "scikit-learn")


def environment() -> dict[str, Any]:
    """The driver's machine: versions, processor, GPUs, commit of the code."""
    import torch  # 1 s to import, and the record of it can be read without

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "versions": versions(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": processor(),
        "cpus": available_cpus(),
        "gpu": ", ".join(gpus),
        "commit": commit(Path(__file__).parent),
    }


@lru_cache(maxsize=4)
def worker_environment(device: str) -> dict[str, Any]:
    """What a trial remembers of the process that trained it; once per process."""
    import torch

    gpu = device.startswith("cuda") and torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name(device) if gpu else processor(),
        "host": platform.node(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


@contextmanager
def environment_variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """In it the process has these environment variables; after it, what it had before."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def versions() -> dict[str, str]:
    """The installed versions of what results depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=1)
def processor() -> str:
    """The processor's name; on Linux the one in /proc/cpuinfo, as platform knows none there."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def available_cpus() -> int:
    """The processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def commit(folder: Path) -> str:
    """The git commit of the code at `folder`, with `+` when it was changed since; empty if none."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        # The folder must itself be tracked: an installed package may lie inside another checkout.
        if not git("ls-files", "errors.py"):
            return ""
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""
