"""`bench kernels`: fair contestants, the figures made of their times, the picture's numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from search.benchmarks import contestants, kernel_table, kernels
from search.benchmarks.contestants import CHANNELS, NATIVE, bytes_moved, channels_of, make_tensors
from search.benchmarks.goals import ARCTAN_ARCSIN, TYPES, verdicts
from search.benchmarks.kernel_plan import make_plan
from search.benchmarks.measured import DIRECTIONS, OURS, First, Measurement, Spread, Timed
from search.benchmarks.timing import interleaved, rotated
from search.errors import KernelError
from search.figures.roofline import draw_roofline, roofline_info
from search.figures.style import png_bytes
from search.language.catalog import CATALOG, read_activation
from search.language.parser import parse

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
SHAPES = ("golu", "swiglu", "snake", "velu", "xatglu", "poly_norm", ARCTAN_ARCSIN)
"""Flat, gated, per channel, with a statistic, gated with a parameter, several of each."""


def measurement(name: str = "golu", **times: tuple[float, ...]) -> Measurement:
    """A case of 2^22 float32 elements with these microseconds by contestant."""
    return Measurement(
        name=name,
        expression=str(read_activation(TYPES.get(name, name))),
        direction="both",
        elements=2**22,
        dtype="float32",
        bytes=1_000_000,
        rendering="c",
        times={key: Timed(Spread(samples)) for key, samples in times.items()},
        first=First(0.1, 0.05),
    )


# --- contestants -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NATIVE)
def test_torchs_operator_is_the_catalogues_function(name: str):
    tensors = make_tensors(CATALOG[name].expression, 4 * CHANNELS, torch.float64, CPU)[0]
    theirs = contestants.make_native(CATALOG[name].expression, tensors)
    assert theirs is not None
    eager = contestants.make_eager(CATALOG[name].expression, tensors)
    torch.testing.assert_close(theirs.function(*tensors.inputs), eager.function(*tensors.inputs))


def test_a_formula_is_matched_with_torchs_operator_whatever_it_is_called():
    assert contestants.native(parse("x * sigmoid(x)")) is torch.nn.functional.silu
    assert contestants.native(parse("x * sigmoid(2 * x)")) is None


@pytest.mark.parametrize("formula", SHAPES)
def test_all_contestants_make_the_same_gradients(formula: str):
    expression = read_activation(formula)
    sets = make_tensors(expression, 4 * CHANNELS, torch.float64, CPU)
    ours, _ = contestants.make_ours(expression, sets[0], "auto")
    eager = contestants.make_eager(expression, sets[0])
    for direction in DIRECTIONS:
        made = [contestants.passes(who, direction, sets)(1)[0]() for who in (ours, eager)]
        torch.testing.assert_close(made[0], made[1], msg=lambda text, d=direction: f"{d}: {text}")


@pytest.mark.parametrize("formula", ["golu", "swiglu"])
def test_the_copy_reads_and_writes_what_a_pass_does(formula: str):
    expression = read_activation(formula)
    tensors = make_tensors(expression, 256, torch.float32, CPU)[0]
    for tensor in (tensors.y, *tensors.gradients):
        tensor.fill_(float("nan"))
    contestants.copies("both", [tensors])(1)[0]()
    with torch.no_grad():
        assert torch.equal(tensors.y, sum(tensors.inputs[1:], tensors.inputs[0]))
        assert torch.equal(tensors.gradients[0], tensors.inputs[0] + tensors.dy)
    assert not any(tensor.isnan().any() for tensor in tensors.gradients)


def test_bytes_count_every_tensor_once():
    flat, pair = read_activation("golu"), read_activation("swiglu")
    assert [bytes_moved(flat, d, 10, 4) for d in DIRECTIONS] == [80, 120, 200]
    assert [bytes_moved(pair, d, 10, 2) for d in DIRECTIONS] == [60, 100, 160]


def test_any_number_of_elements_has_a_shape():
    assert [channels_of(n) for n in (1, 96, 1000, 2**22)] == [1, 32, 8, CHANNELS]
    tensors = make_tensors(read_activation("golu"), 1000, torch.float32, CPU)[0]
    assert tensors.inputs[0].shape == (125, 8) and not (tensors.inputs[0] == 0).any()


# --- the clock ---------------------------------------------------------------------------------


def test_everybody_runs_once_a_round_in_rotating_order():
    log: list[str] = []
    prepared = {name: lambda count, name=name: [lambda: log.append(name)] * count for name in "abc"}
    found = interleaved(prepared, {"a": 1, "b": 2, "c": 1}, 4, CPU)
    assert "".join(log) == "abbc" + "bbca" + "cabb" + "abbc"
    assert all(isinstance(samples, list) and len(samples) == 4 for samples in found.values())
    assert rotated([], 3) == []


def test_a_contestant_that_fails_on_the_way_leaves_the_others_alone():
    def fails() -> None:
        raise MemoryError("none left")

    prepared = {"good": lambda count: [lambda: None] * count, "bad": lambda count: [fails] * count}
    found = interleaved(prepared, {"good": 2, "bad": 2}, 3, CPU)
    assert isinstance(found["bad"], MemoryError)
    assert isinstance(found["good"], list) and len(found["good"]) == 3


# --- figures -----------------------------------------------------------------------------------


def test_a_ratio_is_taken_round_by_round():
    measured = measurement(ours=(1.0, 20.0, 3.0), eager=(2.0, 10.0, 12.0))
    ratio = measured.ratio("eager")
    assert ratio is not None and ratio.samples == (0.5, 2.0, 0.25) and ratio.median == 0.5
    assert measured.ratio("native") is None
    assert measured.rate(OURS) == pytest.approx(1_000_000 / 3e-6 / 1e9)


def test_a_spread_has_quartiles_and_extremes():
    spread = Spread((5.0, 1.0, 2.0, 4.0, 3.0))
    figures = spread.as_json()
    assert (figures["median"], figures["least"], figures["most"], figures["n"]) == (3, 1, 5, 5)
    assert spread.quartiles == (2.0, 4.0) and Spread((7.0,)).quartiles == (7.0, 7.0)


def test_goals_are_stated_where_their_peer_ran():
    met = measurement(ours=(4.0,), compile=(8.0,))
    missed = measurement("arctan_arcsin", ours=(4.0,), eager=(8.0,))
    found = {v.goal: v.met for v in verdicts([met, missed], "cpu")}
    assert found == {
        "golu against compile <= 0.80": True,
        "arctan_arcsin against eager <= 0.25": False,
        "first step <= 0.25 s": True,
    }
    assert [v.goal for v in verdicts([met, missed], "cuda")] == ["first step <= 0.50 s"]


def test_the_roofline_shows_shares_of_the_copy():
    near = measurement("silu", ours=(10.0,), copy=(5.0,), native=(20.0,))
    far = measurement("golu", ours=(50.0,), copy=(5.0,))
    info = roofline_info([far, near, measurement("mish", ours=(1.0,))])
    assert info is not None and info.labels == ("silu", "golu") and info.elements == 2**22
    (panel,) = info.panels
    assert panel.copy_rate == pytest.approx(200) and panel.direction == "both"
    assert panel.rows[0] is not None and panel.rows[0].shares == {"ours": 0.5, "native": 0.25}
    assert panel.rows[1] is not None and panel.rows[1].shares == {"ours": 0.1}
    assert roofline_info([measurement(ours=(1.0,))]) is None
    assert png_bytes(draw_roofline(info)).startswith(b"\x89PNG")


# --- whole runs --------------------------------------------------------------------------------


def test_every_shape_of_formula_is_measured():
    plan = make_plan(SHAPES, sizes=["512"], dtypes=["float32", "bfloat16"], rounds=2,
                     peers=["native", "eager", "copy"], device="cpu")  # fmt: skip
    found = list(kernels.measure(plan))
    assert len(found) == plan.cases == len(SHAPES) * 2 * 3
    for measured in found:
        assert set(measured.times) == {OURS, "eager", "copy"}
        for timed in measured.times.values():
            assert timed.microseconds is not None, timed.problem
            assert len(timed.microseconds.samples) == 2 and min(timed.microseconds.samples) > 0
    assert torch.is_grad_enabled()


def test_a_case_beyond_memory_is_a_line_and_not_the_end():
    plan = make_plan(["relu"], sizes=["2^52", "64"], directions=["forward"], peers=["native"],
                     rounds=1, device="cpu")  # fmt: skip
    large, small = kernels.measure(plan)
    assert "memory" in large.times[OURS].problem and large.ratio("native") is None
    assert small.ratio("native") is not None
    row, *reasons = kernel_table.lines(large, plan.peers)
    assert row.startswith("relu") and len(reasons) == 2
    assert all("\n" not in line and len(line) < 200 for line in reasons)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(KernelError) as caught:
        make_plan(["golo"], ["x *"], ["0", "2^x"], ["float23"], ["forwards"], ["eagr"],
                  rounds=0, device="cup", kernel="d")  # fmt: skip
    text = str(caught.value)
    for words in ("'golo'; did you mean 'golu'", "got '0'", "got '2^x'", "did you mean 'float32'",
                  "did you mean 'forward'", "'eagr'; did you mean 'eager'", "--rounds", "'cup'",
                  "--kernel: unknown 'd'"):  # fmt: skip
        assert words in text, words
    assert len(caught.value.problems) == 10


def test_nothing_asked_is_the_whole_catalogue():
    plan = make_plan(device="cpu")
    assert [name for name, _ in plan.formulas] == list(CATALOG)
    assert plan.sizes == (2**14, 2**18, 2**22) and plan.directions == DIRECTIONS


_WITHOUT = """
import runpy, sys
for name in ("ray", "optuna", "matplotlib", "rich", "jinja2", "sklearn"):
    sys.modules[name] = None  # as if it were not installed
