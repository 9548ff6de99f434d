"""Workers and drivers killed by a seeded schedule, then the books: one end each, no run lost."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest
from strikes import LOST, kill_a_worker

from search.decisions import read_log
from search.orphans import descendants
from search.run import main
from search.study import read_trials
from tests.run_cases import gone, started, words, write


@pytest.mark.parametrize(
    ("rounds", "trials"), [(1, 8), pytest.param(3, 24, marks=pytest.mark.slow)]
)
def test_killed_workers_and_drivers_lose_and_repeat_nothing(
    tmp_path: Path, rounds: int, trials: int
):
    space = write(tmp_path, trials=trials, epochs=12)
    folder, draw = tmp_path / "results" / "rings", random.Random(rounds)
    killed = 0
    for _ in range(rounds):
        driver = started(space)
        for _ in range(2):
            time.sleep(draw.uniform(0.2, 2.0))
            killed += kill_a_worker(driver.pid, draw)
        below = descendants(driver.pid)
        driver.kill()
        driver.communicate()
        assert gone(below, seconds=60)
    assert killed > 0
    assert main(words(space)) == 0
    assert main(["--check", str(folder), "--dry-run"]) == 0

    found = [t for t in read_trials(folder) if t.state not in ("duplicate", "rejected")]
    assert {t.state for t in found} <= {"complete", "failed"}
    assert {t.reason for t in found if t.state == "failed"} <= {LOST}
    assert Counter(t.origin for t in found) == {"search": trials, "baseline": 2}
    assert max(Counter(t.fingerprint for t in found).values()) == 1
    kept = Counter((t.expression, r.learning_rate, r.seed, r.score) for t in found for r in t.runs)
    assert max(kept.values()) == 1

    log = read_log(folder)
    formulas = {line["trial"]: line["expression"] for line in log if "expression" in line}
    ended = [line for line in log if line["what"] == "run"]
    told = Counter(
        (formulas[line["trial"]], line["learning_rate"], line["seed"], line.get("score"))
        for line in ended
    )
    assert set(told) <= set(kept)  # nothing that ended was lost …
    assert max(told.values()) == 1  # … or trained again
