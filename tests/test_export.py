"""The exported file: the same module, alone, with a self-test that fails when a number is wrong."""

from __future__ import annotations

import ast
import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from search import Activation, export
from search.errors import ExpressionError, KernelError, SearchError, StudyError
from search.exporting.module_text import class_name, module_text
from search.exporting.onnx_model import check_onnx, write_onnx
from search.exporting.programs import triton_text
from search.exporting.source import read_source
from search.exporting.writing import check_path, export_file, load_file
from search.kernels.triton_build import compile_ahead, warp_size
from search.kernels.triton_machine import read_machines
from search.language.catalog import read_activation
from search.space.space import load_space
from search.study import open_study
from tests.cases import CASES, expression
from tests.records_cases import run

FLAT = "(alpha - beta) * mish(x) + beta * x where alpha = 1 per layer, beta = 0.1 per layer"
PAIR = "u * (sigmoid(x) * (1 + 2 * a) - a) where a = 0.1 per layer"
CHANNEL = "(a + b * tanh(2 * x)) * x where a = 1/3 per layer, b = 0.5 per channel"
STATISTIC = "x * (1 + g * tanh(0.9 * std(x))) + mean(x, over=sample) where g = 0.1 per channel"
PENALTY = (
    "lam * x where lam = 1 per layer, c = 1 per layer penalty (std(c * x, over=tensor) - 1)**2"
)
FORMULAS = [FLAT, PAIR, CHANNEL, STATISTIC, PENALTY, "golu", "swiglu", "velu"]
_ALONE = """
import runpy, sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Wall())
runpy.run_path({path!r}, run_name="__main__")
"""


def rendered(formula: str, folder: Path, name: str = "my_activation") -> tuple[Path, ModuleType]:
    path = folder / f"{name}.py"
    path.write_text(module_text(read_activation(formula), path, "A test."), encoding="utf-8")
    return path, load_file(path)


def both(formula: str, folder: Path, channels: int) -> tuple[Any, Any]:
    """The file's module and the project's, with the same parameters off their initial values."""
    _, module = rendered(formula, folder)
    given = (
        {"channels": channels}
        if "channels: int" in (folder / "my_activation.py").read_text()
        else {}
    )
    mine = module.MyActivation(**given)
    theirs = Activation(formula, channels=channels, kernel="torch")
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.rand(p.shape, generator=draw))
    mine.load_state_dict(theirs.state_dict())
    return mine, theirs


def alone(path: Path, blocked: set[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """The file's self-test, isolated, in an empty folder, where some packages are not there."""
    code = _ALONE.format(blocked=blocked, path=str(path))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=path.parent,
        env=kept | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
    )


# --- the module ----------------------------------------------------------------------------------


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (0, 5)])
@pytest.mark.filterwarnings("ignore:std")  # torch's, of the spread of nothing
def test_it_is_the_projects_activation(formula: str, dtype, shape, tmp_path: Path):
    mine, theirs = both(formula, tmp_path, channels=5)
    pairs = zip(mine.state_dict().items(), theirs.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(p, q) for (a, p), (b, q) in pairs)
    draw = torch.Generator().manual_seed(0)
    count = len(read_activation(formula).inputs)
    inputs = [1.5 * torch.randn(shape, generator=draw).to(dtype) for _ in range(count)]
    for t in inputs:
        t.requires_grad_()
    found = []
    for module in (mine, theirs):
        y = module(*inputs)
        found.append([y, *torch.autograd.grad(y.sum(), [*inputs, *module.parameters()])])
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def test_the_penalty_is_the_projects_and_is_taken_once(tmp_path: Path):
    mine, theirs = both(PENALTY, tmp_path, channels=5)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    slopes = []
    for module in (mine, theirs):
        module(x)
        assert copy.deepcopy(module).penalty() == 0  # its graph cannot be copied
        value = module.penalty()
        slopes.append(
            [value, *torch.autograd.grad(value, list(module.parameters()), allow_unused=True)]
        )
        assert module.penalty() == 0
        module.eval()(x)
        assert module.penalty() == 0
    assert slopes[0][0] > 0
    assert all(torch.equal(a, b) for a, b in zip(*slopes, strict=True))


@pytest.mark.parametrize("formula", [FLAT, PAIR, CHANNEL, "x / rms(x)"])
def test_double_backward_and_torch_func(formula: str, tmp_path: Path):
    mine, _ = both(formula, tmp_path, channels=5)
    mine = mine.double()
    draw = torch.Generator().manual_seed(2)
    count = len(read_activation(formula).inputs)
    inputs = [torch.randn(3, 5, generator=draw, dtype=torch.float64) for _ in range(count)]
    assert torch.autograd.gradgradcheck(mine, [t.requires_grad_() for t in inputs])
    one, *others = inputs
    mapped = torch.func.vmap(
        torch.func.grad(lambda x, *u: mine(x[None], *(t[None] for t in u)).sum())
    )
    (wanted,) = torch.autograd.grad(mine(*inputs).sum(), one)
    torch.testing.assert_close(mapped(one, *others), wanted)


