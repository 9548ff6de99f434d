"""Two studies of one space, and their merge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from search.records import Run
from search.results import driver_recorded
from search.run import main
from search.space.settings import Space
from search.space.space import load_space
from search.study import Study, open_study
from search.training.from_space import task_of
from tests.study_cases import RANGE, TOY, YAML, baselines_trained, launched, run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def begun(space: Space, folder: Path) -> Study:
    folder.mkdir(parents=True, exist_ok=True)
    with driver_recorded(folder, space, task_of(space), "toy"):
        pass
    return open_study(folder, space, maximize=True)


def with_runs(study: Study, text: str, *runs: Run, **outcome: object) -> int:
    """A candidate that ended with these runs."""
    launch = launched(study, text)
    for each in runs:
        study.add_run(launch.number, each)
    study.finish(launch.number, **{"state": "complete", "best_rate": 0.1, "cost": 1.5, **outcome})
    return launch.number


def two_built(place: Path) -> Path:
    """Two studies that share the baselines and sin(x), which they extended differently; `a` has
    trained finalists with the fresh seeds 2 and 3, `b` with 4 too."""
    file = place / "space.yaml"
    values = {"scaled": RANGE, "sampler": "random", "trials": 3, "more": ""}
    file.write_text(YAML.format(task=TOY, **values), encoding="utf-8")
    study = begun(load_space(file, ["finalists={k: 2, seeds: 2}", "seeds=[0]"]), place / "a")
    baselines_trained(study)
    with_runs(study, "sin(x)", run(0.1, 0, 0.7), score=0.7)
    with_runs(study, "x * gompertz(x)", run(0.1, 0, 0.9), score=0.9)
    finalists_trained(study, 0.5)
    study.close()
    more = ["finalists={k: 1, seeds: 3}", "seeds=[0]", "search.seed=11"]
    study = begun(load_space(file, more), place / "b")
    baselines_trained(study)
    with_runs(study, "sin(x)", run(0.1, 0, 0.72), run(1.0, 0, 0.8), score=0.8, best_rate=1.0)
    with_runs(study, "x * gompertz(x) + 0.1 * x", run(0.1, 0, 0.6), score=0.6)
    finalists_trained(study, 0.5)
    study.close()
    return place


def finalists_trained(study: Study, test: float) -> None:
    """Enter the finalists and let each find `test` with every seed."""
    study.enter_finalists()
    while launch := study.next_waiting():
        assert launch.rate is not None
        for seed in launch.seeds:
            study.add_run(launch.number, replace(run(launch.rate, seed), test=test))
        study.finish(launch.number, state="complete", score=test, best_rate=launch.rate)


def opened_again(folder: Path, built: Path, *settings: str) -> Study:
    space = load_space(built / "space.yaml", ["seeds=[0]", *settings])
    return open_study(folder, space, maximize=True)


def merged(folders: list[Path], output: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    before = [contents(folder) for folder in folders]
    assert main(["--merge", *map(str, folders), "-o", str(output)]) == 0
    assert [contents(folder) for folder in folders] == before
    assert main(["--check", str(output)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1].endswith("all is well")
    return told[:-1]
