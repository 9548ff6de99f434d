"""Compiling C: what is found and kept, what happens when it fails or when many do it at once."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from search.activation import Activation
from search.errors import KernelError
from search.kernels import c_build
from search.kernels.c_build import build_batch, find_compiler, load_kernels
from search.kernels.c_code import definitions, read_source, render
from search.kernels.c_fusion import fuse
from search.kernels.c_rendering import CRendering
from search.kernels.formula import compile_batch, load_formula
from search.kernels.program import lower
from search.language.parser import parse
from tests.cases import CASES, expression

ROOT = Path(__file__).resolve().parent.parent
COMPILER = find_compiler()
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler on this machine")
GOLU = "x * gompertz(b * x) where b = 1 per layer"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACTIVATION_SEARCH_CACHE", str(tmp_path))
    return tmp_path / "c"


def text_of(formula: str) -> str:
    return render(lower(parse(formula), fuse), ())


def works(formula: str) -> bool:
    """Whether a C rendering of the formula gives what the torch rendering does."""
    found = load_formula.__wrapped__(parse(formula), "c")
    x = torch.randn(100)
    tensors = [x, *(torch.tensor(p.initial) for p in found.expression.trainable)]
    rendering = found.rendering(x)
    assert isinstance(rendering, CRendering)
    y = found.reference.forward(tensors, -1)
    return torch.allclose(rendering.forward(tensors, -1), y, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_every_loop_is_vector_code(tmp_path: Path):
    """gcc says of each loop where it could not; a loop that calls libm is one such."""
    assert COMPILER
    if "gcc" not in COMPILER.version or not COMPILER.libmvec:
        pytest.skip("reads the notes of gcc, and needs libmvec")
    texts = [render(lower(expression(name), fuse), _per_channel(name)) for name in CASES]
    source = tmp_path / "all.c"
    head = definitions("float32", libmvec=True) + read_source("c_math.h")
    source.write_text("\n".join((head, *dict.fromkeys(texts))))
    command = [COMPILER.path, *COMPILER.flags, "-fopt-info-vec-missed", "-S", str(source)]
    command = [word for word in command if word != "-shared"]
    notes = subprocess.run(
        [*command, "-o", str(tmp_path / "all.s")], capture_output=True, text=True
    )
    assert notes.returncode == 0
    assert "couldn't vectorize loop" not in notes.stderr
    assert "_ZGV" in (tmp_path / "all.s").read_text()


def _per_channel(name: str) -> list[str]:
    return [p.name for p in expression(name).trainable if p.scope == "channel"]


@needs_compiler
def test_a_batch_is_one_compilation_that_every_candidate_finds(cache: Path):
    assert COMPILER
    formulas = ["x * sigmoid(x)", GOLU, "u * tanh(x)"]
    assert compile_batch([parse(f) for f in formulas]) == 3
    entries = sorted(cache.glob("*.so"))
    assert len(entries) == 3 and len({path.stat().st_ino for path in entries}) == 1
    assert compile_batch([parse(f) for f in formulas]) == 0
    load_kernels(COMPILER, text_of(GOLU), "float32")
    assert sorted(cache.glob("*.so")) == entries and works(GOLU)


@needs_compiler
@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_a_damaged_entry_is_built_again(cache: Path, damage: str):
    formula = f"x * sigmoid({len(damage)} * x)"
    compile_batch([parse(formula)])
    (entry,) = cache.glob("*.so")
    content = entry.read_bytes()
    broken = {
        "truncated": content[: len(content) // 2],
        "changed": content[:5000] + b"\0" * 64 + content[5064:],
        "empty": b"",
    }[damage]
    entry.unlink()
    entry.write_bytes(broken)
    assert works(formula)
    assert entry.read_bytes()[:4] == b"\x7fELF" and entry.stat().st_size == len(content)


@needs_compiler
def test_what_was_built_elsewhere_is_not_loaded():
    assert COMPILER
    name = c_build.entry_name(COMPILER, text_of(GOLU), "float32")
    for changed in ({"version": "gcc 99"}, {"flags": ("-O0",)}, {"libmvec": False}):
        other = c_build.Compiler(**{**_fields(COMPILER), **changed})
        assert c_build.entry_name(other, text_of(GOLU), "float32") != name
    assert c_build.entry_name(COMPILER, text_of(GOLU), "float64") != name
    assert c_build.entry_name(COMPILER, text_of("x"), "float32") != name


def _fields(compiler: c_build.Compiler) -> dict:
    return {name: getattr(compiler, name) for name in ("path", "version", "flags", "libmvec")}


_WORKER = """
import sys, torch
from search.activation import Activation
torch.set_num_threads(1)
for text in ("x * gompertz(x)", "x * sigmoid(b * x) where b = 1 per layer"):
    x = torch.ones(8)
    y = Activation(text, kernel="c")(x)
    assert abs(y[0].item() - {"x * g": 0.6922, "x * s": 0.7311}[text[:5]]) < 1e-4
