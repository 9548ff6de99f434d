"""The exported module and its text, alone in an empty folder."""

from __future__ import annotations

import ast
import copy
from pathlib import Path

import pytest
import torch

from search.exporting.module_text import class_name, module_text
from search.exporting.programs import triton_text
from search.exporting.writing import load_file
from search.kernels.triton_build import compile_ahead, warp_size
from search.kernels.triton_machine import read_machines
from search.language.catalog import read_activation
from tests.cases import CASES, expression
from tests.export_cases import (
    CHANNEL,
    FEATURES,
    FLAT,
    FORMULAS,
    PAIR,
    PENALTY,
    STATISTIC,
    alone,
    both,
    rendered,
)

# --- the module -----------------------------------------------------------------------------------


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


# --- the text -------------------------------------------------------------------------------------


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


def test_how_kernels_walk_memory():
    layouts = {FLAT: "flat", PAIR: "flat", CHANNEL: "tiled", "x / rms(x)": "tiled"}
    for formula, layout in layouts.items():
        found = triton_text(read_activation(formula))
        assert found and found.layout == layout
    assert triton_text(read_activation(STATISTIC)) is None
    assert triton_text(read_activation("x / rms(x, over=tensor)")) is None


# --- alone ----------------------------------------------------------------------------------------


def test_the_self_test_holds_where_there_is_torch_alone(tmp_path: Path):
    """TRITON_INTERPRET asks for the kernels, as a GPU would: without Triton, torch serves."""
    path, _ = rendered(FLAT, tmp_path)
    blocked = {"search", "triton", "numpy", "scipy", "yaml", "jinja2"}
    done = alone(path, blocked, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "checks hold" in done.stdout and "torch's operations on cpu" in done.stdout


@pytest.mark.parametrize("formula", [PAIR, CHANNEL, FEATURES, "x / rms(x)"])
def test_the_kernels_run_interpreted(formula: str, tmp_path: Path):
    pytest.importorskip("triton")
    path, _ = rendered(formula, tmp_path)
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
        ("t2 = t0 * t1", "t2 = t0 * t1 * 1.0000001", "float64 f at the points"),
        ("t5 = dy * t4", "t5 = dy * t1", "float64 gradients: x"),
        ("else torch.float32\n", "else torch.bfloat16\n", "f at 65,536 bfloat16"),
        ("t2 = t0 * t1", "t2 = torch.nan_to_num(t0 * t1)", "float64 f at the points"),
        ("t5 = dy * t4", "t5 = torch.nan_to_num(dy) * t4", "NaN in x and in dy"),
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
    text = path.read_text(encoding="utf-8").replace("t5 = dy * t4", "t5 = dy * t1")
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


@pytest.mark.parametrize("formula", [CHANNEL, FEATURES])
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_the_kernels_of_channels_compile_for_gpus(
    formula: str, target: str, tmp_path: Path, monkeypatch
):
    """Both kernels of each direction, with the tiles that the file itself chooses."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    _, module = rendered(formula, tmp_path)
    assert module.define_kernels()
    for x in (torch.zeros(64, 192), torch.zeros(4, 96, 14, 14)):
        tiles = module.tiles_of(x, 1)
        layout = "last" if tiles.last else "across" if formula == FEATURES else "first"
        for name in (f"forward_{layout}", f"gradients_{layout}"):
            kernel = getattr(module, name)
            types = {a: _type(a) for a in kernel.arg_names}
            constants = {"ROWS": tiles.rows, "COLS": tiles.columns}
            compiled = compile_ahead(
                kernel, types, constants, target, warps=tiles.options["num_warps"]
            )
            (machine,) = read_machines([compiled])
            assert machine.doubles == 0 and machine.spills == 0


def _type(argument: str) -> str:
    if not argument.endswith("_ptr"):
        return "i32"
    return "*fp32" if argument.startswith(("p_", "g_", "partials")) else "*bf16"
