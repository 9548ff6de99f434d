"""The report's files: tables that read back, a page that stands alone, and the command."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from search.errors import StudyError
from search.figures.leaderboard import leaderboard_info
from search.figures.page import MOST_LISTED_BYTES, everything, index_page
from search.figures.report import FIGURES, write_report
from search.figures.settings import ReportSettings, settings_from_folder
from search.figures.tables import discovered_csv, leaderboard_csv, leaderboard_markdown
from search.records import Trial
from search.space.space import load_space
from search.study import open_study
from tests.records_cases import baseline_trials, run, settings, study_trials

ROOT = Path(__file__).resolve().parent.parent
STUDY = study_trials(40)
SETTINGS = settings()
HOSTILE = '<script>alert("1")</script> & <img src=x onerror=y> {{ 7 * 7 }} \'"'


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def page_of(trials: Sequence[Trial], report_settings: ReportSettings = SETTINGS) -> str:
    return index_page(trials, leaderboard_info(trials, report_settings), report_settings, ())


class Reader(HTMLParser):
    """Every tag with its attributes, every address, and the visible text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "path", "use"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "srcset", "data", "xlink:href"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


# --- tables --------------------------------------------------------------------------------------


def test_the_csv_has_full_precision_and_every_trained_trial():
    board = leaderboard_info(STUDY, SETTINGS)
    rows = rows_of(leaderboard_csv(board))
    assert [r["rank"] for r in rows[:3]] == ["1", "2", "3"]
    assert len(rows) == len(board.ranked) + len(board.unranked)
    for row, known in zip(rows, board.ranked, strict=False):
        assert float(row["score"]) == known.score
        assert float(row["best_rate"]) == known.trial.best_rate
        assert row["formula"] == known.trial.expression
        assert row["edge"] == known.edge
    unranked = rows[len(board.ranked) :]
    assert all(row["rank"] == row["score"] == "" and row["reason"] for row in unranked)


def test_everything_proposed_is_in_discovered_csv():
    rows = rows_of(discovered_csv(STUDY))
    assert [int(row["number"]) for row in rows] == [trial.number for trial in STUDY]
    assert [json.loads(row["choices"]) for row in rows] == [trial.choices for trial in STUDY]
    assert {row["duplicate_of"] for row in rows if row["state"] == "duplicate"} == {"4"}


def test_the_markdown_table_is_rectangular_whatever_a_formula_or_a_reason_holds():
    odd = replace(
        STUDY[0], expression="abs(x) * sigmoid(x)", reason="broke | here\nand there", name="a|b"
    )
    text = leaderboard_markdown(leaderboard_info([odd, *STUDY[1:]], SETTINGS), SETTINGS)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert len(widths) == 1
    assert "`abs(x) * sigmoid(x)`" in text and "\\vert" in text
    assert "Not trained: 4 rejected." in text and "Not trained: 4 duplicate." in text


def test_the_markdown_flags_a_rate_at_the_edge():
    text = leaderboard_markdown(leaderboard_info(STUDY, SETTINGS), SETTINGS)
    elu = next(line for line in text.splitlines() if "| ELU |" in line)
    assert "0.3 (highest tried)" in elu


# --- the page ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gated")
    assert write_report(folder, STUDY, SETTINGS) == folder / "report" / "index.html"
    return folder


def test_every_file_is_written_and_no_draft_is_left(written: Path):
    names = {str(p.relative_to(written)) for p in written.rglob("*") if p.is_file()}
    expected = {"leaderboard.csv", "leaderboard.md", "report/index.html", "report/discovered.csv"}
    undrawn = {key for key, chart in FIGURES.items() if chart.info(STUDY, SETTINGS) is None}
    assert undrawn == {
        "effects",
        "critical_difference",
        "fresh_heatmap",
    }  # of finalists, which it has none of
    for key in FIGURES.keys() - undrawn:
        chart = FIGURES[key]
        expected |= {str(Path(chart.folder) / f"{key}{ending}") for ending in (".png", ".pdf")}
    assert names == expected
    assert {"lr_heatmap.png", "lr_heatmap.pdf"} <= names
    assert all((written / name).stat().st_size > 500 for name in names)


