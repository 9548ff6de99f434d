"""The command line: one driver after another, killed, stopped, refused."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from search.orphans import descendants
from search.progress import Goal, LiveDisplay, standing
from search.records import Run, Trial
from search.results import claimed, set_aside
from search.run import main
from search.study import read_trials
from search.summary import notes
from tests.run_cases import ENDED, ROOT, gone, refused, snapshot, started, words, write


@pytest.fixture
def space(tmp_path: Path) -> Path:
    return write(tmp_path)


# --- drivers, on one Ray -------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_runs")
def test_search_then_complete_then_more(space: Path, capsys: pytest.CaptureFixture[str]):
    folder = space.parent / "results" / "rings"
    assert main(words(space)) == 0
    first = capsys.readouterr().out
    assert "all 2 trials are done" in first and "baseline 2/2" in first
    assert f"report: {folder / 'report' / 'index.html'}" in first
    names = {"study.db", "space.yaml", "environment.json", "leaderboard.csv", "lr_heatmap.png"}
    assert names <= {path.name for path in folder.iterdir()}
    assert not list(folder.glob("study.db-*"))  # one file, whole
    about = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    assert (about["metric"], about["maximize"], len(about["sessions"])) == ("accuracy", True, 1)
    kept = read_trials(folder)

    (folder / "report" / "index.html").unlink()
    assert main(words(space)) == 0
    assert "complete, 2 candidates" in capsys.readouterr().out
    assert (folder / "report" / "index.html").is_file()
    assert read_trials(folder) == kept

    assert main(words(space, "--trials", "4")) == 0
    more = read_trials(folder)
    assert [t for t in more if t in kept] == kept
    assert sum(t.state == "complete" and t.origin == "search" for t in more) == 4
    about = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    assert len(about["sessions"]) == 2


@pytest.mark.usefixtures("ray_runs")
def test_baselines_alone_are_an_ablation(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    space = write(tmp_path)
    text = space.read_text(encoding="utf-8")
    start, end = text.index("activation:"), text.index("baselines:")
    cut = (text[:start] + text[end:]).split("search:")[0]
    space.write_text(cut, encoding="utf-8")
    assert main(words(space)) == 0
    trials = read_trials(tmp_path / "results" / "rings")
    assert [t.name for t in trials] == ["silu", "relu"]
    assert main(words(space, "--dry-run")) == 0
    assert "none: the baselines alone" in capsys.readouterr().out


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    space: Path, capsys: pytest.CaptureFixture[str]
):
    before = sorted(space.parent.rglob("*"))
    assert main(words(space, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "at most 8 shapes, with up to 2 ranges of numbers" in out
    assert "2 candidates and 2 baselines" in out
    assert "runs         24: every trial at 3 learning rates × 2 seeds" in out
    assert "s a run (timed now), " in out
    assert "halving" not in out
    halving = "learning_rate.halving={keep: 0.3, rungs: 1}"
    assert main(words(space, "--dry-run", "--set", halving)) == 0
    assert "end of the grid; halving leaves " in capsys.readouterr().out
    assert sorted(space.parent.rglob("*")) == before


def test_results_are_set_aside_under_the_first_free_number(tmp_path: Path):
    folder = tmp_path / "rings"
    assert set_aside(folder) is None
    with claimed(folder):
        pass
    assert set_aside(folder) is None  # a lock alone is no result
    for number in (1, 2, 3):
        with claimed(folder):
            (folder / "study.db").write_text(f"study {number}", encoding="utf-8")
        assert set_aside(folder) == tmp_path / f"rings.{number}"
        assert not folder.exists()
    texts = [(tmp_path / f"rings.{n}" / "study.db").read_text(encoding="utf-8") for n in (1, 2, 3)]
    assert texts == ["study 1", "study 2", "study 3"]


# --- refusals ------------------------------------------------------------------------------------


def test_a_results_folder_that_cannot_be_is_told(space: Path, capsys: pytest.CaptureFixture[str]):
    (space.parent / "results").write_text("a file", encoding="utf-8")
    (line,) = refused(space, capsys=capsys)
    assert line.startswith(f"{space.parent / 'results' / 'rings'}: cannot be written: ")


def test_a_folder_in_use_is_told(space: Path, capsys: pytest.CaptureFixture[str]):
    with claimed(space.parent / "results" / "rings"):
        for more in ((), ("--fresh",)):
            (space.parent / "results" / "rings" / "study.db").touch()
            (line,) = refused(space, *more, capsys=capsys)
            assert line.endswith("another search writes here; expected one at a time")


def test_more_than_the_machine_has_is_told(space: Path, capsys: pytest.CaptureFixture[str]):
    (line,) = refused(space, "--set", "resources.cpu=4096", "--dry-run", capsys=capsys)
    assert line.startswith("resources.cpu: a trial asks for 4096, and there are ")
    (line,) = refused(space, "--set", "device=cuda", "--dry-run", capsys=capsys)
    assert line.startswith("device: cuda, and resources.gpu is 0")


def test_a_damaged_study_is_told_and_kept(space: Path, capsys: pytest.CaptureFixture[str]):
    folder = space.parent / "results" / "rings"
    folder.mkdir(parents=True)
    (folder / "study.db").write_bytes(b"SQLite format 3\0 and then nothing")
    (line,) = refused(space, capsys=capsys)
    assert line.startswith(f"{folder / 'study.db'}: cannot be used: ")
    assert (folder / "study.db").read_bytes() == b"SQLite format 3\0 and then nothing"


def test_help_imports_nothing_heavy():
    code = "import sys, search.run; search.run.parser(); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "False", run.stderr


# --- killed and stopped, in processes of their own ------------------------------------------------


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_killed_search_loses_and_repeats_nothing(tmp_path: Path, kills: int):
    space = write(tmp_path, trials=6 * kills, epochs=6)
    delays = random.Random(kills)
    ended: dict[int, Trial] = {}
    runs: set[tuple[str, Run]] = set()
    for _ in range(kills):
        process = started(space)
        time.sleep(delays.uniform(0, 2))
        below = descendants(process.pid)
        process.kill()
        process.communicate()
        before, (ended, runs) = (ended, runs), snapshot(space)
        assert len(ended) > len(before[0])
        assert {number: ended[number] for number in before[0]} == before[0]
        assert before[1] <= runs
        assert gone(below, seconds=60), "Ray was left behind"
        assert snapshot(space) == (ended, runs)
    assert main(words(space)) == 0
    later, all_runs = snapshot(space)
    assert {number: later[number] for number in ended} == ended
    assert runs <= all_runs
    trained = [t for t in later.values() if t.state == "complete"]
    assert Counter(t.origin for t in trained) == {"search": 6 * kills, "baseline": 2}
    assert max(Counter(t.fingerprint for t in trained).values()) == 1
    for trial in trained:
        assert max(Counter((r.learning_rate, r.seed) for r in trial.runs).values()) == 1


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_stopped_search_says_how_to_go_on(tmp_path: Path, number: signal.Signals, code: int):
    space = write(tmp_path, trials=50, epochs=6)
    process = started(space)
    below = descendants(process.pid)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    (line,) = told.splitlines()
    assert line.startswith("stopped; what has ended is kept, go on with: python -m search.run ")
    assert str(space) in line
    assert gone(below, seconds=60)
    trials = read_trials(tmp_path / "results" / "rings")
    assert trials and {t.state for t in trials} <= set(ENDED)
    assert not list((tmp_path / "results" / "rings").glob("study.db-*"))


# --- what is shown -------------------------------------------------------------------------------


def trial(number: int, state: str, score: float | None = None, **more: object) -> Trial:
    values = {
        "number": number,
        "origin": "search",
        "name": "",
        "expression": f"x * sigmoid({number} * x)",
        "fingerprint": f"{number:016x}",
        "state": state,
        "score": score,
        "seconds": 10.0 if state == "complete" else 0.0,
    }
    return Trial(**(values | more))  # type: ignore[arg-type]


GOAL = Goal("rings", "accuracy", True, budget=8, baselines=2, concurrent=2)
TRIALS = [
    trial(-1, "complete", 0.9, origin="baseline", name="relu"),
    trial(0, "complete", 0.95),
    trial(1, "complete", 0.97),
    trial(2, "complete", 0.97),
    trial(3, "diverged"),
    trial(4, "rejected", reason="shape: f(x) = 1 for every x"),
    trial(5, "rejected", reason="finite: f(1e4) is inf in float16"),
    trial(6, "duplicate", duplicate_of=1),
    trial(7, "running"),
]


def test_where_a_search_stands():
    now = standing(TRIALS, GOAL)
    assert (now.trained, now.baselines, now.running) == (4, 1, 1)
    assert now.best and now.best.number == 1  # the earlier of two equals
    assert now.best_baseline and now.best_baseline.name == "relu"
    assert now.remaining == 30.0  # 5 trials left, two at once, 10 s each
    loss = standing(TRIALS, Goal("rings", "loss", False, 8, 2))
    assert loss.best and loss.best.number == 0


def test_the_live_display_shows_it():
    console = Console(force_terminal=True, file=io.StringIO(), width=120)
    with LiveDisplay(console, GOAL) as display:
        display.show(standing(TRIALS, GOAL))
        console.print(display._drawn())
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for part in ("4/8 candidates", "1/2 baselines", "97.00 %", "90.00 %", "relu", "1 running"):
        assert part in text
    assert "1 diverged, 2 rejected, 1 duplicate" in text


def test_what_was_not_trained_is_told_by_reason():
    assert notes(TRIALS) == [
        "duplicates: 1 of 8 proposals (12%)",
        "rejected: 2 (1 by shape, 1 by finite)",
        "diverged: 1",
    ]
