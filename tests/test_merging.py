"""`--merge`: studies of one space as one, with every run, and nothing changed in what is merged."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from search.claiming import claimed
from search.decisions import read_log
from search.errors import StudyError
from search.language.parser import parse
from search.run import main
from search.space.space import load_space
from search.study import open_study, read_trials
from tests.merging_cases import begun, merged, opened_again, two_built, with_runs
from tests.study_cases import baselines_trained, launched, run, trained


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_built(tmp_path_factory.mktemp("built"))


@pytest.fixture
def two(built: Path, tmp_path: Path) -> list[Path]:
    """The two, to be changed."""
    return [Path(shutil.copytree(built / name, tmp_path / name)) for name in ("a", "b")]


def test_runs_are_joined_by_function_and_nothing_is_lost(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    told = merged(two, tmp_path / "ab", capsys)
    kept = f"those of {two[0]}/1 are kept, not of {two[1]}/1"
    assert told[0] == f"sin(x): 1 of 1 runs differ, by up to 0.02: {kept}"
    assert told[2].startswith(
        f"{tmp_path}/ab: 2 studies, 3 functions in several of them; 11 trials"
    )
    trials = read_trials(tmp_path / "ab")
    assert Counter(t.origin for t in trials) == {"baseline": 2, "search": 3}
    found = {t.expression: t for t in trials}
    sine = found["sin(x)"]
    assert [(r.learning_rate, r.score) for r in sine.runs] == [(0.1, 0.7), (1.0, 0.8)]
    assert (sine.best_rate, sine.score) == (1.0, 0.8), "the best rate is chosen anew"
    assert sine.sources == (f"{two[0]}/1", f"{two[1]}/1")
    assert found["x * gompertz(x)"].sources == (f"{two[0]}/2",)
    alone = next(t for t in read_trials(two[1]) if t.score == 0.6)
    same = found[alone.expression]
    assert (same.runs, same.score, same.choices) == (alone.runs, alone.score, alone.choices)
    relu = next(t for t in trials if t.name == "relu")
    assert len(relu.sources) == 2 and len(relu.runs) == 1
    (line,) = (each for each in read_log(tmp_path / "ab") if each["what"] == "merged")
    assert [each["folder"] for each in line["of"]] == [str(folder) for folder in two]


def test_finalists_are_joined_by_seed_and_only_of_the_rate_that_is_the_best(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    told = merged(two, tmp_path / "ab", capsys)
    now = "frozen at its best rate 0.1, and it is 1.0 now: left out"
    assert told[1].endswith(f": a finalist of sin(x) was {now}")
    trials = {t.name or t.expression: t for t in read_trials(tmp_path / "ab")}
    seeds = {
        name: sorted(run.seed for final in trial.finals for run in final.runs)
        for name, trial in trials.items()
    }
    assert seeds == {
        "relu": [1, 2, 3],
        "silu": [1, 2, 3],
        "sin(x)": [1, 2, 3],
        "x * gompertz(x)": [1, 2],
        next(name for name in seeds if name.endswith("0.1 * x")): [],
    }
    for name, trial in trials.items():
        assert {final.best_rate for final in trial.finals} <= {trial.best_rate}, name
        assert all(final.sources and final.score == 0.5 for final in trial.finals), name
    study = open_study(tmp_path / "ab", load_space(tmp_path / "ab" / "space.yaml"), maximize=True)
    study.enter_finalists()
    assert study.next_waiting() is None, "none of k = 2 with two seeds is missing"
    study.close()


def test_a_run_that_left_at_a_rung_gives_way_to_one_that_went_to_its_end(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    left = {"state": "pruned", "score": None, "reason": "halving: rank 2 of 2"}
    found = {"a": replace(run(1.0), **left), "b": run(1.0, score=0.95)}
    for name, other in found.items():
        halved = ["seeds=[0]", "learning_rate.halving={rungs: 1}", f"name={name}"]
        study = begun(load_space(built / "space.yaml", halved), tmp_path / name)
        baselines_trained(study)
        best = 0.1 if name == "a" else 1.0
        with_runs(
            study, "sin(x)", run(0.1), other, score=0.9 if name == "a" else 0.95, best_rate=best
        )
        study.close()
    told = merged([tmp_path / "a", tmp_path / "b"], tmp_path / "ab", capsys)
    assert not any("differ" in line for line in told), told
    (sine,) = (t for t in read_trials(tmp_path / "ab") if t.expression == "sin(x)")
    assert [(r.learning_rate, r.state) for r in sine.runs] == [(0.1, "complete"), (1.0, "complete")]
    assert (sine.best_rate, sine.score) == (1.0, 0.95)


def test_a_merged_study_goes_on(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    told = merged(two, tmp_path / "ab", capsys)
    file = tmp_path / "ab" / "space.yaml"
    assert told[-1] == (f"go on with: python -m search.run {file} --results {tmp_path}")
    space = load_space(file)
    assert (space.name, space.search.trials) == ("ab", 3 + 1 + 1), "what was left of both budgets"
    study = open_study(tmp_path / "ab", space, maximize=True)
    assert study.trained() == 3 and not study.is_complete()
    assert study.next_waiting() is None, "the baselines are there"
    trained(study, launched(study), 0.3)
    trained(study, launched(study), 0.4)
    assert study.is_complete()
    study.close()
    assert main(["--check", str(tmp_path / "ab")]) == 0


def test_status_and_report_of_a_merged_study(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from search.report import main as report
    from search.status import main as status

    merged(two, tmp_path / "ab", capsys)
    assert status([str(tmp_path / "ab")]) == 0
    out = capsys.readouterr().out
    assert "ab: 3/5 candidates, 2/2 baselines" in out
    assert f"search.run {tmp_path}/ab/space.yaml --results {tmp_path}" in out
    assert report([str(tmp_path / "ab")]) == 0
    assert (tmp_path / "ab" / "report" / "index.html").is_file()


def test_what_has_not_ended_goes_on_with_its_runs(
    two: list[Path], built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    study = opened_again(two[0], built)
    launch = launched(study, "x * sigmoid(x) + 0.1 * x")
    study.begin(launch.number)
    study.add_run(launch.number, run())
    study.close()  # a killed driver
    merged(two, tmp_path / "ab", capsys)
    study = open_study(tmp_path / "ab", load_space(tmp_path / "ab" / "space.yaml"), maximize=True)
    again = study.next_waiting()
    assert again is not None
    assert (again.expression, again.runs) == (launch.expression, (run(),))
    study.close()


def test_refusals_and_duplicates_are_kept_and_point_to_the_right_trial(
    two: list[Path], built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    study = opened_again(two[1], built, "search.seed=11")
    grammar = study.space.grammar
    assert grammar is not None
    choices = grammar.find(parse("sin(x)"))
    assert choices is not None
    study.refuse(study.propose_choices(choices, "test"), "duplicate", "the same", 1)
    other = grammar.find(parse("x * gompertz(x)"))
    assert other is not None
    study.refuse(study.propose_choices(other, "test"), "rejected", "bounded: too steep")
    study.close()
    merged(two, tmp_path / "ab", capsys)
    trials = read_trials(tmp_path / "ab")
    sine = next(t for t in trials if t.expression == "sin(x)" and t.state == "complete")
    (twin,) = (t for t in trials if t.state == "duplicate")
    assert (twin.duplicate_of, twin.reason) == (
        sine.number,
        f"the same function as trial {sine.number}",
    )
    gompertz = [t for t in trials if t.expression == "x * gompertz(x)"]
    assert [t.state for t in gompertz] == ["complete"], "it was trained in one of the studies"
    assert len(gompertz[0].sources) == 2


@pytest.mark.parametrize(
    "change, key",
    [
        ("seeds=[0, 1]", "seeds"),
        ("learning_rate.grid=[0.1, 1.0]", "learning_rate.grid"),
        ("recipe.epochs=3", "recipe.epochs"),
        ("baselines=[relu]", "baselines"),
        ("depth=4", "depth"),
        ("search.objectives=[loss]", "search.objectives"),
        ("activation.ARG=[x]", "activation.ARG"),
    ],
)
def test_another_space_is_refused_with_the_first_key_that_differs(
    change: str, key: str, two: list[Path], built: Path, tmp_path: Path
):
    begun(load_space(built / "space.yaml", ["seeds=[0]", change]), tmp_path / "c").close()
    with pytest.raises(StudyError) as caught:
        main(["--merge", str(two[0]), str(tmp_path / "c"), "-o", str(tmp_path / "ac")])
    (line,) = caught.value.problems
    assert line.startswith(f"{tmp_path}/c: another space than that of {two[0]}: {key} is ")
    assert not (tmp_path / "ac").exists() and not list(tmp_path.glob(".ac*"))


def test_what_cannot_be_merged_is_told_in_one_line(two: list[Path], tmp_path: Path):
    a, b = map(str, two)

    def refused(*words: str) -> str:
        with pytest.raises(StudyError) as caught:
            main(["--merge", *words])
        (line,) = caught.value.problems
        return line

    output = ("-o", str(tmp_path / "ab"))
    assert "two folders or more" in refused(a, *output)
    assert "two folders or more" in refused(a, b, f"{a}/.", *output)
    assert "no such file; expected the results of a study" in refused(a, f"{a}x", *output)
    assert "is there already; expected a new folder" in refused(a, b, "-o", a)
    assert "expected a folder whose name can be a study's" in refused(a, b, "-o", "a b")
    with claimed(two[1]):
        assert "a search is writing here" in refused(a, b, *output)
    shutil.copytree(two[1], damaged := tmp_path / "d")
    content = (damaged / "study.db").read_bytes()
    (damaged / "study.db").write_bytes(content.replace(b'"steps": 8', b'"steps": 9'))
    line = refused(a, str(damaged), *output)
    assert line.startswith(f"{damaged}: trial") and "its hash differs" in line
    assert f"search.run --check {damaged}" in line
    (damaged / "study.db").write_bytes(b"nothing" * 1000)
    assert str(damaged) in (line := refused(a, str(damaged), *output)) and "merge-" not in line
    assert not (tmp_path / "ab").exists()


def test_three_studies_and_a_merged_one(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    merged(two, tmp_path / "ab", capsys)
    shutil.copytree(two[0], tmp_path / "c")
    told = merged([tmp_path / "ab", tmp_path / "c", two[1]], tmp_path / "abc", capsys)
    again, before = read_trials(tmp_path / "abc"), read_trials(tmp_path / "ab")
    assert [(t.expression, t.score, t.runs) for t in again] == [
        (t.expression, t.score, t.runs) for t in before
    ]
    assert any("3 studies, 5 functions in several of them; 11 trials" in line for line in told)
