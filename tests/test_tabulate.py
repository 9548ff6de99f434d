"""`python -m search.bench samplers tabulate`: a whole space in one file, however often killed."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search.benchmarks.ranking import describe
from search.benchmarks.table import (
    Table,
    header_line,
    part_of,
    read_header,
    read_row,
    read_table,
    row_line,
)
from search.benchmarks.tabulate import (
    Work,
    candidates,
    check_finite,
    evaluate,
    header_of,
    in_one_program,
    tabulate,
)
from search.errors import SpaceError, StudyError
from search.space.space import load_space
from search.training.candidate import train_candidate
from search.training.from_space import task_of, training_of
from search.training.job import Job
from tests.table_cases import known_table

ROOT = Path(__file__).resolve().parent.parent
SPACE = """
name: six
task: ./toy_task.py
activation:
  F: [x * G, 1 * x * G, x + 0 * G, x * exp(G * x * x)]
  G: [sigmoid(x), gompertz(x), "normal_cdf(s * x) where s in {1, 2}"]
depth: 2
learning_rate: {grid: [0.1, 0.3], default: 0.1, extend: false}
seeds: [0, 1, 2]
"""
"""16 derivations, 9 functions: 4 that stand there twice, a straight line, 4 that grow too fast."""
FUNCTIONS = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the space and its task."""
    path = tmp_path_factory.mktemp("tables")
    (path / "six.yaml").write_text(SPACE, encoding="utf-8")
    shutil.copy(ROOT / "tests" / "toy_task.py", path)
    return path


