"""Drivers killed at random moments, Ray's start and the planner's measurement among them."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest
from books import books_of, ended, now, record, until_a_run

from search.database.storage import has_study
from search.orphans import descendants
from search.results import in_use
from search.run import main
from tests.run_cases import driver, gone, words, write

STARTING = 8.0
"""Seconds, at most, from a driver's first process below it to its death while it starts."""
TRAINING = 4.0
"""Seconds, at most, from the first result of a session to its death."""


def killed(space: Path, draw: random.Random) -> bool:
    """Start a search and kill it, every other time before it trains; whether it still ran."""
    process = driver(words(space), subprocess.DEVNULL)
    assert process.stdout is not None
    if draw.random() < 0.5:
        while process.poll() is None and not descendants(process.pid):
            time.sleep(0.05)
        time.sleep(draw.uniform(0, STARTING))
    else:
        while (told := process.stdout.readline()) and " at rate " not in told:
            pass
        time.sleep(draw.uniform(0, TRAINING))
    below, runs = descendants(process.pid), process.poll() is None
    process.kill()
    process.communicate()
    assert gone(below, seconds=60), "Ray was left behind"
    return runs


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "kills"), [(seed, 5) for seed in range(4)])
def test_drivers_killed_at_random_moments_lose_and_repeat_nothing(
    tmp_path: Path, seed: int, kills: int
):
    space, draw = write(tmp_path, trials=24 * kills, epochs=6), random.Random(seed)
    folder = tmp_path / "results" / "rings"
    begun, kept = [], {}
    for _ in range(kills):
        begun.append(now())
        assert killed(space, draw), "it came to its end: too short"
        assert not in_use(folder)
        before, kept = kept, ended(folder) if has_study(folder) else {}
        assert {number: kept[number] for number in before} == before
    begun.append(now())
    assert main(words(space)) == 0
    assert main(["--check", str(folder), "--dry-run"]) == 0
    after = ended(folder)
    assert {number: after[number] for number in kept} == kept
    found = books_of(folder)
    seconds = [until_a_run(folder, each) for each in begun[1:]]
    record("driver killed (SIGKILL)", kills, found, seconds)
    assert (found.lost, found.repeated, found.unended) == (0, 0, 0)
    assert found.trials == 24 * kills + 2
    assert {trial.state for trial in after.values()} <= {"complete", "duplicate", "rejected"}
