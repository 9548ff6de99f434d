"""Successive halving of a sweep: who leaves at a rung, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from search.errors import SpaceError
from search.figures.heatmap import cell_text, heatmap_info
from search.figures.settings import ReportSettings
from search.records import Key, Run, Trial, to_json, trial_from_json
from search.space.settings import Halving
from search.space.space import load_space
from search.statistics import spared_share, summarize_rates
from search.summary import notes
from search.training.candidate import train_candidate
from search.training.job import Job, Training
from search.training.rates import Grid, best_rate, mean_scores, why_diverged
from search.training.rungs import leaving, rungs_of, steps_spared
from search.training.sweep import sweep
from tests.rungs_cases import EPOCHS, GRID, LOST, RATES, point, start, swept

EPS = 2.0**-23  # of float32


def ends(runs: tuple[Run, ...]) -> dict[float, tuple[str, int]]:
    """State and steps by rate, which are those of all its seeds."""
    found: dict[float, set[tuple[str, int]]] = {}
    for run in runs:
        found.setdefault(run.learning_rate, set()).add((run.state, run.steps))
    assert all(len(each) == 1 for each in found.values())
    return {rate: each.pop() for rate, each in found.items()}


# --- where the rungs stand -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("halving", "epochs", "rates", "expected"),
    [
        (Halving(0.5, 2), 8, 5, {2: 3, 4: 2}),
        (Halving(0.5, 3), 8, 8, {1: 4, 2: 2, 4: 1}),
        (Halving(1 / 3, 2), 27, 9, {3: 3, 9: 1}),
        (Halving(0.5, 1), 8, 5, {4: 3}),
        (Halving(0.5, 2), 2, 5, {1: 3}),  # both on one epoch
        (Halving(0.5, 2), 1, 5, {}),
        (None, 8, 5, {}),
    ],
)
def test_rungs_stand_at_fixed_epochs(
    halving: Halving | None, epochs: int, rates: int, expected: dict[int, int]
):
    assert rungs_of(halving, epochs, rates) == expected


# --- who leaves ----------------------------------------------------------------------------------


def test_the_worst_rates_leave_at_the_rungs_with_all_their_seeds():
    runs = swept()
    assert ends(runs) == {
        0.001: ("pruned", 10),
        0.003: ("pruned", 20),
        0.01: ("complete", 40),
        0.03: ("complete", 40),
        0.1: ("pruned", 10),
    }
    reasons = {run.learning_rate: run.reason for run in runs}
    assert reasons[0.003] == "rung after epoch 4: place 3 of 3 rates, and 2 go on"
    assert reasons[0.001] == "rung after epoch 2: place 4 of 5 rates, and 3 go on"
    assert (
        best_rate(runs, True, 0.01)
        == 0.01
        == best_rate(swept(replace(GRID, halving=None)), True, 0.01)
    )
    assert steps_spared(runs) == 2 * (30 + 30 + 20)


def test_a_rate_that_left_is_tried_but_neither_eligible_nor_diverged():
    runs = swept()
    assert set(mean_scores(runs)) == {0.01, 0.03}
    left = {s.learning_rate: s for s in summarize_rates(runs)}[0.1]
    assert (left.pruned, left.diverged, left.n, left.mean, left.whole) == (2, 0, 0, None, False)


def test_an_end_of_the_grid_beside_the_leader_is_trained_to_the_end():
    runs = swept(optimum=0.04)
    assert ends(runs)[0.1] == ("complete", 40)
    assert ends(runs)[0.01] == ("pruned", 20)
    assert best_rate(runs, True, 0.01) == 0.03


def test_the_grid_is_extended_by_whole_runs():
    runs, whole = swept(optimum=1.0), swept(replace(GRID, halving=None), optimum=1.0)
    assert {run.learning_rate for run in runs} == {run.learning_rate for run in whole}
    assert best_rate(runs, True, 0.01) == best_rate(whole, True, 0.01) == 0.9
    assert {e for rate, e in ends(runs).items() if rate > 0.1} == {("complete", 40)}
    assert "pruned" in {run.state for run in runs}


def test_what_a_diverged_seed_leaves_behind_leaves_as_pruned():
    runs = swept(lost=((0.01, 1),))
    state = {(run.learning_rate, run.seed): run.state for run in runs}
    assert (state[0.01, 1], state[0.01, 0]) == ("diverged", "pruned")
    (other,) = [run for run in runs if (run.learning_rate, run.seed) == (0.01, 0)]
    assert other.reason == "rung after epoch 2: its rate has lost another seed"
    assert best_rate(runs, True, 0.01) == 0.03
    at = {s.learning_rate: s for s in summarize_rates(runs)}[0.01]
    assert (at.diverged, at.pruned, at.runs) == (1, 1, 2)


def test_when_all_that_were_kept_diverge_the_reason_names_those_that_left():
    runs = [Run(0.1, 0, "diverged", "step 9: loss is nan"), Run(0.001, 0, "pruned")]
    assert best_rate(runs, True, 0.01) is None
    assert why_diverged(runs) == (
        "no learning rate kept every seed finite (1 of 2 rates had left at a rung);"
        " 0.1, seed 0: step 9: loss is nan"
    )


def test_a_loss_is_minimised_and_ties_stay_near_the_default():
    points = {(rate, 0): point(2, 0.5) for rate in RATES}
    points[0.03, 0] = point(2, 0.7)
    grid = Grid(RATES, default=0.01, seeds=(0,), maximize=False)
    down = leaving(2, 2, points, (), grid)
    assert set(down) == {0.001, 0.03, 0.1}
    up = leaving(2, 2, points, (), replace(grid, maximize=True))
    assert set(up) == {0.001, 0.003}  # 0.1 is beside the leader


# --- going on after a crash ----------------------------------------------------------------------


def test_a_sweep_that_goes_on_makes_the_same_decisions():
    """Runs are written as they end, in any order of a rung's; so cut after every one."""
    cases: list[dict[str, Any]] = [{}, {"optimum": 0.04}, {"optimum": 1.0}, {"lost": LOST}]
    for how in cases:
        written: list[Run] = []
        whole = sweep(GRID, partial(start, **how), on_run=written.append, epochs=EPOCHS)
        for cut in range(len(written) + 1):
            begun: list[Key] = []
            again = swept(finished=tuple(written[:cut]), begun=begun, **how)
            assert again == whole
            assert not set(begun) & {(r.learning_rate, r.seed) for r in written[:cut]}


