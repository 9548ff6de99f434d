"""`--check`: what it finds in studies that were damaged on purpose, and what it makes good."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from search.errors import StudyError, run_cli
from search.integrity.salvage import damage
from search.records import Run, Trial
from search.results import claimed
from search.run import main
from search.study import read_trials
from tests.study_cases import MakeSpace, baselines_trained, launched, opened, run, trained


@pytest.fixture
def folder(make_space: MakeSpace) -> Path:
    """A finished study: baselines as trials -1 and 0, then candidates."""
    study = opened(make_space(trials=3))
    baselines_trained(study)
    for score in (0.9, 0.7, 0.8):
        trained(study, launched(study), score)
    study.close()
    return study.space.source.parent / "results"


def checked(folder: Path, *more: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    code = main(["--check", str(folder), *more])
    out = capsys.readouterr()
    assert not out.err
    return code, out.out.splitlines()


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        assert connection.execute(statement, values).rowcount == 1
        connection.commit()


def own_id(folder: Path, number: int) -> int:
    """Of a candidate's row."""
    query = "select trial_id from trials where number = ? order by study_id limit 1"
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        return connection.execute(query, (number,)).fetchone()[0]


def attribute(folder: Path, number: int, key: str, old: str, new: str) -> None:
    """Change some of an attribute's text."""
    where = "where trial_id = ? and key = ?"
    change(
        folder,
        f"update trial_user_attributes set value_json = replace(value_json, ?, ?) {where}",
        old,
        new,
        own_id(folder, number),
        key,
    )


def test_a_study_as_it_was_written_is_well(folder: Path, capsys: pytest.CaptureFixture[str]):
    before = (folder / "study.db").read_bytes()
    code, lines = checked(folder, capsys=capsys)
    assert (code, lines) == (0, [f"{folder}: 5 trials, 5 runs; all is well"])
    assert (folder / "study.db").read_bytes() == before
    assert not list(folder.glob("study.db.*"))


