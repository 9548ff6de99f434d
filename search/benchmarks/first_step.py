"""How long a new formula takes to its first finished step, in a process and a cache of its own.

The process has already run another formula, so that what is paid once a machine or once a process
(torch, the compiler's look-up, the walk over tensors) is not charged to a candidate. Run as
`python -m` by `bench kernels`, which gives the formulas on standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from search.activation import Activation
from search.benchmarks.measured import First
from search.kernels.formula import compile_batch
from search.language.parser import parse

WARM_UP = "w * x * exp2(-x * x / 7) where w = 1 per layer"
SHAPE = (64, 256)
BATCH = 8  # formulas, from which on sharing a compiler's start is called a batch
CACHES = ("ACTIVATION_SEARCH_CACHE", "TRITON_CACHE_DIR")
_SECONDS = 600


@dataclass(frozen=True, slots=True)
class FirstSteps:
    """All formulas in one dtype."""

    steps: tuple[First | None, ...]
    """None where the formula could not be computed; its measurement says why."""
    batch_seconds: float | None
    """Of building all C kernels in one compilation, a formula; None without C, or with few."""
    problem: str = ""
    """Why nothing was measured, in one line."""


def first_steps(
    expressions: Sequence[str], kernel: str, dtype: str, device: str, threads: int
) -> FirstSteps:
    """Measure in a fresh process with an empty cache."""
    asked = {"expressions": list(expressions), "kernel": kernel, "dtype": dtype}
    asked |= {"device": device, "threads": threads}
    try:
        found = json.loads(_in_fresh_process(json.dumps(asked)))
    except (OSError, subprocess.SubprocessError) as error:
        problem = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        return FirstSteps((None,) * len(expressions), None, problem[:140])
    steps = tuple(pair and First(*pair) for pair in found["steps"])
    return FirstSteps(steps, found["batch_seconds"])


def _in_fresh_process(asked: str) -> str:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        caches = {name: f"{folder}/{name}" for name in CACHES}
        return subprocess.run(
            [sys.executable, "-m", "search.benchmarks.first_step"],
            input=asked, capture_output=True, text=True, timeout=_SECONDS,
            env={**os.environ, **caches}, check=True,
        ).stdout  # fmt: skip


def _first(expression: str, kernel: str, dtype: str, device: str) -> tuple[float, float] | None:
    """Seconds of loading and of the first step."""
    parsed = parse(expression)
    inputs = [torch.randn(SHAPE).to(device, getattr(torch, dtype)) for _ in parsed.inputs]
    inputs = [x.requires_grad_() for x in inputs]
    try:
        began = time.perf_counter()
        module = Activation(parsed, SHAPE[-1], kernel=kernel).to(device, inputs[0].dtype).eval()
        module._formula.rendering(inputs[0].detach())
        loaded = time.perf_counter()
        y = module(*inputs)
        leaves = (*inputs, *module.parameters())
        torch.autograd.grad(y, leaves, torch.ones_like(y), allow_unused=True)
        if y.is_cuda:
            torch.cuda.synchronize(y.device)
        return loaded - began, time.perf_counter() - loaded
    except Exception:  # said where the same formula is timed
        return None


def _batch(expressions: Sequence[str], dtype: str) -> float | None:
    """Seconds a formula of one compilation of all; None where they are too few, or built."""
    parsed = [parse(expression) for expression in dict.fromkeys(expressions)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["ACTIVATION_SEARCH_CACHE"] = folder
        began = time.perf_counter()
        built = compile_batch(parsed, getattr(torch, dtype))
        return (time.perf_counter() - began) / built if built >= BATCH else None


def main() -> None:
    asked: dict[str, Any] = json.load(sys.stdin)
    torch.set_num_threads(asked["threads"])
    kernel, dtype, device = asked["kernel"], asked["dtype"], asked["device"]
    _first(WARM_UP, kernel, dtype, device)
    steps = [_first(text, kernel, dtype, device) for text in asked["expressions"]]
    in_c = device == "cpu" and kernel in ("auto", "c")
    batch = _batch(asked["expressions"], dtype) if in_c else None
    print(json.dumps({"steps": steps, "batch_seconds": batch}))


if __name__ == "__main__":
    main()