def test_what_is_written_stands_even_where_round_off_would_decide_otherwise():
    """0.003 has left and 0.03 has trained on, though 0.003 is the better one now."""
    whole = {(run.learning_rate, run.seed): run for run in swept(optimum=0.012)}
    assert (whole[0.03, 0].state, whole[0.003, 0].state) == ("complete", "pruned")
    left = [run for run in whole.values() if run.state == "pruned"]
    again = swept(optimum=0.008, finished=(*left, whole[0.03, 0]))
    assert ends(again)[0.03][0] == "complete"
    assert ends(again)[0.003][0] == "pruned"
    assert ends(again)[0.01][0] == "complete"


# --- real trainings ------------------------------------------------------------------------------

HERE = Path(__file__).parent


def training(**changes: Any) -> Training:
    grid = Grid((0.003, 0.01, 0.03, 0.1, 0.3), 0.03, (0, 1), False, halving=Halving(0.5, 2))
    shared = {"options": {}, "recipe": {"epochs": 8}, "data_root": None, "grid": grid}
    return Training("toy_task.py", HERE, **{**shared, **changes})


@pytest.mark.parametrize("at_once", [2, 3, 10])
def test_batches_drop_the_rates_that_plain_runs_drop(at_once: int):
    found: dict[int, tuple[dict[Key, Run], Any]] = {}
    for n in (1, at_once):
        runs: list[Run] = []
        outcome = train_candidate(training(at_once=n), Job("silu(x)", gated=False), runs.append)
        found[n] = {(r.learning_rate, r.seed): r for r in runs}, outcome
    (alone, plainly), (both, batched) = found.values()
    assert {key: (r.state, r.steps, r.reason) for key, r in both.items()} == {
        key: (r.state, r.steps, r.reason) for key, r in alone.items()
    }
    assert batched.best_rate == plainly.best_rate
    assert batched.spared == plainly.spared == steps_spared(both.values()) > 0
    assert sum(run.state == "pruned" for run in both.values()) in (4, 6)


def test_those_that_stay_are_as_without_halving():
    grids = training().grid, replace(training().grid, halving=None)
    curves = []
    for grid in grids:
        runs: list[Run] = []
        job = Job("silu(x)", gated=False)
        train_candidate(training(grid=grid, at_once=10), job, runs.append)
        curves.append({(r.learning_rate, r.seed): r.curve for r in runs})
    for key, curve in curves[0].items():
        for own, other in zip(curve, curves[1][key], strict=False):
            # The blocks of a product depend on how many members share it: round-off, no more.
            assert (own.step, own.score) == (other.step, other.score)
            assert own.loss == pytest.approx(other.loss, rel=own.step * EPS)
            assert own.train_loss == pytest.approx(other.train_loss, rel=own.step * EPS)