def test_the_page_stands_alone(written: Path):
    page = (written / "report" / "index.html").read_text(encoding="utf-8")
    reader = Reader(page)
    assert not reader.open, "every tag is closed"
    assert reader.addresses
    for address in reader.addresses:
        assert address.startswith(("#", "data:image/png;base64,")), address[:80]
    inside = {a[1:] for a in reader.addresses if a.startswith("#")}
    assert all(f'id="{name}"' in page for name in inside)
    assert not {"link", "iframe", "object", "embed", "base"} & set(reader.tags)
    assert "url(" not in page and "@import" not in page and "http" not in page
    assert not reader.handlers
    assert len(page) < 5_000_000


def test_the_page_says_what_was_found_and_how(written: Path):
    text = " ".join(Reader((written / "report" / "index.html").read_text("utf-8")).text)
    for said in (
        "No candidate scored above the best baseline",
        "not re-tested on fresh seeds",
        "Expect the winner to shrink",
        "optimizer sgd",
        "torch 2.11.0",
        "5 min 12 s",
        "highest tried",
        "bounded: f(1e4) is inf in float16",
        "equals baseline golu",
        "name: gated",
        "from search import Activation",
    ):
        assert said in text, said


def test_every_trial_is_on_the_page(written: Path):
    page = (written / "report" / "index.html").read_text(encoding="utf-8")
    text = " ".join(Reader(page[page.index('<h2 id="everything"') :].split("<footer")[0]).text)
    for trial in STUDY:
        assert trial.expression in text


def test_everything_is_escaped():
    base = replace(baseline_trials()[4], name=HOSTILE, reason=HOSTILE)
    hostile = [
        base,
        replace(STUDY[9], expression=HOSTILE, reason=HOSTILE, choices={HOSTILE: HOSTILE}),
        replace(STUDY[10], expression=HOSTILE, state="rejected", reason=HOSTILE),
    ]
    page = page_of(
        hostile,
        settings(
            name=HOSTILE,
            task=HOSTILE,
            metric=HOSTILE,
            options={HOSTILE: HOSTILE},
            environment={HOSTILE: HOSTILE},
            space_text=HOSTILE,
        ),
    )
    reader = Reader(page)
    assert reader.tags.count("script") == 1
    assert "img" not in reader.tags and not reader.handlers
    assert "{{ 7 * 7 }}" in "".join(reader.text)


def test_the_page_with_no_trial_says_so():
    text = " ".join(Reader(page_of([])).text)
    assert "No trial has a score yet" in text and "No trial has been trained yet" in text


def test_a_report_without_trials_is_written(tmp_path: Path):
    page = write_report(tmp_path, [], settings(environment={}, space_text=""))
    text = " ".join(Reader(page.read_text(encoding="utf-8")).text)
    assert "Not drawn" in text
    assert all(chart.empty in text for chart in FIGURES.values())
    assert not list(tmp_path.rglob("*.png"))


def test_a_report_of_baselines_alone_is_written(tmp_path: Path):
    page = write_report(tmp_path, baseline_trials(), settings(sampler="", budget=None))
    text = " ".join(Reader(page.read_text(encoding="utf-8")).text)
    assert "of 7 published activations" in text and "no search: baselines alone" in text
    assert "luck" not in text
    assert (tmp_path / "lr_heatmap.png").is_file()
    assert not (tmp_path / "report" / "importance.png").exists()


def test_a_running_study_has_a_report():
    trials = [*STUDY[:9], replace(STUDY[10], state="running", score=None, best_rate=None)]
    text = " ".join(Reader(page_of(trials)).text)
    assert "1 trial is running" in text


def test_a_large_study_keeps_the_page_small_and_says_what_is_left_out():
    trials = [replace(t, number=n) for n, t in enumerate(STUDY * 250)]
    listed = everything(trials, SETTINGS.scale)
    assert 1000 < len(listed) < len(trials) == 11750
    page = page_of(trials)
    assert len(page) < 1.5 * MOST_LISTED_BYTES + 1_000_000
    assert f"{len(trials) - len(listed)} more in report/discovered.csv" in page
    assert "more in leaderboard.csv" in page


def test_a_second_report_replaces_the_first(tmp_path: Path):
    write_report(tmp_path, [], SETTINGS)
    write_report(tmp_path, baseline_trials()[:2], SETTINGS)
    assert len(rows_of((tmp_path / "leaderboard.csv").read_text(encoding="utf-8"))) == 2


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        write_report(tmp_path / "file", [], SETTINGS)
    assert "cannot write the report" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# --- settings ------------------------------------------------------------------------------------