def test_what_cannot_be_repaired_is_told_and_stays(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    kept = read_trials(folder)
    attribute(folder, 1, "run 0.1 0", '"steps": 8', '"steps": 9')
    attribute(folder, 2, "record", "0.7", "0.8")
    attribute(folder, 3, "candidate", '"fingerprint": "', '"fingerprint": "0')
    code, lines = checked(folder, capsys=capsys)
    assert code == 1
    own = next(t for t in kept if t.number == 3)
    wrong = f"0{own.fingerprint}"
    assert lines == [
        "trial 1: run 0.1 0: is not what was written: its hash differs",
        "trial 2: record: is not what was written: its hash differs",
        "trial 2: its score is 0.8, and its runs give 0.7",
        "trial 2: Optuna has the values [0.7], and its record [0.8]",
        f"trial 3: its fingerprint is not that of {own.expression}",
        f"trial 3: its fingerprint is {wrong}, and in its record {own.fingerprint}",
        f"{folder}: 5 trials, 5 runs; 6 problems",
    ]


def test_what_a_record_tells_is_repaired(folder: Path, capsys: pytest.CaptureFixture[str]):
    kept = read_trials(folder)
    for statement, number in (
        ("update trials set state = 'FAIL' where trial_id = ?", 1),
        ("update trial_values set value = 0.99 where trial_id = ?", 2),
        ("delete from trial_user_attributes where key = 'record' and trial_id = ?", 3),
    ):
        change(folder, statement, own_id(folder, number))
    (damaged := folder / "copy.db").write_bytes((folder / "study.db").read_bytes())
    code, lines = checked(folder, "--dry-run", capsys=capsys)
    assert code == 1 and lines == [
        "trial 1: is FAIL, and complete in its record; can be repaired",
        "trial 2: Optuna has the values [0.99], and its record [0.7]; can be repaired",
        "trial 3: is COMPLETE and has no record; can be repaired",
        f"{folder}: 5 trials, 5 runs; 3 problems",
    ]
    assert (folder / "study.db").read_bytes() == damaged.read_bytes()
    code, lines = checked(folder, capsys=capsys)
    assert code == 0 and len(lines) == 4
    assert all("; repaired: " in line for line in lines[:3])
    assert lines[3] == f"{folder}: 5 trials, 5 runs; all is well; as it was: {folder}/study.db.1"
    assert (folder / "study.db.1").read_bytes() == damaged.read_bytes()
    again = read_trials(folder)
    assert [(t.number, t.state, t.score, t.runs) for t in again] == [
        (t.number, t.state, t.score, t.runs) for t in kept
    ]
    assert checked(folder, capsys=capsys)[0] == 0


def test_orphans_wait_again_and_keep_their_runs(
    make_space: MakeSpace,
    capsys: pytest.CaptureFixture[str],
):
    study = opened(make_space())
    baselines_trained(study)
    launch = launched(study)
    study.begin(launch.number)
    study.add_run(launch.number, run())
    study.close()  # a killed driver
    folder = study.space.source.parent / "results"
    with claimed(folder):  # another process would be told the same
        code, lines = checked(folder, capsys=capsys)
        assert (code, lines) == (0, [f"{folder}: 3 trials, 3 runs; all is well"])
    code, lines = checked(folder, capsys=capsys)
    assert code == 0
    assert lines[0] == "trial 1: runs, and no driver does; repaired: waits to go on"
    study = opened(study.space)
    again = study.next_waiting()
    assert again and (again.expression, again.runs) == (launch.expression, (run(),))


def test_a_trial_that_went_on_nowhere_goes_on(
    make_space: MakeSpace,
    capsys: pytest.CaptureFixture[str],
):
    study = opened(make_space())
    baselines_trained(study)
    launch = launched(study)
    study.begin(launch.number)
    study.add_run(launch.number, run())
    study.lose(launch.number, "worker", "died")
    study.close()
    folder = study.space.source.parent / "results"
    assert checked(folder, capsys=capsys)[0] == 0
    own = own_id(folder, 2)
    for table in ("trial_params", "trial_system_attributes", "trial_user_attributes", "trials"):
        with closing(sqlite3.connect(folder / "study.db")) as connection:
            connection.execute(f"delete from {table} where trial_id = ?", (own,))
            connection.commit()
    code, lines = checked(folder, capsys=capsys)
    assert code == 0
    assert lines[0] == "trial 1: goes on in no later trial; repaired: waits to go on"
    again = opened(study.space).next_waiting()
    assert again and again.runs == (run(),)


def test_a_record_without_its_trial_gets_it_back(folder: Path, capsys: pytest.CaptureFixture[str]):
    kept = read_trials(folder)
    for number in (1, 3):
        change(folder, "delete from trials where trial_id = ?", own_id(folder, number))
    assert len(read_trials(folder)) == len(kept) - 2  # Optuna misses nothing
    code, lines = checked(folder, "--dry-run", capsys=capsys)
    assert code == 1
    assert lines[0].endswith(": 2 trials have lost their own rows, 2 of them have records")
    code, lines = checked(folder, capsys=capsys)
    assert code == 0 and "5 trials can be read; 2 of them had lost their own row" in lines[0]
    assert "trial 1: runs, and no driver does; repaired: told as ended" in lines
    assert read_trials(folder) == kept


def test_what_waits_without_a_candidate_is_dismissed(
    make_space: MakeSpace,
    capsys: pytest.CaptureFixture[str],
):
    study = opened(make_space())
    baselines_trained(study)
    study._database.search.enqueue_trial({"F": "sin(x)"})  # and the driver is killed
    study.close()
    folder = study.space.source.parent / "results"
    code, lines = checked(folder, capsys=capsys)
    assert code == 0
    assert lines[0] == "trial 1: waits without a candidate; repaired: dismissed"
    study = opened(study.space)
    study._database.search.enqueue_trial({"F": "sin(x)"})
    study.close()
    assert opened(study.space).next_waiting() is None  # a search does so by itself


def test_older_studies_are_told_unhashed(folder: Path, capsys: pytest.CaptureFixture[str]):
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        connection.execute(
            "update trial_user_attributes set value_json = json_remove(value_json, '$.hash')"
            " where key = 'record' or key like 'run %'"
        )
        connection.commit()
    code, lines = checked(folder, capsys=capsys)
    assert code == 0
    assert lines == [f"{folder}: 5 trials, 5 runs; 10 records unhashed; all is well"]
    assert len(read_trials(folder)) == 5


# --- files that were damaged ---------------------------------------------------------------------


def runs_in(trials: list[Trial]) -> set[tuple[str, Run]]:
    return {(trial.expression, run) for trial in trials for run in trial.runs}


def looked_at(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Check a study as a person does, whatever is wrong with it."""
    with pytest.raises(SystemExit) as stop:
        run_cli(lambda: main(["--check", str(folder)]))
    out = capsys.readouterr()
    assert "Traceback" not in out.err + out.out
    assert stop.value.code in (0, 1) or len(out.err.splitlines()) == 1
    return int(str(stop.value.code)), out.out + out.err


@pytest.mark.parametrize("damages", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_flipped_bytes_are_found_and_no_run_is_changed_unseen(
    folder: Path, damages: int, capsys: pytest.CaptureFixture[str]
):
    whole, kept = (folder / "study.db").read_bytes(), runs_in(read_trials(folder))
    draw = random.Random(damages)
    for _ in range(damages):
        data = bytearray(whole)
        start = draw.randrange(100, len(data))
        for offset in range(draw.choice((1, 1, 1, 64, 4096))):
            if start + offset < len(data):
                data[start + offset] ^= 1 << draw.randrange(8)
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "study.db").write_bytes(data)
        code, told = looked_at(folder, capsys)
        if code == 2:
            continue
        try:
            now = read_trials(folder)
        except StudyError as error:
            assert code == 1 and len(error.problems) == 1
            continue
        assert not damage(folder / "study.db")
        assert runs_in(now) <= kept or "hash differs" in told or "cannot be read" in told
        # What it left is as it says.
        assert looked_at(folder, capsys)[0] == code


def test_a_file_that_was_cut_off_gives_what_it_has(
    make_space: MakeSpace,
    capsys: pytest.CaptureFixture[str],
):
    study = opened(make_space(trials=30))
    baselines_trained(study)
    for number in range(12):
        launch = launched(study)
        for seed in range(1, 9):
            study.add_run(launch.number, run(seed=seed, score=0.5 + number / 100))
        trained(study, launch, 0.5 + number / 100)
    study.close()
    folder = study.space.source.parent / "results"
    whole, kept = (folder / "study.db").read_bytes(), runs_in(read_trials(folder))
    (folder / "study.db").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(StudyError, match="--check"):
        read_trials(folder)
    _, told = looked_at(folder, capsys)
    assert "trials can be read" in told
    now = runs_in(read_trials(folder))
    assert now and now <= kept
    assert (folder / "study.db.1").read_bytes() == whole[: len(whole) * 3 // 4]
    study = opened(study.space)  # and it goes on
    while launch := study.next_waiting():
        trained(study, launch)
    trained(study, launched(study))


def test_a_folder_without_a_study_is_told(tmp_path: Path):
    with pytest.raises(StudyError, match="no such file; expected the results of a study"):
        main(["--check", str(tmp_path)])