def test_finalists_are_never_halved():
    runs: list[Run] = []
    again = Job("silu(x)", False, seeds=(5, 6, 7), rate=0.1)
    outcome = train_candidate(training(at_once=4), again, runs.append)
    assert (outcome.state, outcome.spared) == ("complete", 0)
    assert [run.state for run in runs] == ["complete"] * 3


@pytest.mark.slow
def test_on_digits_the_best_rate_is_mostly_that_of_whole_runs():
    same, shares = 0, list[float]()
    formulas = ("relu(x)", "silu(x)", "golu(x)", "tanh(x)", "softplus(x)")
    for formula in formulas:
        best = []
        for halving in (None, Halving()):
            grid = Grid(RATES, 0.01, (0, 1), halving=halving)
            runs: list[Run] = []
            how = Training("digits", HERE, {}, {}, None, grid, at_once=10)
            outcome = train_candidate(how, Job(formula, gated=False), runs.append)
            best.append(outcome.best_rate)
        same += best[0] == best[1]
        shares.append(outcome.spared / (outcome.spared + sum(run.steps for run in runs)))
    assert same >= len(formulas) - 1
    assert min(shares) > 0.15 and sum(shares) / len(shares) > 0.25


# --- in a space file and in a report -------------------------------------------------------------

SPACE = """
name: study
task: digits
baselines: [relu]
learning_rate: {grid: [0.001, 0.01, 0.1], default: 0.01}
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{keep: 0.4, rungs: 3}", Halving(0.4, 3)),
        ("{}", Halving()),
        ("on", Halving()),
        ("off", None),
        ("null", None),
    ],
)
def test_halving_in_a_space_file(text: str, expected: Halving | None, tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_text(SPACE, encoding="utf-8")
    without = load_space(path)
    space = load_space(path, [f"learning_rate.halving={text}"])
    assert (without.learning_rate.halving, space.learning_rate.halving) == (None, expected)
    same = space.definition() == without.definition()
    assert same == (expected is None)
    assert "halving" not in without.definition()["learning_rate"]  # older studies go on


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{keep: 1}", "learning_rate.halving.keep: expected a number > 0 and < 1, got 1"),
        ("{keep: 0}", "learning_rate.halving.keep: expected a number > 0, got 0"),
        ("{rungs: 0}", "learning_rate.halving.rungs: expected a whole number ≥ 1, got 0"),
        ("{rung: 2}", "unknown key 'learning_rate.halving.rung'; did you mean 'rungs'?"),
        ("2", "learning_rate.halving: expected a mapping of keys and values, got 2"),
    ],
)
def test_a_wrong_halving_is_told_in_one_line(text: str, said: str, tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_text(SPACE, encoding="utf-8")
    with pytest.raises(SpaceError) as caught:
        load_space(path, [f"learning_rate.halving={text}"])
    (line,) = caught.value.problems
    assert line.endswith(said)


def trial(runs: tuple[Run, ...], **more: Any) -> Trial:
    shared: dict[str, Any] = {"number": 0, "name": "", "expression": "silu(x)", "fingerprint": "f"}
    scored = {"score": 0.9, "best_rate": best_rate(runs, True, 0.01), "spared": steps_spared(runs)}
    shared |= {"origin": "search", "state": "complete", "runs": runs}
    return Trial(**(shared | scored | more))


def test_spared_steps_are_recorded_and_reported():
    one = trial(swept())
    assert trial_from_json(to_json(one)) == one
    assert "spared" not in "\n".join(notes([trial(swept(replace(GRID, halving=None)))]))
    assert spared_share([one]) == pytest.approx(160 / 400)
    assert "halving spared 40% of the steps" in notes([one])


def test_the_heatmap_shows_a_rate_that_left_as_pruned():
    baseline = trial(swept(), number=-1, origin="baseline", name="silu")
    info = heatmap_info([baseline], ReportSettings("study", default_rate=0.01, grid=RATES))
    assert info is not None
    cells = [cell_text(cell, info) for cell in info.rows[0].cells]
    assert [cells[0], cells[1], cells[4]] == ["2/2 pruned"] * 3
    assert "±" in cells[2] and "±" in cells[3]