SPACE = {
    "name": "mine",
    "task": {"name": "digits", "model": "cnn"},
    "recipe": {"epochs": 3},
    "activation": {"F": ["x * G"], "G": ["sigmoid(x)", "gompertz(x)"]},
    "depth": 4,
    "baselines": ["relu", "gelu"],
    "learning_rate": {"grid": [0.001, 0.01], "default": 0.01, "extend": True},
    "seeds": [0, 1],
    "search": {"sampler": "tpe", "trials": 7, "objectives": ["score", "cost"], "stopping": None},
}
ENVIRONMENT = {"metric": "loss", "maximize": False, "recipe": {"epochs": 3, "batch_size": 8}}


def study_folder(folder: Path, space: object = SPACE, environment: object = ENVIRONMENT) -> Path:
    (folder / "space.yaml").write_text(yaml.safe_dump(space), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    return folder


def test_settings_are_read_from_the_studys_files(tmp_path: Path):
    found = settings_from_folder(study_folder(tmp_path))
    assert (found.name, found.task, found.metric) == ("mine", "digits", "loss")
    assert (found.maximize, found.percent) == (False, False)
    assert (found.grid, found.default_rate, found.seeds) == ((0.001, 0.01), 0.01, (0, 1))
    assert (found.sampler, found.budget, found.objectives) == ("tpe", 7, ("score", "cost"))
    assert found.options == {"model": "cnn"}
    assert found.recipe == {"epochs": 3, "batch_size": 8}
    assert "name: mine" in found.space_text


def test_an_ablation_has_neither_sampler_nor_budget(tmp_path: Path):
    space = {key: value for key, value in SPACE.items() if key not in ("activation", "depth")}
    found = settings_from_folder(study_folder(tmp_path, space, {"metric": "accuracy"}))
    assert (found.sampler, found.budget, found.percent) == ("", None, True)


def test_the_shortest_files_are_enough(tmp_path: Path):
    found = settings_from_folder(study_folder(tmp_path, {"task": "digits"}, {}))
    assert (found.name, found.task, found.maximize) == (tmp_path.name, "digits", True)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("space.yaml", "a: [1", "cannot be read"),
        ("space.yaml", "- 1\n- 2", "expected keys and values"),
        ("space.yaml", "learning_rate: {grid: [a]}", "not a resolved space"),
        ("space.yaml", "seeds: x", "not a resolved space"),
        ("space.yaml", "search: {trials: many}\nactivation: {F: [x]}", "not a resolved space"),
        ("environment.json", "{", "cannot be read"),
        ("environment.json", "\ufeffno", "cannot be read"),
    ],
)
def test_files_that_are_not_a_studys_are_one_line(
    name: str, content: str, said: str, tmp_path: Path
):
    (study_folder(tmp_path) / name).write_text(content, encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        settings_from_folder(tmp_path)
    assert said in str(caught.value) and name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# --- the command ---------------------------------------------------------------------------------


def command(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "search.report", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda folder: folder / "nothing", "no such folder"),
        (lambda folder: folder, "space.yaml: no such file"),
        (study_folder, "no such file"),
    ],
)
def test_the_command_refuses_what_is_no_study_in_one_line(prepare, said: str, tmp_path: Path):
    done = command(str(prepare(tmp_path)))
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "report").exists()


ABLATION = """
name: mine
task: digits
baselines: [relu, golu]
learning_rate: {grid: [0.01, 0.1], default: 0.01, extend: false}
seeds: [0, 1]
"""


def test_the_command_reports_a_study_that_is_still_running(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(ABLATION, encoding="utf-8")
    space = load_space(tmp_path / "mine.yaml")
    study_folder(tmp_path, space.resolved(), {"metric": "accuracy", "maximize": True})
    study = open_study(tmp_path, space, maximize=True)
    first, second = study.next_waiting(), study.next_waiting()
    assert first is not None and second is not None
    for rate, seed, score in ((0.01, 0, 0.9), (0.01, 1, 0.92), (0.1, 0, 0.5), (0.1, 1, None)):
        study.add_run(first.number, run(rate, seed, score))
    study.finish(first.number, state="complete", score=0.91, best_rate=0.01)
    done = command(str(tmp_path))
    study.close()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "ReLU is the only activation with a score on digits." in done.stdout
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "91.00 ± 1.00" in page and "1 trial is running" in page
    board = rows_of((tmp_path / "leaderboard.csv").read_text(encoding="utf-8"))
    assert [(row["name"], row["state"]) for row in board] == [
        ("relu", "complete"),
        ("golu", "running"),
    ]
    assert float(board[0]["default_score"]) == pytest.approx(0.91)
    assert board[0]["diverged_runs"] == "1"
