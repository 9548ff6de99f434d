"""Disks that are full, databases that are locked, folders that go away: one line, and nothing that
had ended is lost."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from search.errors import StudyError
from search.progress import Display, Goal, Standing
from search.records import Run, Trial
from search.results import write_whole
from search.run import main
from search.study import Study, read_trials
from tests.run_cases import refused, words, write
from tests.study_cases import MakeSpace, launched, opened, reread, run
from tests.tuner_cases import Lines, search, space


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a disk here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """A file that leaves nothing."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return path
    raise AssertionError("the disk has no end")


def ended(folder: Path) -> dict[int, Trial]:
    return {t.number: t for t in read_trials(folder) if t.state != "running"}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_runs")
def test_a_full_disk_stops_the_search_in_one_line_and_it_goes_on(
    disk: Path, capsys: pytest.CaptureFixture[str]
):
    path = write(disk, epochs=1)
    folder = disk / "results" / "rings"
    with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.driver.write_report", _no_report)
        main(words(path))
    before = ended(folder)
    assert sum(t.state == "complete" for t in before.values()) == 4
    capsys.readouterr()
    filler = fill(disk)
    (line,) = refused(path, "--trials", "4", capsys=capsys)
    assert str(folder) in line and ("full" in line or "No space left" in line)
    filler.unlink()
    with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.driver.write_report", _no_report)
        main(words(path, "--trials", "4"))
    after = ended(folder)
    assert {number: after[number] for number in before} == before
    assert sum(t.state == "complete" for t in after.values()) == 6


def _no_report(*_: object) -> Path:
    raise SystemExit(0)  # a report is larger than the disk


def test_a_study_that_cannot_grow_says_so_and_has_kept_every_run(make_space: MakeSpace):
    study = opened(make_space())
    launch = launched(study)
    backend = study._database.backend
    assert backend is not None
    backend.remove_session()
    with backend.engine.connect() as connection:
        pages = int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
    kept: list[Run] = []
    with pytest.raises(StudyError) as caught, study.storage_errors():
        for seed in range(1000):
            study.add_run(launch.number, run(seed=seed))
            kept.append(run(seed=seed))
    assert str(caught.value).endswith(
        "database or disk is full; expected free space; nothing that ended is lost"
    )
    assert kept and len(caught.value.problems) == 1
    study.close()
    study = opened(study.space)
    again = [study.next_waiting() for _ in range(3)]
    assert [each.runs for each in again if each and each.runs] == [tuple(kept)]


def test_a_file_that_cannot_be_written_is_told_in_one_line(disk: Path):
    fill(disk)
    with pytest.raises(StudyError, match="cannot be written: No space left on device") as caught:
        write_whole(disk / "environment.json", "{}" * 1000)
    assert len(caught.value.problems) == 1
    assert [path.name for path in disk.iterdir()] == ["filler"]


class Removing(Lines):
    """A display during which somebody removes the results."""

    def display(self, goal: Goal) -> Display:
        shown = super().display(goal)
        show = shown.show

        def then_remove(standing: Standing, ended: Trial | None = None) -> None:
            show(standing, ended)
            if ended is not None:
                shutil.rmtree(self.folder)

        shown.show = then_remove  # type: ignore[method-assign]
        return shown

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder


@pytest.mark.usefixtures("ray_runs")
def test_results_that_are_removed_while_it_runs_end_the_search(tmp_path: Path):
    path = tmp_path / "results" / "study.db"
    with pytest.raises(StudyError) as caught:
        search(space(tmp_path), Removing(path.parent))
    assert str(caught.value) == (
        f"{path}: was removed or replaced while the search ran; expected it to stay"
    )


@pytest.mark.slow  # SQLite waits for 30 s
def test_a_database_that_another_process_keeps_is_told(make_space: MakeSpace):
    study: Study = opened(make_space())
    launch = launched(study)
    with closing(sqlite3.connect(str(study.place), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StudyError) as caught, study.storage_errors():
            study.add_run(launch.number, run())
        other.execute("ROLLBACK")
    assert str(caught.value) == (
        f"{study.place}: cannot be used: database is locked; another process keeps it; expected"
        " that to end"
    )
    study.add_run(launch.number, run())
    assert any(t.runs == (run(),) for t in reread(study))
