"""Sweeps over learning rates and seeds: which rate is best, what is added, what is not repeated."""

from __future__ import annotations

import math
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import TaskError
from search.records import Point, Run
from search.training.candidate import train_candidate
from search.training.gate import GATE_STEPS, gate_in_training
from search.training.job import Job, Training
from search.training.prepared import prepare
from search.training.rates import EXTENSIONS, Grid, best_rate, mean_scores, next_rate, why_diverged
from search.training.sweep import sweep

RATES = (0.001, 0.01, 0.1)
GRID = Grid(rates=RATES, default=0.01, seeds=(0, 1))
TOY = Path(__file__).parent


class Bench:
    """Runs whose score is a parabola in log10(rate) around `optimum`; notes which were begun."""

    def __init__(
        self, optimum: float, diverged: tuple[tuple[float, int], ...] = (), epochs: int = 3
    ):
        self.optimum, self.diverged, self.epochs = optimum, diverged, epochs
        self.begun: list[tuple[float, int]] = []
        self.steps: list[tuple[int, float, int]] = []

    def score(self, rate: float, seed: int) -> float:
        return 0.9 - 0.1 * math.log10(rate / self.optimum) ** 2 + 0.001 * seed

    def start(self, rate: float, seed: int) -> Generator[Point, None, Run]:
        self.begun.append((rate, seed))
        curve = []
        for epoch in range(self.epochs):
            if (rate, seed) in self.diverged and epoch == 1:
                return Run(rate, seed, "diverged", "step 7: loss is nan", curve=tuple(curve))
            score = self.score(rate, seed) * (epoch + 1) / self.epochs
            curve.append(Point(5 * (epoch + 1), 1.0, 1.0, score))
            self.steps.append((epoch, rate, seed))
            yield curve[-1]
        return Run(rate, seed, "complete", score=curve[-1].score, loss=1.0, curve=tuple(curve))


def run(rate: float, seed: int, score: float | None) -> Run:
    if score is None:
        return Run(rate, seed, "diverged", "step 3: loss is nan")
    return Run(rate, seed, "complete", score=score)


# --- the best rate -------------------------------------------------------------------------------


def test_the_best_rate_has_the_best_mean_and_not_the_best_run():
    runs = [run(0.01, 0, 0.99), run(0.01, 1, 0.80), run(0.1, 0, 0.91), run(0.1, 1, 0.92)]
    assert best_rate(runs, True, 0.01) == 0.1
    assert mean_scores(runs) == {0.01: pytest.approx(0.895), 0.1: pytest.approx(0.915)}
    assert best_rate(runs, False, 0.01) == 0.01


def test_a_rate_with_a_diverged_seed_is_not_eligible():
    runs = [run(0.01, 0, 0.7), run(0.01, 1, 0.7), run(0.1, 0, 0.99), run(0.1, 1, None)]
    assert best_rate(runs, True, 0.01) == 0.01
    assert 0.1 not in mean_scores(runs)


def test_a_rate_that_lacks_a_seed_is_not_eligible():
    runs = [run(0.01, 0, 0.7), run(0.01, 1, 0.7), run(0.1, 0, 0.99)]
    assert best_rate(runs, True, 0.01) == 0.01


@pytest.mark.parametrize(
    ("tied", "default", "expected"),
    [
        ((0.001, 0.01, 0.1), 0.01, 0.01),
        ((0.001, 0.1), 0.02, 0.1),
        ((0.001, 0.1), 0.01, 0.001),  # equally far: the smaller one
        ((0.1, 0.001), 0.01, 0.001),
    ],
)
def test_ties_go_to_the_rate_nearest_the_default(tied: tuple, default: float, expected: float):
    assert best_rate([run(rate, 0, 0.5) for rate in tied], True, default) == expected


def test_without_an_eligible_rate_the_candidate_has_diverged():
    runs = [run(rate, seed, None if seed else 0.9) for rate in RATES for seed in (0, 1)]
    assert best_rate(runs, True, 0.01) is None
    assert why_diverged(runs).endswith("0.001, seed 1: step 3: loss is nan")
    assert best_rate([], True, 0.01) is None


# --- extending the grid --------------------------------------------------------------------------


@given(
    st.lists(st.floats(1e-6, 10.0), min_size=2, max_size=8, unique=True).map(sorted),
    st.booleans(),
)
def test_an_added_rate_lies_beyond_the_edge_by_about_the_grids_ratio(rates: list, up: bool):
    edge = rates[-1] if up else rates[0]
    added = next_rate(rates, edge)
    assert added is not None
    ratio = math.log(rates[-1] / rates[0]) / (len(rates) - 1)
    step = math.log(added / edge) * (1 if up else -1)
    assert step > 0.49 * ratio
    assert abs(step - ratio) <= math.log(1.07) + 1e-9


