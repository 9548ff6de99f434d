"""Starts the tests of `tests/interpreted` with Triton's interpreter, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).resolve().parent.parent
FOLDER = "tests/interpreted"
OLD = "-Wignore:Conversion of an array:DeprecationWarning"  # Triton 3.6's own, under NumPy 2.3


def _release(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(package).split(".")[:2])


@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_in_the_interpreter(which: str):
    if _release("triton") < (3, 7) and _release("numpy") >= (2, 4):
        pytest.skip("the interpreter of Triton 3.6 does not run under NumPy 2.4")
    run = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-pno:cacheprovider", OLD, f"-m{which}", FOLDER),
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:]
