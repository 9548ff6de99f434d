"""What a batch of runs takes of memory, against its runs one beside the other."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from search.benchmarks.sweeps import keys_of, prepared_case
from search.training.planner import train_short


def peak(work: Callable[[], object]) -> int:
    """The most bytes of tensors at a time, of what the work itself allocated."""
    gc.collect()  # what earlier work left in cycles would be freed in between, and count as less
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    recorded = seen.profiler
    assert recorded is not None and recorded.kineto_results is not None
    events = [e for e in recorded.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()  # type: ignore[attr-defined]
        most = max(most, now)
    return most


def test_the_peak_is_the_most_at_a_time():
    size = 4 * 2**20

    def work() -> None:
        for _ in range(3):
            held = torch.empty(2**20)
            both = torch.cat([held, held])
            del held, both

    assert peak(work) == 3 * size


@pytest.mark.parametrize("case", ["digits_mlp", "digits_cnn", "extrapolation"])
def test_a_batch_takes_no_more_than_its_runs_and_a_tenth(case: str):
    """Building, steps and evaluation included."""
    prepared = prepared_case(case, "cpu")
    for members in (1, 6):  # kernels are loaded, and torch's own tables made
        train_short(prepared, keys_of(members), 2)
    one = peak(lambda: train_short(prepared, keys_of(1), 3))
    many = peak(lambda: train_short(prepared, keys_of(6), 3))
    assert one < many <= 1.1 * 6 * one