@pytest.mark.parametrize(
    ("rates", "best", "expected"),
    [
        ((0.001, 0.003, 0.01, 0.03, 0.1), 0.1, 0.3),
        ((0.001, 0.003, 0.01, 0.03, 0.1), 0.001, 0.0003),
        ((0.1, 0.2, 0.4), 0.4, 0.8),
        ((0.1, 0.2, 0.4), 0.1, 0.05),
        ((0.001, 0.01, 0.1), 0.01, None),
        ((0.01,), 0.01, None),
        ((0.001, 0.01), None, None),
    ],
)
def test_the_added_rate_is_a_round_number(rates: tuple, best: float | None, expected: float | None):
    assert next_rate(rates, best) == expected


def test_a_best_rate_at_the_edge_extends_the_grid_until_it_is_inside():
    bench = Bench(optimum=1.0)
    runs = sweep(GRID, bench.start)
    assert sorted({r.learning_rate for r in runs}) == [*RATES, 1.0, 10.0]
    assert best_rate(runs, True, 0.01) == 1.0
    assert len(runs) == 2 * 5


def test_the_grid_is_extended_three_times_at_most():
    runs = sweep(GRID, Bench(optimum=1e-9).start)
    assert len({r.learning_rate for r in runs}) == len(RATES) + EXTENSIONS
    best = best_rate(runs, True, 0.01)
    assert best == pytest.approx(1e-6)
    assert best == min(r.learning_rate for r in runs)


def test_a_diverged_extension_puts_the_best_rate_inside():
    bench = Bench(optimum=1.0, diverged=((1.0, 1),))
    runs = sweep(GRID, bench.start)
    best = best_rate(runs, True, 0.01)
    assert best == 0.1
    assert max(r.learning_rate for r in runs) == 1.0
    assert len({r.learning_rate for r in runs}) == 4


def test_no_extension_unless_wanted():
    grid = Grid(rates=RATES, default=0.01, seeds=(0,), extend=False)
    runs = sweep(grid, Bench(optimum=100.0).start)
    assert len(runs) == 3
    assert best_rate(runs, True, 0.01) == max(r.learning_rate for r in runs)


def test_a_loss_is_minimised():
    bench = Bench(optimum=0.01)
    grid = Grid(rates=RATES, default=0.01, seeds=(0,), extend=False, maximize=False)
    assert best_rate(sweep(grid, bench.start), False, 0.01) in (0.001, 0.1)


# --- going on after a crash ----------------------------------------------------------------------


def test_finished_runs_are_not_repeated_and_the_result_is_the_same():
    whole = sweep(GRID, Bench(optimum=1.0).start)
    for cut in range(len(whole) + 1):
        bench = Bench(optimum=1.0)
        again = sweep(GRID, bench.start, finished=whole[:cut])
        assert again == whole
        assert bench.begun == [(r.learning_rate, r.seed) for r in whole[cut:]]


def test_every_run_is_reported_before_the_next_begins():
    bench, seen = Bench(optimum=0.01), []
    sweep(GRID, bench.start, on_run=lambda r: seen.append((r.seed, len(bench.begun))))
    assert [count for _, count in seen] == list(range(1, 7))


# --- in step -------------------------------------------------------------------------------------


def test_in_step_all_runs_advance_an_epoch_at_a_time():
    bench, told = Bench(optimum=0.01), []
    runs = sweep(GRID, bench.start, on_epoch=lambda e, value, points: told.append((e, value)))
    assert [epoch for epoch, _, _ in bench.steps] == [0] * 6 + [1] * 6 + [2] * 6
    assert runs == sweep(GRID, Bench(optimum=0.01).start)
    best = 0.9005
    assert told == [(e, pytest.approx(best * e / 3)) for e in (1, 2, 3)]


def test_in_step_a_rate_with_a_diverged_seed_has_no_value():
    told = []
    bench = Bench(optimum=0.01, diverged=((0.01, 1),))
    sweep(GRID, bench.start, on_epoch=lambda e, value, points: told.append((value, len(points))))
    assert told[0] == (pytest.approx(0.9005 / 3), 6)
    assert told[1] == (pytest.approx(0.8005 * 2 / 3), 5)


def test_in_step_a_stop_leaves_the_runs_where_they_are():
    bench = Bench(optimum=0.01)

    class EnoughError(Exception):
        pass

    def on_epoch(epoch: int, *_: object) -> None:
        if epoch == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        sweep(GRID, bench.start, on_epoch=on_epoch)
    assert max(epoch for epoch, _, _ in bench.steps) == 1