def test_mistakes_of_a_call_are_named(tmp_path: Path):
    mine, _ = both(CHANNEL, tmp_path, channels=5)
    with pytest.raises(
        TypeError, match=r"MyActivation: expected a floating-point tensor, got torch\.int64"
    ):
        mine(torch.arange(5))
    mine.channel_dim = 3
    with pytest.raises(IndexError, match="channel_dim 3 of a 2-d input"):
        mine(torch.ones(2, 5))


def test_the_class_is_named_after_the_file():
    names = {"my_activation": "MyActivation", "golu": "Golu", "2nd-best": "Activation2ndBest"}
    names |= {
        "tensor": "ActivationTensor",
        "none": "ActivationNone",
        "f": "ActivationF",
        "_": "Activation",
    }
    assert {stem: class_name(Path(f"{stem}.py")) for stem in names} == names


# --- the text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_every_name_is_defined_once_and_used(name: str, tmp_path: Path):
    """Of every case: the kernels' names, which become globals, meet none of the file's."""
    formula = expression(name)
    tree = ast.parse(module_text(formula, tmp_path / "my_activation.py", "A test."))
    defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            defined += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign):
            defined += [target.id for target in node.targets if isinstance(target, ast.Name)]
    kernels = triton_text(formula)
    defined += kernels.names if kernels else ()
    assert len(defined) == len(set(defined))
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    assert not set(defined) - used - {"MyActivation"}


def test_what_no_flat_kernel_serves_is_said():
    assert triton_text(read_activation(FLAT)) and triton_text(read_activation(PAIR))
    assert triton_text(read_activation(CHANNEL)) is None
    assert triton_text(read_activation("x / rms(x)")) is None


# --- alone ---------------------------------------------------------------------------------------


def test_the_self_test_holds_where_there_is_torch_alone(tmp_path: Path):
    """TRITON_INTERPRET asks for the kernels, as a GPU would: without Triton, torch serves."""
    path, _ = rendered(FLAT, tmp_path)
    blocked = {"search", "triton", "numpy", "scipy", "yaml", "jinja2"}
    done = alone(path, blocked, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "checks hold" in done.stdout and "torch's operations on cpu" in done.stdout


def test_the_kernels_run_interpreted(tmp_path: Path):
    pytest.importorskip("triton")
    path, _ = rendered(PAIR, tmp_path)
    done = alone(path, {"search"}, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "checks hold" in done.stdout and "Triton on cpu" in done.stdout


@pytest.mark.parametrize("formula", [CHANNEL, STATISTIC, PENALTY, "velu", "swiglu"])
def test_the_self_test_holds(formula: str, tmp_path: Path):
    _, module = rendered(formula, tmp_path)
    assert not [str(check) for check in module.measure("cpu") if not check.share <= 1]


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("t1 = x * t0", "t1 = x * t0 * 1.0000001", "float64 f at the points"),
        ("t4 = dy * t3", "t4 = dy * t0", "float64 gradients: x"),
        ("else torch.float32)", "else dtype)", "f at 65,536 bfloat16"),
        ("t1 = x * t0", "t1 = torch.nan_to_num(x * t0)", "float64 f at the points"),
        ("t4 = dy * t3", "t4 = torch.nan_to_num(dy) * t3", "NaN in x and in dy"),
    ],
)
def test_the_self_test_sees_a_wrong_number(right: str, wrong: str, told: str, tmp_path: Path):
    path, _ = rendered("golu", tmp_path)
    text = path.read_text(encoding="utf-8")
    assert right in text
    path.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    failed = [check.what for check in load_file(path).measure("cpu") if not check.share <= 1]
    assert told in failed


def test_a_wrong_number_is_told_to_the_shell(tmp_path: Path):
    path, _ = rendered("golu", tmp_path)
    text = path.read_text(encoding="utf-8").replace("t4 = dy * t3", "t4 = dy * t0")
    path.write_text(text, encoding="utf-8")
    done = alone(path, {"search"})
    assert done.returncode == 1 and "FAILS float64 gradients: x" in done.stdout, done.stderr


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_the_kernels_compile_for_gpus(target: str, tmp_path: Path, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    _, module = rendered(FLAT, tmp_path)
    assert module.define_kernels()
    block = 4 * warp_size(target) * module.ELEMENTS
    for name in ("forward", "input_gradients", "gradients", "finish"):
        kernel = getattr(module, name)
        constants = {"BLOCK": 1024} if name == "finish" else {"BLOCK": block, "TAIL": block // 8}
        types = {a: _type(a) for a in kernel.arg_names}
        (machine,) = read_machines([compile_ahead(kernel, types, constants, target)])
        assert machine.doubles == 0 and machine.spills == 0
        wanted = {"forward": 2, "input_gradients": 3, "gradients": 3, "finish": 0}[name]
        assert machine.widths.count(128) >= wanted  # x and y; dy, x and dx


def _type(argument: str) -> str:
    if not argument.endswith("_ptr"):
        return "i32"
    return "*fp32" if argument.startswith(("p_", "g_", "partials")) else "*bf16"


# --- the certificate -----------------------------------------------------------------------------


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


# --- mistakes ------------------------------------------------------------------------------------


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


# --- ONNX ----------------------------------------------------------------------------------------


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
    y = ReferenceEvaluator(onnx.load(path)).run(None, given)[0]
    torch.testing.assert_close(torch.from_numpy(y), Activation(formula, 9)(*inputs).detach())
