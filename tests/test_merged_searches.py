"""`--merge` of studies that Ray has trained, with all that may end a run or a trial early."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from search.merging.joining import FURTHEST
from search.orphans import descendants
from search.records import Trial
from search.run import main
from search.space.space import load_space
from search.study import read_trials
from tests.run_cases import ENDED, gone, started, words, write

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_runs")]

WAYS = {
    "promotion": "search: {sampler: random, seed: 0, trials: 5, promotion: {first: 0.25, eta: 2}}",
    "early stopping": "search: {sampler: random, seed: 0, trials: 5, stopping: asha}",
    "halving": "learning_rate: {grid: [0.03, 0.1, 0.3], default: 0.1, halving: {keep: 0.4}}",
    "finalists": "finalists: {k: 2, seeds: 2}",
}

MORE = 2
"""Candidates that a merged study trains after those of its sources."""


def spaces(folder: Path, way: str) -> list[Path]:
    """Two files of one space, with other names and seeds."""
    text = write(folder, trials=5, epochs=8).read_text(encoding="utf-8")
    key = WAYS[way].partition(":")[0]
    kept = [line for line in text.splitlines() if not line.startswith(f"{key}:")]
    text = "\n".join([*kept, WAYS[way], ""])
    found = []
    for seed, name in enumerate("ab"):
        own = text.replace("name: rings", f"name: {name}").replace("seed: 0", f"seed: {seed}")
        (path := folder / f"{name}.yaml").write_text(own, encoding="utf-8")
        found.append(path)
    return found


def merged(folder: Path) -> Path:
    """The two as one, which `--check` takes."""
    output = folder / "ab"
    assert main(["--merge", str(folder / "a"), str(folder / "b"), "-o", str(output)]) == 0
    assert main(["--check", str(output), "--dry-run"]) == 0
    return output


def gone_on(output: Path) -> list[Trial]:
    """The trials of a merged study that has trained two candidates more; those that had ended are
    as they were."""
    before = {trial.number: trial for trial in read_trials(output) if trial.state in ENDED}
    file = output / "space.yaml"
    trials = str(load_space(file).search.trials + MORE)
    assert main([str(file), "--results", str(output.parent), "--trials", trials]) == 0
    assert main(["--check", str(output), "--dry-run"]) == 0
    after = read_trials(output)
    assert {t.number: t for t in after if t.number in before} == before
    trained = Counter(t.fingerprint for t in after if t.state not in ("duplicate", "rejected"))
    assert max(trained.values()) == 1
    assert {t.state for t in after} <= set(ENDED)
    return after


def ends(trials: list[Trial]) -> dict[str, Trial]:
    """By function; a baseline of the same function is not one of the search."""
    return {f"{t.origin} {t.fingerprint}": t for t in trials if t.state != "duplicate"}


def nothing_lost(source: Path, trials: list[Trial]) -> None:
    """Whatever ended in a source is in the merged study, with its runs and its finalists."""
    found = ends(trials)
    for which, trial in ends(read_trials(source)).items():
        now = found[which]
        assert f"{source}/{trial.number}" in now.sources
        assert FURTHEST.index(now.state) <= FURTHEST.index(trial.state)
        if now.state == trial.state == "complete":
            assert runs_of(trial) <= runs_of(now)
        for final in trial.finals:
            own = {seed for each in now.finals for seed in each.seeds}
            assert final.best_rate != now.best_rate or set(final.seeds) <= own


def searched(trials: list[Trial]) -> list[Trial]:
    return [t for t in trials if t.origin == "search" and t.state in ("complete", "pruned")]


def runs_of(trial: Trial) -> set[tuple[float, int]]:
    return {(run.learning_rate, run.seed) for run in trial.runs if run.state != "pruned"}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_lost_and_the_merged_study_goes_on(tmp_path: Path, way: str):
    for space in spaces(tmp_path, way):
        assert main(words(space)) == 0
    output = merged(tmp_path / "results")
    before = read_trials(output)
    for name in "ab":
        nothing_lost(tmp_path / "results" / name, before)
    early = {t.state for t in before} | {run.state for t in before for run in t.runs}
    assert way == "finalists" or "pruned" in early, "nothing ended early: this tests nothing"
    after = gone_on(output)
    assert len(searched(after)) == len(searched(before)) + MORE
    entered = [t for t in after if t.finals and t.origin == "search"]
    assert len(entered) >= (2 if way == "finalists" else 0)


@pytest.mark.parametrize("way", ["promotion", "halving"])
def test_what_a_killed_driver_left_goes_on_in_the_merged_study(tmp_path: Path, way: str):
    first, second = spaces(tmp_path, way)
    assert main(words(first)) == 0
    process = started(second)
    below = descendants(process.pid)
    process.kill()
    process.communicate()
    assert gone(below, seconds=60)
    cut = [t for t in read_trials(tmp_path / "results" / "b") if t.state == "running"]
    output = merged(tmp_path / "results")
    after = ends(gone_on(output))
    for name in "ab":
        ended = [t for t in read_trials(tmp_path / "results" / name) if t.state in ENDED]
        assert {f"{t.origin} {t.fingerprint}" for t in ended if t.state != "duplicate"} <= set(
            after
        )
    for trial in cut:
        now = after[f"{trial.origin} {trial.fingerprint}"]
        kept = {(r.learning_rate, r.seed, r.score) for r in now.runs}
        own = {(r.learning_rate, r.seed, r.score) for r in trial.runs}
        assert own <= kept or len(now.sources) > 1, "a run that had ended was trained again"
