"""What an exported activation costs against ReLU, the two taking turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from search.language.expression import Expression

ROUNDS, WARM_UP = 9, 2
ROWS, CHANNELS = 2**12, 2**8


def relative_time(
    made: Callable[..., nn.Module], expression: Expression, device: str
) -> tuple[float, tuple[float, float]]:
    """Median ratio of seconds of forward and backward, and the smallest and largest; 1 thread."""
    per_channel = any(p.scope == "channel" for p in expression.trainable)
    activation = (made(channels=CHANNELS) if per_channel else made()).to(device)
    draw = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(ROWS, CHANNELS, generator=draw).to(device).requires_grad_()
        for _ in expression.inputs
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ratios = [
            _seconds(activation, inputs) / _seconds(nn.ReLU(), inputs[:1])
            for _ in range(WARM_UP + ROUNDS)
        ][WARM_UP:]
    finally:
        torch.set_num_threads(threads)
    return statistics.median(ratios), (min(ratios), max(ratios))


def _seconds(function: Callable[..., Any], inputs: list[torch.Tensor]) -> float:
    _wait(inputs[0])
    began = time.perf_counter()
    y = function(*inputs)
    torch.autograd.grad(y, inputs, torch.ones_like(y))
    _wait(inputs[0])
    return time.perf_counter() - began


def _wait(x: torch.Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