@pytest.fixture(scope="module")
def killed(folder: Path) -> list[str]:
    """The lines that a process left that was killed on its way to `six.jsonl.gz`."""
    command = [sys.executable, "-m", "search.bench", "samplers", "tabulate", "six.yaml"]
    process = subprocess.Popen(
        [*command, "-o", "six.jsonl.gz", "--workers", "1", "--seeds", "3"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    part = part_of(folder / "six.jsonl.gz")
    until = time.monotonic() + 120
    while time.monotonic() < until and (not part.exists() or part.read_bytes().count(b"\n") < 3):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.kill()
    process.wait()
    _wait_for_the_end_of_group(process.pid)
    return part.read_text(encoding="utf-8").split("\n")[:-1]


def _wait_for_the_end_of_group(group: int) -> None:
    """A worker must not outlive the driver."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError("a worker outlived its driver")


@pytest.fixture(scope="module")
def table(folder: Path, killed: list[str]) -> Table:
    """The table, gone on with."""
    path = folder / "six.jsonl.gz"
    part = part_of(path)
    part.write_text(part.read_text(encoding="utf-8") + killed[1][:40], encoding="utf-8")
    return tabulate(load_space(folder / "six.yaml"), path, workers=1)


def test_what_a_killed_process_had_finished_is_kept_and_not_trained_again(
    folder: Path, killed: list[str], table: Table
):
    with gzip.open(folder / "six.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    assert 2 <= len(killed) - 1 < FUNCTIONS
    assert set(killed) <= set(lines), "seconds and costs among them are measured anew otherwise"
    assert not part_of(folder / "six.jsonl.gz").exists()


def test_every_function_stands_there_once_with_what_became_of_it(table: Table):
    assert (table.header.derivations, table.header.distinct, len(table.rows)) == (16, 9, 9)
    assert len({row.fingerprint for row in table.rows}) == 9
    states = {row.expression: (row.state, row.reason.partition(":")[0]) for row in table.rows}
    assert states["x * gompertz(x)"] == ("complete", "")
    assert states["x + 0 * sigmoid(x)"] == ("rejected", "shape")
    assert states["x * exp(sigmoid(x) * x * x)"] == ("rejected", "finite")
    assert "9 distinct, from 16 derivations: 5 rejected, 4 complete" in describe(table)
    assert "rejected by  finite 4, shape 1" in describe(table)


def test_a_row_is_what_a_search_would_have_trained(folder: Path, table: Table):
    space = load_space(folder / "six.yaml")
    runs = []
    row = next(row for row in table.rows if row.expression == "x * gompertz(x)")
    train_candidate(training_of(space, task_of(space)), Job(row.expression, True), runs.append)
    assert row.scores.shape == row.losses.shape == (2, 3, 3)
    assert table.header.checkpoints == (8, 16, 24)
    assert len(runs) == 6
    for run in runs:
        place = table.header.rates.index(run.learning_rate), run.seed
        # Trained together and one by one: the same up to round-off, and five digits are kept.
        losses = [point.loss for point in run.curve]
        np.testing.assert_allclose(row.losses[place], losses, rtol=2e-4)
        assert row.scores[place][-1] == pytest.approx(run.score, abs=1 / 128 + 1e-5)


def test_functions_of_one_program_train_together_to_the_rows_that_each_has_alone(folder: Path):
    space = load_space(
        folder / "six.yaml", ["activation={F: ['x * sigmoid(s * x) where s in {0.7, 1.1, 1.3}']}"]
    )
    training = replace(training_of(space, task_of(space)), at_once=6)
    work = Work(training, header_of(space, training), gates=True)
    found = candidates(space)
    (group,) = in_one_program(work, found)
    assert list(group) == list(found)
    plain = {key: (str(one.expression), one.choices) for key, one in group.items()}
    together = evaluate(work, plain)
    for row in together:
        (alone,) = evaluate(work, {row.fingerprint: plain[row.fingerprint]})
        assert (row.expression, row.state) == (alone.expression, alone.state)
        np.testing.assert_allclose(row.losses, alone.losses, rtol=2e-4)
        assert np.isfinite(row.scores).all()
        assert row.cost is not None
        assert row.parameters == alone.parameters
    assert len({row.scores.tobytes() for row in together}) > 1


def test_the_same_command_reads_a_whole_table_and_another_one_is_refused(
    folder: Path, table: Table
):
    path = folder / "six.jsonl.gz"
    before = path.read_bytes()
    assert tabulate(load_space(folder / "six.yaml"), path, workers=1).header == table.header
    assert path.read_bytes() == before
    other = load_space(folder / "six.yaml", ["seeds=[0, 1]", "depth=3", "search.trials=7"])
    with pytest.raises(StudyError) as caught:
        tabulate(other, path, workers=1)
    assert str(caught.value) == (
        f"{path}: a table of another space: depth, seeds differ; expected the space that it was"
        " begun with, or another file"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["activation={F: ['x * sigmoid(s * x) where s in [0.5, 2]']}"],
            "activation: has ranges of numbers, so its functions cannot be listed; expected sets"
            " such as `s in {0.5, 1, 2}`",
        ),
        (
            ["learning_rate.extend=true"],
            "learning_rate.extend is true; expected false: every row of a table has the same rates",
        ),
        (
            ["activation={F: [F + F, x * F, x, tanh(x)]}", "depth=5"],
            "activation: 30,830,258 derivations; expected at most 20,000",
        ),
    ],
)
def test_a_space_that_cannot_be_listed_is_refused_in_one_line(
    folder: Path, changes: list[str], said: str
):
    space = load_space(folder / "six.yaml", changes)
    with pytest.raises(SpaceError) as caught:
        check_finite(space)
    assert str(caught.value) == f"{space.source}: {said}"


def test_the_name_of_the_file_is_checked_before_anything_is_trained(folder: Path):
    with pytest.raises(StudyError, match=r"six\.csv: expected a name that ends in \.jsonl\.gz"):
        tabulate(load_space(folder / "six.yaml"), folder / "six.csv", workers=1)


def test_a_whole_table_gets_the_baselines_that_it_lacks(folder: Path, table: Table):
    """One is a function of the space; one is another's, and one a gate refused among them."""
    path = folder / "told.jsonl.gz"
    shutil.copy(folder / "six.jsonl.gz", path)
    listed = "baselines=[relu, silu, {line: x + 0 * sigmoid(x)}]"
    space = load_space(folder / "six.yaml", [listed])
    found = tabulate(space, path, workers=1)
    assert list(map(row_line, found.rows)) == list(map(row_line, table.rows))
    assert [row.baseline for row in found.others] == ["relu", "line"]
    assert {name: row.state for name, row in found.baselines.items()} == dict.fromkeys(
        ("relu", "silu", "line"), "complete"
    )
    assert found.baselines["silu"] in found.rows
    assert found.baselines["relu"].scores.shape == (2, 3, 3)
    # Cut off before its last row, it goes on there; a space that asks for fewer changes nothing.
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    shutil.copy(folder / "six.jsonl.gz", path)
    part_of(path).write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")
    assert list(tabulate(space, path, workers=1).baselines) == ["relu", "silu", "line"]
    again = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert again[:-1] == lines[:-1]
    assert tabulate(load_space(folder / "six.yaml"), path, workers=1).header.baselines
    assert gzip.decompress(path.read_bytes()).decode().splitlines() == again


# --- the file ------------------------------------------------------------------------------------


def test_lines_come_back_as_they_were(tmp_path: Path):
    table = known_table(np.linspace(0.1, 0.9, 60), 0.01, rejected={3: "finite: no"}, diverged=(5,))
    assert read_header(header_line(table.header), tmp_path) == table.header
    for row in table.rows:
        back = read_row(row_line(row))
        assert (back.expression, back.choices, back.state) == (
            row.expression,
            row.choices,
            row.state,
        )
        np.testing.assert_allclose(back.scores, row.scores, rtol=5e-5, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-40], "truncated; expected a whole table"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-200]), "damaged; expected a row"),
        (
            lambda data: gzip.compress(b"\n".join(gzip.decompress(data).split(b"\n")[:20])),
            "19 of 60",
        ),
        (lambda data: b"plain", "cannot be read: Not a gzipped file"),
        (lambda data: gzip.compress(b""), "not a table; expected a file of `bench samplers"),
        (lambda data: gzip.compress(b"[1]"), "not a table; expected a file of `bench samplers"),
        (lambda data: _edited(data, "depth", 7), "its space was changed by hand"),
    ],
)
def test_a_file_that_is_no_whole_table_is_refused_in_one_line(tmp_path: Path, change, said: str):
    table = known_table(np.linspace(0.1, 0.9, 60))
    lines = [header_line(table.header), *map(row_line, table.rows)]
    path = tmp_path / "known.jsonl.gz"
    path.write_bytes(change(gzip.compress("".join(f"{line}\n" for line in lines).encode())))
    with pytest.raises(StudyError) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: ") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def _shortened(data: bytes, lines: int) -> bytes:
    return gzip.compress(b"\n".join(gzip.decompress(data).split(b"\n")[:lines]))


def _edited(data: bytes, key: str, value: object) -> bytes:
    first, _, rest = gzip.decompress(data).partition(b"\n")
    header = json.loads(first)
    header["space"][key] = value
    return gzip.compress(json.dumps(header).encode() + b"\n" + rest)


def test_an_unfinished_table_is_told_as_such(tmp_path: Path):
    path = tmp_path / "known.jsonl.gz"
    part_of(path).write_text("", encoding="utf-8")
    with pytest.raises(StudyError, match=r"no such file; .*\.part is one that is not finished"):
        read_table(path)
