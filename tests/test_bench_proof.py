"""`bench proof`: what holds is said to hold, and a wrong kernel is found."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from search.bench import main
from search.benchmarks.proof import Proof, Unproven, make_subject, numbers, prove, prove_all
from search.benchmarks.proof_table import DTYPES, as_json, asked, conclusion, line
from search.errors import KernelError
from search.kernels.c_build import find_compiler
from search.language.catalog import read_activation
from search.language.parser import parse

CPU = torch.device("cpu")
OURS = "c" if find_compiler() else "torch"
ROWS = ("golu", "dyn_mish", "prelu", "swiglu", "velu")


@pytest.mark.parametrize("kernel", sorted({OURS, "torch"}))
def test_rows_of_every_kind_hold(kernel: str):
    wanted = asked(ROWS, (), kernel, "cpu")
    found = list(prove_all(wanted.formulas, wanted.dtypes, wanted.kernel, "cpu"))
    assert len(found) == len(ROWS) * len(DTYPES)
    for each in found:
        assert isinstance(each, Proof) and each.repeats and not each.masked, each
        assert each.holds, line(each)
    assert [text.partition(";")[0] for text in conclusion(found)] == [
        f"{dtype}: 5 of 5 hold" for dtype in DTYPES
    ]
    json.loads(as_json(found), parse_constant=lambda word: pytest.fail(word))


def test_16_bits_are_tried_with_every_number():
    for dtype in ("bfloat16", "float16"):
        subject = make_subject(read_activation("golu"), dtype, OURS, CPU)
        x = numbers(subject)
        assert x.view(torch.int16).unique().numel() == x.numel() == 2**16
    spread = numbers(make_subject(read_activation("golu"), "float32", OURS, CPU))
    finite = spread[spread.isfinite()]
    assert spread.isnan().any() and finite.abs().max() > 1e38 and finite.abs().min() < 1e-38


class Off:
    """The right rendering, but for one thing."""

    def __init__(self, rendering, y=lambda y, x: y, gradient=lambda g, k: g):
        self.rendering, self.y, self.gradient = rendering, y, gradient

    def forward(self, tensors, channel_dim):
        return self.y(self.rendering.forward(tensors, channel_dim), tensors[0])

    def backward(self, dy, tensors, channel_dim, needed):
        found = self.rendering.backward(dy, tensors, channel_dim, needed)
        return [None if g is None else self.gradient(g, k) for k, g in enumerate(found)]


def one_bit(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Two spacings too large at x = 1.5 alone."""
    bits = y.clone().view(torch.int16)
    return torch.where(x == 1.5, (bits + 2).view(y.dtype), y)


def test_a_wrong_kernel_is_found():
    subject = make_subject(read_activation("dyn_mish"), "bfloat16", OURS, CPU)
    right, draw = subject.rendering, torch.Generator().manual_seed(0)

    def shaken(g: torch.Tensor, k: int) -> torch.Tensor:
        return g if k else g * (1 + 1e-2 * torch.rand(g.shape, generator=draw).to(g.dtype))

    def nan_at_an_end(g: torch.Tensor, k: int) -> torch.Tensor:
        return torch.full_like(g, torch.nan) if k == 0 and len(g) == 2 else g

    wrong = {
        "value": Off(right, y=one_bit),
        "nan": Off(right, y=lambda y, x: torch.nan_to_num(y, nan=0.0)),
        "slope": Off(right, gradient=lambda g, k: g if k else 1.02 * g),
        "sums": Off(right, gradient=lambda g, k: 1.02 * g if k == 1 else g),
        "bits": Off(right, gradient=shaken),
        "limit": Off(right, y=lambda y, x: torch.where(x == torch.inf, torch.nan, y)),
        "limit of the slope": Off(right, gradient=nan_at_an_end),
    }
    found = {name: prove(name, replace(subject, rendering=off), "c") for name, off in wrong.items()}
    assert prove("right", subject, "c").holds
    assert not any(each.holds for each in found.values())
    assert found["value"].value.share > 1 and found["value"].value.x == 1.5
    assert found["value"].slope.share <= 1
    assert found["nan"].masked > 200 and "!" in line(found["nan"])
    assert found["slope"].slope.share > 1 and found["slope"].value.share <= 1
    assert (found["sums"].sums or pytest.fail()).share > 1
    assert found["limit"].astray == 1 and "nan!" in line(found["limit"])
    assert found["limit of the slope"].astray == 2
    assert not found["bits"].repeats and "DIFFER" in line(found["bits"])


def test_what_cannot_run_is_a_line_and_the_others_go_on():
    formulas = (("bad", parse("x * sigmoid(x)")), ("good", read_activation("relu")))
    found = list(prove_all(formulas, ["float32"], "nowhere", "cpu"))
    assert [type(each) for each in found] == [Unproven, Unproven]
    assert "unknown 'nowhere'" in line(found[0]) and "0 of 2 hold" in conclusion(found)[0]


def test_every_mistake_is_told_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(KernelError) as caught:
        asked(["golu"], ["float23"], "tritan", "cpu")
    assert str(caught.value).splitlines() == [
        "--dtypes: unknown 'float23'; did you mean 'float32'?",
        "--kernel: unknown 'tritan'; did you mean 'triton'?",
    ]
    with pytest.raises(KernelError, match="expected TRITON_INTERPRET=1 in the environment"):
        asked(["golu"], [], "triton", "cpu")


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path, capsys: pytest.CaptureFixture[str]):
    kept = tmp_path / "proof.json"
    words = ["bench", "proof", "golu", "x * sin(x)", "--dtypes", "bfloat16", "--save", str(kept)]
    monkeypatch.setattr("sys.argv", [*words, "--kernel", OURS, "--device", "cpu"])
    assert main() == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("formula") and out[1].startswith("golu") and len(out) == 4
    assert out[-1].startswith("bfloat16: 2 of 2 hold; value 0.")
    assert [each["name"] for each in json.loads(kept.read_text())["proofs"]] == [
        "golu",
        "x * sin(x)",
    ]
