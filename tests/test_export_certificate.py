"""What an exported file says of itself, mistakes, and ONNX."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from search import Activation, export
from search.errors import ExpressionError, KernelError, SearchError, StudyError
from search.exporting.onnx_model import check_onnx, write_onnx
from search.exporting.source import read_source
from search.exporting.writing import check_path, export_file
from search.language.catalog import read_activation
from search.space.space import load_space
from search.study import open_study
from tests.export_cases import (
    CHANNEL,
    PAIR,
    rendered,
)
from tests.records_cases import run

# --- the certificate ------------------------------------------------------------------------------


def told(path: Path) -> str:
    """The docstring on one line."""
    return " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())


def test_a_catalogue_row_is_certified_and_its_example_runs(tmp_path: Path, monkeypatch):
    path = tmp_path / "prelu.py"
    written = export_file(read_source("prelu", None, None), path)
    assert (written.name, written.failed) == ("Prelu", ()) and written.checks >= 12
    said = told(path)
    assert "formula select(x > 0, x, a * x) where a = 0.25 per channel" in said
    assert "parameters a per channel, shape (channels,), trained from 0.25 paper" not in said
    assert "a per channel, shape (channels,), trained from 0.25" in said
    assert "in all every check holds" in said and "bfloat16 f " in said
    assert "times ReLU's" in said and "Apache" in said and f"torch {torch.__version__[:4]}" in said
    text = path.read_text(encoding="utf-8")
    example = [
        line[4:]
        for line in text.split("Use it like any module:")[1].split("Check it")[0].splitlines()
    ]
    example = [line for line in example if line.strip()]
    assert len(example) == 5
    monkeypatch.syspath_prepend(tmp_path)
    names: dict = {}
    exec(
        compile("\n".join(example), "example", "exec"), names
    )  # our own text, as one would paste it
    assert names["y"].shape == (32, 128)


ABLATION = """
name: mine
task: digits
baselines: [relu, swish]
learning_rate: {grid: [0.01, 0.1], default: 0.01, extend: false}
seeds: [0, 1]
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Swish at 95 %, ReLU at 91 %, each with two seeds."""
    (tmp_path / "mine.yaml").write_text(ABLATION, encoding="utf-8")
    space = load_space(tmp_path / "mine.yaml")
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space.resolved()), encoding="utf-8")
    about = {
        "metric": "accuracy",
        "maximize": True,
        "versions": {"torch": "2.14.1"},
        "cpu": "a chip",
    }
    (tmp_path / "environment.json").write_text(json.dumps(about), encoding="utf-8")
    opened = open_study(tmp_path, space, maximize=True)
    for high, cost in ((0.90, 1.0), (0.94, 1.38)):
        launch = opened.next_waiting()
        assert launch is not None
        for rate, seed, score in (
            (0.01, 0, high),
            (0.01, 1, high + 0.02),
            (0.1, 0, 0.5),
            (0.1, 1, 0.5),
        ):
            opened.add_run(launch.number, run(rate, seed, score))
        opened.finish(launch.number, state="complete", score=high + 0.01, best_rate=0.01, cost=cost)
    opened.close()
    return tmp_path


def test_a_study_is_certified(study: Path):
    first, second = (read_source(str(study), None, rank) for rank in (None, 2))
    assert str(first.expression) == str(read_activation("swish"))
    export_file(first, study / "best.py")
    said = told(study / "best.py")
    for line in (
        "beta per layer, shape (), trained from 1, as in every run of the study",
        "study mine", "rank 1 of 2 (Swish, a baseline)", "95.00 ± 1.00 % accuracy",
        "over 2 seeds", "seeds 0, 1 ", "rate 0.01, the best of 0.01, 0.1, at the lowest tried",
        "none: this is the best baseline", "verdict Swish scored best of 2 published activations",
        "trained on a chip", "trained with torch 2.14.1",
        "takes 1.38 times what it takes with ReLU",
    ):  # fmt: skip
        assert line in said, line
    facts = dict(second.facts)
    assert (
        facts["difference"]
        == "−4.00 ± 0.00 points to the best baseline, Swish, paired over 2 seeds"
    )


# --- mistakes -------------------------------------------------------------------------------------


def refused(function, *arguments) -> SearchError:
    with pytest.raises(SearchError) as caught:
        function(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def test_mistakes_are_one_line(study: Path, tmp_path: Path):
    for rank in (0, 3):
        error = refused(read_source, str(study), None, rank)
        assert isinstance(error, StudyError) and f"no rank {rank}; expected 1 to 2" in str(error)
    (tmp_path / "empty").mkdir()
    assert "space.yaml: no such file" in str(
        refused(read_source, str(tmp_path / "empty"), None, None)
    )
    assert "no such folder" in str(refused(read_source, str(tmp_path / "nothing"), None, None))
    error = refused(read_source, "goul", None, None)
    assert isinstance(error, ExpressionError) and "did you mean 'golu'?" in str(error)
    assert "--rank 2: expected a study's folder" in str(refused(read_source, "golu", None, 2))
    assert "expected either" in str(refused(read_source, None, None, None))
    assert "expected either" in str(refused(read_source, "golu", "x", None))
    assert "--expression" in str(refused(read_source, None, "x * sigmiod(x)", None))


def test_files_are_replaced_only_when_asked(tmp_path: Path):
    (tmp_path / "there.py").write_text("mine", encoding="utf-8")
    error = refused(check_path, tmp_path / "there.py", False)
    assert isinstance(error, KernelError) and "--force" in str(error)
    check_path(tmp_path / "there.py", True)
    assert "no folder" in str(refused(check_path, tmp_path / "no" / "a.py", False))
    assert "ends in .py" in str(refused(check_path, tmp_path / "a.txt", False))
    (tmp_path / "folder.py").mkdir()
    assert "cannot be written" in str(refused(check_path, tmp_path / "folder.py", True))


def test_the_command(tmp_path: Path, monkeypatch, capsys):
    path = tmp_path / "mine.py"
    words = ["export", "--expression", "x * tanh(b * x) where b = 1 per layer", "-o", str(path)]
    monkeypatch.setattr(sys, "argv", words)
    assert export.main() == 0
    assert "from mine import Mine" in capsys.readouterr().out and path.is_file()
    done = subprocess.run(
        [sys.executable, "-m", "search.export", *words[1:]],
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "--force" in done.stderr


# --- ONNX -----------------------------------------------------------------------------------------


def test_onnx_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("search.exporting.onnx_model.PACKAGES", ("onnx_of_no_one",))
    error = refused(check_onnx, tmp_path / "a.onnx", False)
    assert str(error) == "--onnx: needs onnx_of_no_one; pip install 'activation-search[onnx]'"


@pytest.mark.parametrize("formula", ["golu", PAIR, CHANNEL, "x / rms(x)"])
@pytest.mark.filterwarnings("ignore")  # of the exporter, which we do not own
def test_an_onnx_model_gives_the_same_numbers(formula: str, tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    _, module = rendered(formula, tmp_path)
    path, e = tmp_path / "my_activation.onnx", read_activation(formula)
    assert "worst error" in write_onnx(module.MyActivation, e, path)
    draw = torch.Generator().manual_seed(4)
    inputs = [torch.randn(7, 9, generator=draw) for _ in e.inputs]
    given = {name: t.numpy() for name, t in zip(e.inputs, inputs, strict=True)}
    (y,) = ReferenceEvaluator(onnx.load(path)).run(None, given)
    torch.testing.assert_close(torch.as_tensor(y), Activation(formula, 9)(*inputs).detach())