def test_in_step_finished_runs_count_at_every_epoch():
    whole = sweep(GRID, Bench(optimum=0.01).start)
    bench, told = Bench(optimum=0.01), []
    again = sweep(GRID, bench.start, finished=whole[:5], on_epoch=lambda *t: told.append(t[1]))
    assert again == whole
    assert bench.begun == [(0.1, 1)]
    assert told == [pytest.approx(0.9005 * e / 3) for e in (1, 2, 3)]


# --- the training gate ---------------------------------------------------------------------------


def test_the_gate_passes_what_learns_at_any_rate_and_names_what_does_not():
    from search.tasks.task import Recipe

    losses = {0.01: 2.4, 0.001: 1.9, 0.1: math.inf}
    tried = []

    def start(recipe: Recipe, rate: float) -> Run:
        tried.append((recipe.max_steps, rate))
        loss = losses[rate]
        if not math.isfinite(loss):
            return Run(rate, 0, "diverged", "step 4: loss is inf")
        return Run(rate, 0, "complete", score=0.1, loss=loss)

    assert gate_in_training(start, Recipe(), (0.01, 0.001, 0.1), constant=2.3) == ""
    assert tried == [(GATE_STEPS, 0.01), (GATE_STEPS, 0.001)]
    reason = gate_in_training(start, Recipe(max_steps=50), (0.1, 0.01), constant=1.0)
    assert reason == "no better than a constant (1) after 50 steps: step 4: loss is inf at rate 0.1"


# --- a whole candidate on the toy task -----------------------------------------------------------


def training(**changes: object) -> Training:
    values = {
        "task": "toy_task.py",
        "folder": TOY,
        "options": {},
        "recipe": {},
        "data_root": None,
        "grid": Grid(rates=(0.03, 0.3), default=0.3, seeds=(0, 1), extend=False),
    }
    return Training(**(values | changes))  # type: ignore[arg-type]


def test_a_candidate_trains_and_says_what_it_cost():
    runs: list[Run] = []
    outcome = train_candidate(
        training(), Job("x * sigmoid(b * x) where b = 1 per channel", gated=True), runs.append
    )
    assert (outcome.state, outcome.reason) == ("complete", "")
    assert outcome.best_rate == best_rate(runs, True, 0.3)
    assert outcome.score == mean_scores(runs)[outcome.best_rate or 0]
    assert outcome.parameters == 16
    assert outcome.cost is not None and outcome.cost > 0
    assert outcome.seconds > sum(r.seconds for r in runs) > 0
    assert outcome.environment["torch"]
    assert len(runs) == 4


def test_a_candidate_that_diverges_everywhere_says_so():
    grid = Grid(rates=(1e6, 1e7), default=1e6, seeds=(0,), extend=False)
    outcome = train_candidate(training(grid=grid), Job("x ** 3", gated=False))
    assert outcome.state == "diverged"
    assert "no learning rate kept every seed finite; 1e+06, seed 0: step" in outcome.reason
    assert outcome.score is None and outcome.cost is None


def test_an_error_in_a_candidate_is_its_outcome():
    outcome = train_candidate(training(), Job("u * sigmoid(x)", gated=False))
    assert outcome.state == "failed"
    assert "expects x and u" in outcome.reason and "\n" not in outcome.reason


@pytest.mark.parametrize("kernel", ["torch", "composed"])
def test_a_kernel_that_is_asked_for_trains_to_the_same_result_and_is_remembered(kernel: str):
    job = Job("x * sigmoid(b * x) where b = 1 per channel", gated=True)
    usual, asked = (train_candidate(training(kernel=each), job) for each in ("auto", kernel))
    assert asked.state == "complete" and asked.score == pytest.approx(usual.score, abs=0.02)
    assert prepare(training(kernel=kernel)).maker("relu(x)").keywords == {"kernel": kernel}
    assert asked.environment["kernel"] == kernel and "kernel" not in usual.environment


def test_an_error_of_the_task_is_no_candidates(tmp_path: Path):
    (tmp_path / "task.py").write_text(
        "from search.tasks.task import Task\n"
        "def load(data_root, **options): return {}['labels']\n"
        "TASK = Task(name='task', load=load, build=lambda make, splits, **options: None)\n",
        encoding="utf-8",
    )
    with pytest.raises(TaskError, match=r"load\(\) failed: KeyError: 'labels' \(task.py:2\)"):
        train_candidate(training(task="task.py", folder=tmp_path), Job("relu(x)", gated=False))


def test_in_step_the_last_epoch_is_not_told():
    told: list[int] = []
    job = Job("relu(x)", gated=False)
    train_candidate(training(in_step=True), job, on_epoch=lambda e, *_: told.append(e))
    assert told == [1, 2]  # of three