sys.argv = ["bench", "kernels", *sys.argv[1:]]
runpy.run_module("search.bench", run_name="__main__")
"""


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WITHOUT, *words, "--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


PEERS = ("native", "eager", "copy")


@pytest.mark.parametrize(
    "peers", [PEERS, pytest.param((*PEERS, "compile"), marks=pytest.mark.slow)], ids=len
)
def test_a_run_needs_neither_ray_nor_matplotlib(tmp_path: Path, peers: tuple[str, ...]):
    words = ["silu", "--sizes", "2^10", "--passes", "both", "--rounds", "2", "--json"]
    run = bench(*words, "--against", *peers, "-o", str(tmp_path / "figures"))
    assert run.returncode == 0, run.stderr
    assert "no picture: matplotlib is not installed" in run.stderr
    printed = json.loads(run.stdout)
    assert printed == json.loads((tmp_path / "figures" / "kernels.json").read_text())
    (case,) = printed["measurements"]
    assert set(case["contestants"]) == {"ours", *peers}
    for name, found in case["contestants"].items():
        assert found["microseconds"]["n"] == 2, f"{name}: {found['problem']}"
    assert case["first_seconds"]["load"] > 0
    if "compile" in peers:  # Inductor takes half a minute to start
        assert case["contestants"]["compile"]["compile_seconds"] > 0
        assert printed["compiler_start_seconds"] > 0
    assert printed["versions"]["torch"] and printed["settings"]["device_name"]


def test_a_mistake_is_a_line_and_exits_with_2():
    run = bench("silu", "--dtypes", "float23")
    assert run.returncode == 2
    assert run.stderr == "--dtypes: unknown 'float23'; did you mean 'float32'?\n"


def test_files_of_a_run(tmp_path: Path):
    plan = make_plan(["silu"], sizes=["64"], directions=["forward"], peers=["copy"], rounds=1,
                     device="cpu")  # fmt: skip
    said: list[str] = []
    bench = kernels.run(plan, said.append)
    assert said[0].split()[0] == "formula" and said[1].split()[0] == "silu"
    kernel_table.make_folder(tmp_path / "new")
    kernel_table.write(bench, tmp_path / "new")
    names = {"kernels.json", "kernels.png", "kernels.pdf"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    assert imread(tmp_path / "new" / "kernels.png").shape[1] > 800


def test_a_folder_that_cannot_be_written_is_told_before_measuring(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KernelError, match="cannot be written"):
        kernel_table.make_folder(tmp_path / "file")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kernel", ["auto", "triton"])
def test_a_gpu_is_measured_by_its_own_clock(kernel: str):
    plan = make_plan(["silu", "swiglu", "snake"], sizes=["2^20"], rounds=2, kernel=kernel,
                     peers=["native", "eager", "copy"], device="cuda")  # fmt: skip
    for measured in kernels.measure(plan):
        for name, timed in measured.times.items():
            assert timed.microseconds is not None, f"{measured.name}, {name}: {timed.problem}"
            assert min(timed.microseconds.samples) > 0
    device = torch.device("cuda")
    sets = make_tensors(read_activation("silu"), 2**20, torch.bfloat16, device)
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    assert len(sets) * 2**21 > min(2 * cache, 63 * 2**21)