"""


@needs_compiler
def test_processes_that_build_the_same_kernels_at_once(cache: Path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([sys.executable, "-c", _WORKER], env=environment, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors.decode()
    assert len(list(cache.glob("*.so"))) == 3  # two formulas and the walk over tensors
    assert not [path for path in cache.iterdir() if path.suffix != ".so"]


def test_without_a_compiler_torch_serves_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CC", raising=False)
    find_compiler.cache_clear()
    load_formula.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            for text in ("x * gompertz(x)", "x * sigmoid(x)"):
                x = torch.randn(5, requires_grad=True)
                Activation(text)(x).sum().backward()
                assert x.grad is not None
        assert [r.message for r in caplog.records] == [
            "no C compiler (gcc or clang) found: activations run as torch operations on CPU"
        ]
        with pytest.raises(KernelError, match="kernel 'c': expected gcc or clang, found neither"):
            Activation("x * gompertz(x)", kernel="c")
        assert compile_batch([parse("x")]) == 0
    finally:
        find_compiler.cache_clear()
        load_formula.cache_clear()


@needs_compiler
def test_a_compiler_that_fails_leaves_torch_and_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    assert COMPILER
    with pytest.raises(KernelError, match=r"failed: .*error"):
        build_batch(COMPILER, ["not C"], "float32")
    assert not list(cache.glob("*.so"))
    flags = (*COMPILER.flags, "-fno-such-flag")
    broken = c_build.Compiler(COMPILER.path, COMPILER.version, flags, COMPILER.libmvec)
    monkeypatch.setattr("search.kernels.formula.find_compiler", lambda: broken)
    load_formula.cache_clear()
    y = Activation("x * gompertz(x)")(torch.ones(2))
    load_formula.cache_clear()
    assert abs(y[0].item() - 0.6922) < 1e-4
    assert len(caplog.records) == 1 and "runs as torch operations" in caplog.records[0].message


@needs_compiler
def test_a_read_only_cache_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("ACTIVATION_SEARCH_CACHE", str(blocked))
    assert works("x * sigmoid(1.25 * x)")


def test_an_unknown_kernel_is_one_line():
    with pytest.raises(KernelError, match="kernel: unknown 'tritn'; did you mean 'triton'"):
        Activation("relu(x)", kernel="tritn")


@needs_compiler
@pytest.mark.parametrize("kernel", ["auto", "c"])
def test_an_activation_uses_c_and_traces_as_torch(kernel: str):
    activation = Activation("x * gompertz(b * x) where b = 1 per channel", 8, kernel=kernel)
    x = torch.randn(4, 8, requires_grad=True)
    assert isinstance(activation._formula.rendering(x), CRendering)
    expected = activation(x)
    compiled = torch.compile(activation, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected)
    stacked = torch.func.vmap(activation)(x[None].expand(3, 4, 8))
    torch.testing.assert_close(stacked[0], expected)
    slope = torch.func.grad(lambda x: activation(x).sum())(x.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), x)[0])
    traced = torch.export.export(activation, (x.detach(),)).module()
    torch.testing.assert_close(traced(x.detach()), expected)
