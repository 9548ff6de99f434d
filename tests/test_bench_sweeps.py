"""`python -m search.bench sweeps`: what is measured, told and drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from search.benchmarks.sweeps import (
    CASES,
    PICK,
    PROCESSES,
    WAYS,
    Row,
    as_json,
    compare,
    measure,
    picked,
    plans_of,
    prepared_case,
    table,
)
from search.errors import TaskError
from search.figures.sweeps import draw_sweeps, sweeps_info
from search.training.loop import initial_model

ROOT = Path(__file__).resolve().parent.parent

ROWS = [
    Row("digits_mlp", "loop", 10, (100.0, 200.0, 150.0), (3.0, 2.0, 2.5), 1_000_000),
    Row("digits_mlp", "processes", 10, (150.0, 320.0, 150.0), (2.0, 1.5, 2.5), 2_000_000),
    Row("digits_mlp", "batched", 10, (400.0, 600.0, 600.0), (1.0, 0.5, 0.5), 9_000_000),
]


SOME = ("loop", "batched", "both")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return compare(["extrapolation"], [3], steps=4, rounds=2, device="cpu", ways=SOME)


def test_every_way_is_measured_in_every_round(rows: list[Row]):
    assert [(row.way, row.runs, len(row.speeds)) for row in rows] == [(w, 3, 2) for w in SOME]
    for row in rows:
        assert min(row.speeds) > 0 and row.memory >= 0
        # All steps of all runs took no longer than the sweep around them.
        pairs = zip(row.speeds, row.seconds, strict=True)
        assert all(3 * 4 / speed <= whole for speed, whole in pairs) or row.way == "both"
    assert [row.processes for row in rows] == [1, 1, 2]


def test_the_table_tells_medians_spread_and_the_ratio_of_each_round():
    lines = table(ROWS).splitlines()
    assert lines[0].split()[:3] == ["case", "runs", "way"]
    assert " ".join(lines[3].split()[2:]) == "batched 600 (400 to 600) 4.00 0.50 9.0 0.90 3"


def test_the_pick_is_told_against_the_best_of_the_others():
    pick = replace(ROWS[2], way=PICK, speeds=(360.0, 540.0, 700.0), picked="a way; its reasons")
    *_, last = table([*ROWS, pick]).splitlines()
    words = "0.90 × the best (batched); the planner takes a way; its reasons"
    assert last == f"digits_mlp, 10 runs: {words}"


@pytest.mark.slow
def test_the_planner_picks_one_of_the_ways():
    found = picked("extrapolation", 4, "cpu")
    assert found.at_once in (1, 2, 4) and found.threads in (1, PROCESSES)
    assert found.parts == (4,) * found.sweeps and "processes" in found.picked


def test_the_json_is_what_the_picture_is_drawn_from():
    text = as_json(ROWS)
    assert json.loads(text)["sweeps"][2]["speed"] == 600
    assert json.loads(text)["versions"]["torch"]
    info = sweeps_info(text)
    assert info.groups == ("digits_mlp, 10 runs",)
    assert info.ratios == {"loop": (1.0,), "processes": (1.5,), "batched": (4.0,)}
    assert info.ranges["batched"] == ((3.0, 4.0),)
    assert draw_sweeps(text).axes[0].get_xlabel().endswith("median and range of 3")


@pytest.mark.parametrize("case", CASES)
def test_every_case_builds_a_model_that_takes_its_data(case: str):
    prepared = prepared_case(case, "cpu")
    device = torch.device("cpu")
    model = initial_model(prepared.task, prepared.splits, nn.ReLU, prepared.options, 0, device)
    outputs = model(prepared.splits.train.inputs[:2])
    assert prepared.task.loss(outputs, prepared.splits.train.targets[:2], 0.0).isfinite()


def test_every_way_trains_all_runs():
    plans = plans_of(3)
    assert tuple(plans) == WAYS
    assert [sum(plan.parts) / plan.sweeps for plan in plans.values()] == [3] * len(WAYS)
    assert [plan.at_once for plan in plans.values()] == [1, 1, 3, 3, 3]
    assert plans_of(1)["processes"].parts == (1,)


def test_ways_do_the_same_work():
    found = [measure("extrapolation", 3, 4, way, "cpu") for way in (1, 2, 3)]
    assert [m.steps for m in found] == [12, 12, 12]


@pytest.mark.parametrize(
    ("cases", "sizes", "said"),
    [
        (["digits_mpl"], [2], "cases: unknown case 'digits_mpl'; did you mean 'digits_mlp'?"),
        (["digits_mlp"], [2, 0], "--runs, --steps, --rounds: got 0; expected whole numbers ≥ 1"),
        (["digits_mlp"], [-3], "--runs, --steps, --rounds: got -3; expected whole numbers ≥ 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(cases: list, sizes: list, said: str):
    with pytest.raises(TaskError) as caught:
        compare(cases, sizes, steps=1, rounds=1, device="cpu")
    assert str(caught.value) == said


def test_it_runs_without_ray_optuna_and_matplotlib():
    code = (
        "import sys\n"
        "class Wall:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'ray', 'optuna', 'matplotlib', 'triton', 'rich'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Wall())\n"
        "from search.benchmarks.sweeps import measure\n"
        "print(measure('extrapolation', 2, 2, 2, 'cpu').steps)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "4", run.stderr
