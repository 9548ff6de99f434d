"""Runs that train together: each as its own plain run, none touched by another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search.activation import Activation
from search.errors import SpaceError
from search.records import Run
from search.space.space import load_space
from search.tasks.digits import TASK as DIGITS
from search.tasks.task import MakeActivation, Recipe, Splits, Task
from search.training.batched import run_together
from search.training.candidate import train_candidate
from search.training.job import Job
from search.training.planner import Choice, plan_batching, planned
from search.training.rates import Grid
from tests.batched_cases import (
    CASES,
    CLOSE,
    KEYS,
    TOY,
    digits,
    distance,
    plain,
    settings,
    silu,
    together,
    training,
)


@pytest.mark.parametrize("case", CASES)
def test_every_member_follows_its_own_plain_run(case: str):
    task, splits, options, formula, recipe = CASES[case]
    make, rest = partial(Activation, formula), settings(task, options, **recipe)
    alone = plain(task, splits, make, KEYS, **rest)
    both = together(task, splits, make, KEYS, **rest)
    assert both.keys() == alone.keys()
    for key, run in alone.items():
        assert (both[key].state, both[key].steps) == (run.state, run.steps)
        assert distance(run, both[key]) < CLOSE
        assert both[key].seconds > 0


def test_a_wrong_rate_would_be_noticed():
    rest = settings(DIGITS, {})
    runs = together(DIGITS, digits(), silu, [(0.01, 0), (0.0101, 0)], **rest)
    assert distance(*runs.values()) > 2 * CLOSE


def dropping(make: MakeActivation, splits: Splits, **_: Any) -> nn.Module:
    first = [nn.Flatten(), nn.Linear(64, 16), make(), nn.Dropout(0.5)]
    return nn.Sequential(*first, nn.Linear(16, splits.outputs))


class Residual(nn.Module):
    """Not a chain: goes by vmap. Counts its calls in a buffer, and shares a layer."""

    calls: Tensor

    def __init__(self, make: MakeActivation):
        super().__init__()
        self.project = nn.Linear(64, 16)
        self.shared = nn.Linear(16, 16)
        self.activation = make()
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(16, 10)
        self.unused = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.project(x.flatten(1))
        x = x + self.dropout(self.activation(self.shared(x)))
        return self.head(x + self.activation(self.shared(x)) / self.calls)


@pytest.mark.parametrize("build", [dropping, lambda make, splits: Residual(make)])
def test_on_the_cpu_dropout_draws_what_a_plain_run_draws(build: Callable[..., nn.Module]):
    task = Task(name="own", load=lambda root: digits(), build=build)
    rest = {"options": {}, "recipe": Recipe(batch_size=16, epochs=2, weight_decay=0.1)}
    alone = plain(task, digits(), silu, KEYS, **rest)
    for key, run in together(task, digits(), silu, KEYS, **rest).items():
        assert distance(alone[key], run) < CLOSE


# --- nobody touches another ----------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"norm": "batchnorm"}, {"model": "cnn"}])
def test_a_member_that_diverges_leaves_the_others_bitwise_as_they_were(options: dict[str, Any]):
    rest = settings(DIGITS, options, epochs=1)
    wild = [(0.01, 0), (1e30, 0), (0.03, 1), (1e25, 1)]
    tame = [(0.01, 0), (1e-9, 0), (0.03, 1), (1e-8, 1)]
    with_wild = together(DIGITS, digits(), silu, wild, **rest)
    without = together(DIGITS, digits(), silu, tame, **rest)
    for key in ((0.01, 0), (0.03, 1)):
        assert with_wild[key].curve == without[key].curve
    alone = plain(DIGITS, digits(), silu, wild, **rest)
    for key in ((1e30, 0), (1e25, 1)):
        run = with_wild[key]
        assert (run.state, run.steps, run.curve) == ("diverged", alone[key].steps, ())
        assert run.reason.split(":")[0] == alone[key].reason.split(":")[0]


def test_a_member_above_the_bound_ends_at_that_step_with_the_plain_reason():
    rest = settings(DIGITS, {}, loss_bound=4.0, epochs=4, warmup=0.0)
    keys = [(0.01, 0), (3.0, 0), (3.0, 1)]
    alone = plain(DIGITS, digits(), silu, keys, **rest)
    both = together(DIGITS, digits(), silu, keys, **rest)
    states = [run.state for run in alone.values()]
    assert states == ["complete", "diverged", "diverged"]
    for key, run in alone.items():
        assert (both[key].state, both[key].steps) == (run.state, run.steps)
        assert both[key].reason.split(",")[-1] == run.reason.split(",")[-1]


def test_a_member_that_is_dropped_leaves_the_others_bitwise_as_they_were():
    # Of a parameter per layer the last bit may differ: torch adds up its channels' gradients, in an
    # order that depends on how many members there are.
    rest = settings(DIGITS, {}, epochs=3)
    make = partial(
        Activation, "x * sigmoid(s * x) + b * x where s = 1 per channel, b = 0 per channel"
    )
    whole = together(DIGITS, digits(), make, KEYS, **rest)
    stream = run_together(DIGITS, digits(), make, keys=KEYS, **rest)
    first = next(stream)
    assert set(first.points) == set(KEYS) and not first.ended
    runs = list(stream.send({KEYS[1]: "the rung"}).ended)
    runs += [run for epoch in stream for run in epoch.ended]
    found = {(run.learning_rate, run.seed): run for run in runs}
    assert (found[KEYS[1]].state, found[KEYS[1]].reason) == ("pruned", "the rung")
    assert len(found[KEYS[1]].curve) == 1
    for key in (KEYS[0], *KEYS[2:]):
        assert found[key].curve == whole[key].curve


def test_all_may_diverge_at_once():
    rest = settings(DIGITS, {}, warmup=0.0)
    runs = together(DIGITS, digits(), silu, [(1e30, 0), (1e31, 0)], **rest)
    assert [run.state for run in runs.values()] == ["diverged", "diverged"]


def test_seconds_are_shared():
    rest = settings(DIGITS, {})
    runs = together(DIGITS, digits(), silu, KEYS, **rest)
    assert len({run.seconds for run in runs.values()}) == 1


# --- the sweep of a candidate --------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [2, 3, 100])
def test_a_batched_sweep_has_the_records_of_a_plain_one(at_once: int):
    job = Job("x * sigmoid(b * x) where b = 1 per channel", gated=True)
    found: list[tuple[list[Run], Any]] = []
    for n in (1, at_once):
        runs: list[Run] = []
        found.append((runs, train_candidate(training(at_once=n), job, runs.append)))
    (alone, plainly), (both, batched) = found
    assert (batched.state, batched.best_rate) == (plainly.state, plainly.best_rate)
    assert batched.score == pytest.approx(plainly.score, abs=1 / 128)
    assert sorted((r.learning_rate, r.seed) for r in both) == sorted(
        (r.learning_rate, r.seed) for r in alone
    )
    assert batched.parameters == plainly.parameters and batched.cost


def test_a_batched_sweep_goes_on_with_what_is_finished():
    runs: list[Run] = []
    job = Job("relu(x)", gated=False)
    train_candidate(training(at_once=4), job, runs.append)
    again: list[Run] = []
    train_candidate(training(at_once=4), replace(job, finished=tuple(runs[:3])), again.append)
    keys = [(r.learning_rate, r.seed) for r in runs]
    assert [(r.learning_rate, r.seed) for r in again] == keys[3:]


@pytest.mark.parametrize("at_once", [2, 4])
def test_epochs_of_a_batched_sweep_are_told(at_once: int):
    told: dict[int, list[tuple[int, float, int]]] = {1: [], at_once: []}
    for n, list_ in told.items():
        train_candidate(
            training(at_once=n, in_step=True),
            Job("relu(x)", gated=False),
            on_epoch=lambda epoch, value, points, to=list_: to.append((epoch, value, len(points))),
        )
    assert [(e, n) for e, _, n in told[1]] == [(e, n) for e, _, n in told[at_once]]
    for (_, a, _), (_, b, _) in zip(told[1], told[at_once], strict=True):
        assert a == pytest.approx(b, abs=1 / 128)


# --- how many at once ----------------------------------------------------------------------------


def test_the_planner_takes_the_fastest_way_and_keeps_its_choice(tmp_path: Path):
    path = tmp_path / "batching.json"
    made, choice = planned(training(), None, path)
    assert made.at_once == choice.at_once
    assert dict(choice.speeds)[choice.at_once] == max(speed for _, speed in choice.speeds)
    assert {size for size, _ in choice.speeds} == {1, 2, 4}
    assert planned(training(), None, path)[1] == choice
    altered = path.read_text(encoding="utf-8").replace('"at_once"', '"once"')
    path.write_text(altered, encoding="utf-8")
    assert {size for size, _ in planned(training(), None, path)[1].speeds} == {1, 2, 4}


def test_all_forms_of_a_formula_compile_in_one_library():
    """Their kernels have names of their own: gcc took two forms of one program for one."""
    from search.kernels.abreast import forms_abreast
    from search.kernels.c_code import render
    from search.kernels.c_fusion import fuse
    from search.kernels.program import lower
    from search.language.parser import parse

    formula = parse("x * gompertz(s * x + 1.0625 * x) where s = 1 per layer")
    pairs = [(formula, frozenset()), *((f, frozenset("s")) for f in forms_abreast(formula))]
    texts = [render(lower(form, fuse), channels) for form, channels in pairs]
    names = [
        line.split("(")[0] for text in texts for line in text.splitlines() if "(long n" in line
    ]
    assert len(texts) == 2 and len(set(names)) == len(names) > 0


def test_a_sweep_of_one_run_is_not_batched():
    from search.training.prepared import prepare

    made = training(grid=Grid((0.1,), 0.1, (0,)))
    assert plan_batching(prepare(made), made.grid) == Choice(1, (), "a sweep is a single run")


SPACE = """
name: study
task: digits
baselines: [relu]
learning_rate: {grid: [0.01, 0.1], default: 0.1}
"""


@pytest.mark.parametrize(
    ("text", "expected"), [("auto", None), ("off", 1), ("1", 1), ("12", 12), ("'off'", 1)]
)
def test_batching_in_a_space_file(text: str, expected: int | None, tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_text(SPACE, encoding="utf-8")
    without = load_space(path)
    space = load_space(path, [f"batching={text}"])
    assert (without.batching, space.batching) == (None, expected)
    assert space.definition() == without.definition()


@pytest.mark.parametrize("text", ["0", "-3", "many", "2.5", "true"])
def test_batching_that_is_no_number_is_refused_in_one_line(text: str, tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_text(SPACE, encoding="utf-8")
    with pytest.raises(SpaceError) as caught:
        load_space(path, [f"batching={text}"])
    (line,) = caught.value.problems
    assert f"batching: expected auto, off, or a whole number ≥ 1, got {text}" in line.replace(
        "'", ""
    )


def test_the_whole_metric_is_distributed_alike():
    """Runs long enough for round-off to grow: not equal, but of the same quality."""
    task, splits = TOY, TOY.load(None)
    rest = {"options": dict(TOY.options), "recipe": replace(TOY.recipe, epochs=12)}
    keys = [(0.3, seed) for seed in range(8)]
    alone = plain(task, splits, silu, keys, **rest)
    both = together(task, splits, silu, keys, **rest)
    scores = [[run.score or math.nan for run in runs.values()] for runs in (alone, both)]
    means = [sum(found) / len(found) for found in scores]
    assert means[0] == pytest.approx(means[1], abs=0.01)
