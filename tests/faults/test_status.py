"""`search.status` beside a driver that writes, and the log of decisions after a kill."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from search.database.opening import existing_database
from search.decisions import LOG, Log, read_log
from search.errors import StudyError
from search.proposals import Proposals
from search.protocol import Rejection
from search.results import claimed, driver_recorded
from search.status import main
from search.study import Study
from search.training.from_space import task_of
from search.watching import lines, status_of
from tests.study_cases import MakeSpace, baselines_trained, launched, opened, run, trained
from tests.tuner_cases import search, space


def watched(study: Study) -> Path:
    """The folder of a study, with what a driver writes beside its database."""
    folder = study.space.source.parent / "results"
    with driver_recorded(folder, study.space, task_of(study.space), study.name):
        pass
    return folder


def told(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What a status says, by its first words."""
    assert main([str(folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    return {line[:13].strip(): line[15:] for line in said[1:]} | {"": said[0]}


def test_a_status_beside_a_driver_in_the_middle_of_writing(
    make_space: MakeSpace, capsys: pytest.CaptureFixture[str]
):
    study = opened(make_space(trials=6))
    baselines_trained(study)
    trained(study, launched(study), 0.93)
    running = launched(study)
    study.begin(running.number)
    study.add_run(running.number, run())
    folder = watched(study)
    with (
        claimed(folder),
        closing(sqlite3.connect(str(study.place), isolation_level=None)) as writer,
    ):
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("update trials set state = 'FAIL'")  # seen by nobody yet
        said = told(folder, capsys)
        writer.execute("ROLLBACK")
    assert said[""] == "toy: 1/6 candidates, 2/2 baselines"
    assert said["candidates"] == "1 complete, 1 running"
    assert said["best"].startswith("93.00 %  ") and said["best baseline"].startswith("80.00 %")
    assert said["running"].endswith(f"1 runs ended: {running.expression}")
    assert said["runs"].startswith("4 have ended, ") and "time left" in said
    study.add_run(running.number, run(seed=1))  # the writer was never in the way


def test_a_status_without_a_driver_says_how_to_go_on(
    make_space: MakeSpace, capsys: pytest.CaptureFixture[str]
):
    study = opened(make_space(trials=6))
    baselines_trained(study)
    folder = watched(study)
    study.close()
    assert main([str(folder), "--watch"]) == 0  # and does not wait for one
    *_, last = capsys.readouterr().out.splitlines()
    again = f"python -m search.run {study.space.source} --results {folder.parent}"
    assert last == f"no driver is running; go on with: {again}"


def test_the_rate_of_runs_is_of_the_last_minutes(make_space: MakeSpace):
    study = opened(make_space(trials=6))
    baselines_trained(study)
    folder = watched(study)
    with claimed(folder), existing_database(folder) as database:
        now = datetime.now()
        soon, later = (status_of(folder, database, now + timedelta(minutes=k)) for k in (5, 20))
    assert soon.per_minute == pytest.approx(2 / 5, rel=0.2)
    assert later.per_minute == 0.0
    assert "runs           2 have ended, 0 a minute" in lines(later)


def test_a_folder_without_a_study_is_told(tmp_path: Path):
    with pytest.raises(StudyError, match="no such file; expected the results of a study"):
        main([str(tmp_path)])


# --- the log -------------------------------------------------------------------------------------


def test_every_decision_has_a_line(make_space: MakeSpace):
    study = opened(make_space(trials=2))
    proposals = Proposals(
        study, lambda e: Rejection("shape", "no gompertz") if "gompertz" in str(e) else None, 1e9
    )
    while launch := proposals.next():
        study.begin(launch.number)
        if launch.name == "relu" and not launch.alone:
            study.lose(launch.number, "worker", "its worker died")
        else:
            trained(study, launch)
    study.close()
    opened(study.space)
    log = read_log(Path(str(study.place)).parent)
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in log)
    assert [line["what"] for line in (log[0], log[-1])] == ["opened", "resumed"]
    kinds = {line["what"] for line in log}
    assert kinds >= {"launched", "refused", "run", "ended", "lost"}
    by = {line["by"] for line in log if line["what"] in ("launched", "refused")}
    assert by == {"baseline", "random"}
    states = {line["trial"]: line["state"] for line in log if line["what"] == "ended"}
    kept = {trial.number: trial.state for trial in study.trials.values()}
    assert states == kept
    lost = next(line for line in log if line["what"] == "lost")
    assert lost == {
        "time": lost["time"],
        "what": "lost",
        "trial": -1,
        "cause": "worker",
        "reason": "its worker died",
    }
    assert any(line.get("continues") == 0 for line in log)


def test_half_a_line_is_left_behind(tmp_path: Path):
    Log(tmp_path / LOG)("opened", study="toy", nothing=None)
    with (tmp_path / LOG).open("a") as file:
        file.write('{"time": "2026-11-22T06:00:00.000+00:00", "what": "laun')  # killed
    Log(tmp_path / LOG)("resumed")
    log = Log(tmp_path / LOG)
    log("launched", trial=0)
    log("run", trial=0)
    assert [line["what"] for line in read_log(tmp_path)] == ["opened", "resumed", "launched", "run"]
    text = (tmp_path / LOG).read_text(encoding="utf-8")
    assert text.count("\n") == 5 and "nothing" not in text
    assert read_log(tmp_path / "nowhere") == []
    Log(tmp_path / "nowhere" / LOG)("opened")  # what cannot be written is left out


@pytest.mark.usefixtures("ray_runs")
@pytest.mark.slow
def test_a_search_logs_its_end(tmp_path: Path):
    search(space(tmp_path, "search.trials=1"))
    log = read_log(tmp_path / "results")
    assert (log[-1]["what"], log[-1]["why"]) == ("done", "all 1 trials are done")
