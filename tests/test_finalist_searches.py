"""Finalists and placebos of real searches, killed ones among them."""

from __future__ import annotations

import csv
import random
import subprocess
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean

import pytest

from search.figures.finals import finals_info
from search.figures.heatmap import fresh_heatmap_info, heatmap_info, title
from search.figures.leaderboard import leaderboard_info
from search.figures.settings import ReportSettings
from search.finalists import own_seeds
from search.orphans import descendants
from search.proposals import Proposals
from search.records import Run, Trial
from search.run import main
from search.space.settings import Space
from search.space.space import load_space
from search.statistics.calibration import placebo_share
from search.study import read_trials
from search.training.candidate import train_candidate
from search.training.from_space import task_of, training_of
from search.training.job import Job
from tests.rings import PATIENT, opened, reread, write
from tests.run_cases import driver


def words(space: Path, *settings: str) -> list[str]:
    given = [word for setting in settings for word in ("--set", setting)]
    return [str(space), "--results", str(space.parent / "results"), *given]


@pytest.mark.usefixtures("ray_runs")
def test_a_complete_search_trains_its_finalists_when_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    space, folder = write(tmp_path, "batching: off\n"), tmp_path / "results" / "rings"
    assert main(words(space)) == 0
    before = read_trials(folder)
    capsys.readouterr()
    more = ("finalists={k: 1, seeds: 2}", "placebos=1")
    assert main(words(space, *more)) == 0
    out = capsys.readouterr().out
    assert "finalist 4/4" in out and "placebo 1/1" in out and " on the test split at " in out
    found = read_trials(folder)
    assert [replace(t, finals=()) for t in found if t.origin != "placebo"] == before
    finals = [(t, final) for t in found for final in t.finals]
    assert Counter(t.origin for t, _ in finals) == {"baseline": 2, "search": 1, "placebo": 1}
    for parent, final in finals:
        assert {r.learning_rate for r in final.runs} == {parent.best_rate} == {final.best_rate}
        assert [r.seed for r in final.runs] == list(own_seeds(parent, (2, 3)))
        assert all(r.test == pytest.approx(1 - (r.score or 0)) for r in final.runs)
        assert final.score == pytest.approx(fmean(r.test or 0 for r in final.runs))
        assert final.cost == parent.cost
    text = (folder / "leaderboard.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    fresh = {int(row["number"]): row for row in rows if row["fresh_score"]}
    assert {t.number for t, _ in finals} == set(fresh)
    for parent, final in finals:
        row = fresh[parent.number]
        assert float(row["fresh_score"]) == pytest.approx(final.score)
        assert float(row["shrinkage"]) == pytest.approx((parent.score or 0) - (final.score or 0))
        assert row["fresh_n"] == "2"
    assert main(words(space, *more)) == 0
    assert "complete, 2 candidates" in capsys.readouterr().out
    assert read_trials(folder) == found


def started(space: Path, *settings: str) -> subprocess.Popen[str]:
    """A search whose first finalist has just ended."""
    process = driver(words(space, *settings))
    assert process.stdout is not None
    seen = []
    for text in process.stdout:
        seen.append(text)
        if text.startswith("finalist 1/"):
            return process
    raise AssertionError("".join(seen) + process.communicate()[1])


def test_a_search_killed_among_its_finalists_loses_and_repeats_nothing(tmp_path: Path):
    space, folder = write(tmp_path, "batching: off\n", epochs=4), tmp_path / "results" / "rings"
    wanted = ("finalists={k: 2, seeds: 12}",)
    process = started(space, *wanted)
    time.sleep(random.Random(5).uniform(0, 1))
    below = descendants(process.pid)
    process.kill()
    process.communicate()
    assert below
    before = read_trials(folder)
    runs = {(t.number, run) for t in before for final in t.finals for run in final.runs}
    ended = {f.number: f for t in before for f in t.finals if f.state == "complete"}
    assert ended and len(runs) >= 12
    assert main(words(space, *wanted)) == 0
    after = read_trials(folder)
    assert [replace(t, finals=()) for t in after] == [replace(t, finals=()) for t in before]
    assert runs <= {(t.number, run) for t in after for final in t.finals for run in final.runs}
    finals = {f.number: f for t in after for f in t.finals}
    assert {number: finals[number] for number in ended} == ended
    for parent in after:
        assert [r.seed for f in parent.finals for r in f.runs] == list(range(2, 14))


def studied(space: Space) -> list[Trial]:
    """The whole study, trained in this process."""
    study, task = opened(space), task_of(space)
    training, proposals = training_of(space, task), Proposals(study, None, PATIENT)
    while launch := proposals.next():
        gated = launch.origin not in ("baseline", "finalist")
        again = launch.seeds, launch.rate, launch.budget, launch.task, launch.rates
        job = Job(launch.expression, gated, launch.runs, *again)
        runs: list[Run] = []
        outcome = train_candidate(replace(training, at_once=8), job, runs.append)
        for run in runs:
            study.add_run(launch.number, run)
        study.finish(launch.number, **asdict(outcome))
    study.close()
    return reread(space)


def declared(folder: Path, first: int) -> list[bool]:
    """Which placebos a study with its own seeds declares better than ReLU."""
    folder.mkdir()
    more = ("finalists={k: 0, seeds: 8}", "placebos=1", "baselines=[relu]", "search.trials=0")
    space = load_space(write(folder, tested=":"), (*more, f"seeds=[{first}, {first + 1}]"))
    board = leaderboard_info(studied(space), ReportSettings("rings"))
    info = finals_info(board, ReportSettings("rings"))
    assert info is not None and info.placebos is not None and info.placebos.placebos == 1
    return [info.placebos.declared == 1]


def test_finalists_at_every_rate_fill_a_heatmap_of_fresh_seeds(tmp_path: Path):
    more = ("finalists={k: 1, seeds: 2, sweep: true}", "search.trials=1")
    found = studied(load_space(write(tmp_path), more))
    board = leaderboard_info(found, ReportSettings("rings"))
    info = fresh_heatmap_info(found, ReportSettings("rings"))
    assert info is not None and info.fresh and len(info.rows) == 3
    for row, shown in zip(board.ranked, info.rows, strict=True):
        assert shown.label == row.label and row.final is not None and shown.best is not None
        frozen = shown.cells[shown.best]
        assert frozen is not None and frozen.learning_rate == row.trial.best_rate
        assert frozen.mean == pytest.approx(row.final.score) and frozen.n == row.final.n == 2
        assert sum(cell is not None for cell in shown.cells) == len(row.summaries) > 2
    assert heatmap_info(found, ReportSettings("rings")) != info
    assert title(info).startswith("test accuracy (%), higher is better: mean ± standard error over")


@pytest.mark.slow
def test_placebo_studies_declare_no_more_than_their_level_allows(tmp_path: Path):
    found = [one for n in range(20) for one in declared(tmp_path / str(n), 100 * n)]
    share = placebo_share(found)
    assert share.placebos == 20 and share.within
