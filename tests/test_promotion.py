"""Rungs with promotion: who goes on, in numbers by hand, in a study that is killed, on real Ray."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search.errors import SpaceError
from search.promotion import promotable, rung_epochs, spared_by_promotion
from search.proposals import Proposals
from search.records import Point, Run, Trial
from search.run import main
from search.space.settings import Promotion, Space
from search.space.space import load_space
from search.study import Launch, Study, open_study, read_trials
from search.training.candidate import Job, Training, train_candidate
from search.training.checkpoints import Keeping, Paused
from search.training.sweep import Grid

HERE = Path(__file__).parent

# --- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "eta", "epochs", "expected"),
    [
        (0.25, 2, 20, (5, 10)),
        (0.25, 2, 3, (1, 2)),
        (0.25, 2, 1, ()),
        (0.1, 3, 30, (3, 9, 27)),
        (0.01, 2, 4, (1, 2, 3)),  # rungs that fall together count once
        (0.9, 2, 100, (90,)),
        (0.9, 2, 5, ()),  # it falls on the end
    ],
)
def test_rungs_are_epochs_of_the_whole_run(
    first: float, eta: float, epochs: int, expected: tuple[int, ...]
):
    assert rung_epochs(Promotion(first, eta), epochs) == expected


def numbers(*args: Any, **more: Any) -> list[int]:
    return [place.number for place in promotable(*args, **more)]


def test_the_best_of_those_that_reached_a_rung_go_on():
    values = {1: 0.5, 2: 0.9, 3: 0.7}
    assert numbers([values], [[]], 2, True) == [2]  # one of three
    assert numbers([values], [[]], 2, False) == [1]
    assert numbers([values | {4: 0.8}], [[]], 2, True) == [2, 4]
    assert numbers([values | {4: 0.8}], [[2]], 2, True) == [4]
    assert numbers([values | {4: 0.8}], [[2]], 3, True) == []
    assert numbers([{1: 0.5}], [[]], 2, True) == []  # nobody is half of one
    assert numbers([{}], [[]], 2, True) == []
    assert numbers([], [], 2, True) == []


def test_one_that_was_promoted_stays_promoted_and_takes_no_other_place():
    """Asynchronous: 1 was the best of two when it went on, and is the worst of four now."""
    values = {1: 0.1, 5: 0.05, 2: 0.9, 3: 0.8}
    assert numbers([values], [[1]], 2, True) == [2, 3]


def test_the_highest_rung_comes_first():
    low, high = {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.6}, {1: 0.91, 2: 0.95}
    assert numbers([low, high], [[1, 2], []], 2, True) == [2]
    assert numbers([{**low, 5: 0.99, 6: 0.1}, high], [[1, 2], []], 2, True) == [2, 5]


def test_equals_go_in_the_order_of_their_numbers():
    assert numbers([dict.fromkeys((4, 3, 9, 7), 0.5)], [[]], 2, True) == [3, 4]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("maximize", [True, False])
def test_a_value_that_is_not_finite_is_the_worst_and_goes_nowhere(bad: float, maximize: bool):
    assert numbers([{1: bad, 2: 0.3}], [[]], 2, maximize) == [2]
    assert numbers([{1: bad, 2: bad}], [[]], 2, maximize) == []


def test_baselines_count_among_those_who_reached_it():
    values = {-1: 0.9, -2: 0.8, 1: 0.85, 2: 0.7}
    assert numbers([values], [[-1, -2]], 2, True) == [1]
    assert numbers([values | {1: 0.75}], [[-1, -2]], 2, True) == []


def test_the_share_of_steps_that_is_spared():
    def trial(state: str, reason: str, *runs: Run) -> Trial:
        return Trial(1, "search", "", "x", "", state, reason, runs=runs)  # pyright: ignore

    whole = trial(
        "complete", "", Run(0.1, 0, "complete", steps=8), Run(0.3, 0, "complete", steps=8)
    )
    left = Run(0.1, 0, "pruned", steps=2), Run(0.3, 0, "diverged", steps=1)
    unpromoted = trial("pruned", "not promoted at epoch 1: rank 2 of 2", *left)
    assert spared_by_promotion([whole, unpromoted]) == 6 / (6 + 16 + 3)
    assert spared_by_promotion([whole]) is None
    assert spared_by_promotion([whole, trial("failed", "it broke")]) is None


# --- a candidate ---------------------------------------------------------------------------------


def training(folder: Path, **changes: Any) -> Training:
    shared: dict[str, Any] = {
        "task": str(HERE / "toy_task.py"),
        "folder": HERE,
        "options": {},
        "recipe": {"epochs": 4},
        "data_root": None,
        "grid": Grid((0.03, 0.3), 0.3, (0, 1)),
        "in_step": True,
        "checkpoints": Keeping(folder),
        "promotion": Promotion(),
    }
    return Training(**{**shared, **changes})


def bare(runs: list[Run]) -> list[Run]:
    """In order, without the time that they took."""
    found = [replace(run, seconds=0.0) for run in runs]
    return sorted(found, key=lambda run: (run.learning_rate, run.seed))


@pytest.mark.parametrize("at_once", [1, 3, 4])
def test_a_candidate_waits_at_every_rung_and_goes_on_with_the_same_numbers(
    tmp_path: Path, at_once: int
):
    how = training(tmp_path, at_once=at_once)
    whole: list[Run] = []
    train_candidate(
        replace(how, promotion=None, checkpoints=None), Job("silu(x)", True), whole.append
    )
    runs: list[Run] = []
    rungs: list[tuple[int, float]] = []
    heard: list[int] = []
    job = Job("silu(x)", True, checkpoints="trial_0")

    def leg(job: Job) -> str:
        outcome = train_candidate(
            how,
            job,
            runs.append,
            lambda epoch, *_: heard.append(epoch),
            on_rung=lambda epoch, value: rungs.append((epoch, value)),
        )
        return outcome.state

    for promoted in (0, 1):
        with pytest.raises(Paused):
            leg(replace(job, promoted=promoted))
        assert not runs
    assert leg(replace(job, promoted=2)) == "complete"
    assert bare(runs) == bare(whole)
    assert [epoch for epoch, _ in rungs] == [1, 1, 2, 1, 2]
    assert len(set(rungs)) == 2  # every leg had the same values
    assert heard == [1, 1, 2, 1, 2, 3]


def test_a_baseline_waits_nowhere(tmp_path: Path):
    rungs: list[int] = []
    outcome = train_candidate(
        training(tmp_path),
        Job("relu(x)", False, checkpoints="trial_0"),
        on_rung=lambda epoch, value: rungs.append(epoch),
    )
    assert outcome.state == "complete" and rungs == [1, 2]


def test_without_its_checkpoints_it_is_trained_from_the_start_and_says_so(tmp_path: Path):
    how, lines = training(tmp_path), list[str]()
    runs: list[Run] = []
    job = Job("silu(x)", True, checkpoints="trial_0", promoted=2)
    assert train_candidate(how, job, runs.append, say=lines.append).state == "complete"
    assert lines == ["its checkpoints are gone; it is trained from the start again"]
    whole: list[Run] = []
    train_candidate(replace(how, promotion=None), replace(job, promoted=0), whole.append)
    assert bare(runs) == bare(whole)


# --- a study that is killed ----------------------------------------------------------------------

YAML = """
name: toy
task: {task}
recipe: {{epochs: 8}}
activation:
  F: [x * G, x * G + 0.1 * x, sin(x)]
  G: [sigmoid(ARG), gompertz(ARG)]
  ARG: [x, "s * x where s in log[0.5, 2]"]
baselines: [relu, silu]
learning_rate: {{grid: [0.1], default: 0.1}}
seeds: 1
gates: false
search: {{sampler: random, trials: {trials}, seed: 3, promotion: {{first: 0.25, eta: 2}}}}
"""
RUNGS = (2, 4)


def make_space(folder: Path, trials: int = 12, *settings: str) -> Space:
    path = folder / "space.yaml"
    path.write_text(YAML.format(task=HERE / "toy_task.py", trials=trials), encoding="utf-8")
    return load_space(path, settings)


class KilledError(Exception):
    """The driver is gone: nothing was closed, told or released."""


class Driver:
    """Trains by numbers: the value of a candidate is a draw of its own, the same at every epoch."""

    def __init__(self, space: Space, kills: random.Random | None):
        folder = space.source.parent / "results"
        folder.mkdir(exist_ok=True)
        self.study = open_study(folder, space, maximize=True)
        self.proposals = Proposals(self.study, None, math.inf)
        self.kills = kills
        self.busy: list[Launch] = []
        self.given_up: list[Trial] = []

    def search(self) -> None:
        while not self.proposals.ended or self.busy:
            while len(self.busy) < 3 and (launch := self.proposals.next()) is not None:
                self.busy.append(launch)
            self.given_up += self.proposals.given_up()
            if self.busy:
                self.train(self.busy.pop(0))

    def train(self, launch: Launch) -> None:
        self.study.begin(launch.number)
        value = random.Random(launch.expression).random()
        for epoch in range(launch.told + 1, 9):
            self.maybe_killed()
            point = Point(8 * epoch, 0.5, 0.4, value)
            if epoch < 8:
                self.study.add_epoch(launch.number, epoch, value, {(0.1, 0): point})
            if epoch in RUNGS and self.study.reach(launch, epoch, value, 1.0):
                return
        curve = tuple(Point(8 * epoch, 0.5, 0.4, value) for epoch in range(1, 9))
        run = Run(0.1, 0, "complete", score=value, curve=curve, steps=64)
        self.study.add_run(launch.number, run)
        self.maybe_killed()
        self.study.finish(launch.number, state="complete", score=value, best_rate=0.1, cost=1.0)

    def maybe_killed(self) -> None:
        if self.kills is not None and self.kills.random() < 0.07:
            raise KilledError


def searched(space: Space, seed: int | None = None) -> tuple[Study, int]:
    """The study at its end, and how often its driver was killed."""
    kills = 0
    chance = None if seed is None else random.Random(seed)
    while True:
        driver = Driver(space, chance)
        try:
            driver.search()
        except KilledError:
            kills += 1
            continue
        return driver.study, kills


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_every_candidate_has_one_end_whenever_the_driver_is_killed(
    tmp_path: Path, seed: int | None
):
    space = make_space(tmp_path)
    study, kills = searched(space, seed)
    assert kills >= (0 if seed is None else 3)
    trials = [t for t in read_trials(tmp_path / "results") if t.state != "duplicate"]
    assert len(trials) == 14 and {t.state for t in trials} == {"complete", "pruned"}
    assert study.is_complete() and not study.ladder.waiting
    assert {t.state for t in trials if t.origin == "baseline"} == {"complete"}
    assert len({t.expression for t in trials}) == 14
    pruned = [t for t in trials if t.state == "pruned"]
    for trial in pruned:
        (run,) = trial.runs
        words = trial.reason.split()
        epoch, rank, of = int(words[4].rstrip(":")), int(words[6]), int(words[8])
        assert trial.reason == f"not promoted at epoch {epoch}: rank {rank} of {of}"
        assert epoch in RUNGS and rank > of // 2
        assert (run.state, len(run.curve), run.steps) == ("pruned", epoch, 8 * epoch)
        assert trial.score is None and trial.seconds == 1.0
    candidates = [t for t in trials if t.origin == "search"]
    best = max(candidates, key=lambda t: random.Random(t.expression).random())
    assert best.state == "complete"
    assert len(pruned) >= 5
    assert not study.checkpoints()


@pytest.mark.parametrize("seed", [None, 1])
def test_the_decisions_can_be_replayed(tmp_path: Path, seed: int | None):
    study, _ = searched(make_space(tmp_path), seed)
    decided: dict[int, tuple[int, str, dict[str, Any]]] = {}
    told: list[int] = []
    for _, one in study._database.studies:
        for frozen in one.get_trials():
            if frozen.user_attrs.get("continued"):
                continue
            number = frozen.number if one is study._database.search else -1 - frozen.number
            for key, kept in frozen.user_attrs.items():
                if key.startswith(("rung ", "promoted ", "unpromoted")):
                    told.append(kept["order"])
                    decided[kept["order"]] = number, key, kept
    assert len(told) == len(decided)  # no two at once
    reached: dict[int, dict[int, float]] = {epoch: {} for epoch in RUNGS}
    baselines = {t.number for t in study.trials.values() if t.origin == "baseline"}
    for number, key, kept in (decided[order] for order in sorted(decided)):
        what, _, epoch = key.partition(" ")
        if what == "rung":
            reached[int(epoch)][number] = kept["value"]
            assert kept["of"] >= 1
        elif what == "promoted" and number not in baselines and seed is None:
            values = reached[int(epoch)]
            better = sum(value > values[number] for value in values.values())
            assert (kept["rank"], kept["of"]) == (better + 1, len(values))
            assert kept["rank"] <= len(values) // 2


def test_optuna_hears_of_the_last_value(tmp_path: Path):
    study, _ = searched(make_space(tmp_path))
    frozen = {t.number: t for t in study._database.search.get_trials()}
    for trial in study.trials.values():
        if trial.state == "pruned":
            told = frozen[trial.number]
            assert told.state == TrialState.PRUNED
            assert told.value == random.Random(trial.expression).random()
            assert len(told.intermediate_values) == len(trial.runs[0].curve)


def test_those_who_wait_are_counted_in_the_budget_and_wait_on_after_a_stop(tmp_path: Path):
    space = make_space(tmp_path, trials=3)
    driver = Driver(space, None)
    waiting = []
    while len(waiting) < 2:
        launch = driver.proposals.next()
        assert launch is not None
        driver.train(launch)
        waiting = list(driver.study.ladder.waiting)
    driver.study.release()  # Ctrl-C
    study = open_study(tmp_path / "results", space, maximize=True)
    assert sorted(study.ladder.waiting) == sorted(waiting)
    assert len(study.running("search")) == 2 and not study.active() and not study.is_complete()
    assert study.checkpoints() == {f"trial_{number}" for number in waiting}
    assert len(searched(space)[0].counts()) >= 1


# --- what cannot be had --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["search.promotion={first: 1}"], "search.promotion.first: expected a share of a run"),
        (["search.promotion={eta: 1}"], "search.promotion.eta: expected a number > 1"),
        (["search.promotion={frist: 0.5}"], "did you mean 'first'?"),
        (["search.promotion=[1]"], "search.promotion: expected a mapping"),
        (["search.stopping=asha"], "expected it or stopping: asha, not both"),
        (["search.objectives=[score, cost]"], "rungs compare one objective"),
        (["checkpoints=off"], "checkpoints: expected other than off"),
        (["checkpoints={steps: 0}"], "checkpoints.steps: expected a whole number ≥ 1"),
        (["checkpoints={seconds: null}"], "seconds or steps between two of them"),
        (["checkpoints={folder: 's3://bucket/x'}"], "a folder that all machines share"),
        (["checkpoints=sometimes"], "checkpoints: expected auto, off"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(tmp_path: Path, settings: list[str], told: str):
    with pytest.raises(SpaceError) as caught:
        make_space(tmp_path, 3, *settings)
    assert len(caught.value.problems) == 1 and told in caught.value.problems[0]


def test_neither_key_changes_an_older_studys_definition(tmp_path: Path):
    space = make_space(tmp_path, 3, "search.promotion=off", "checkpoints={steps: 5}")
    definition = space.definition()
    assert "promotion" not in definition["search"] and "checkpoints" not in definition
    assert make_space(tmp_path, 3).definition()["search"]["promotion"] == {
        "first": 0.25,
        "eta": 2.0,
    }


# --- on Ray --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_runs")
def test_a_search_promotes_and_says_what_it_spared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    make_space(tmp_path, 6)
    arguments = [str(tmp_path / "space.yaml"), "--results", str(tmp_path), "--set", "batching=off"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "of the steps" in out and "rungs spared" in out
    trials = [t for t in read_trials(tmp_path / "toy") if t.state != "duplicate"]
    states = {origin: [t.state for t in trials if t.origin == origin] for origin in STATES}
    assert states["baseline"] == ["complete"] * 2 and len(states["search"]) == 6
    assert {"complete", "pruned"} == set(states["search"])
    for trial in trials:
        whole: list[Run] = []
        job = Job(trial.expression, False)
        how = training(tmp_path, recipe={"epochs": 8}, grid=Grid((0.1,), 0.1, (0,)), promotion=None)
        train_candidate(replace(how, checkpoints=None, in_step=False), job, whole.append)
        for mine, other in zip(bare(list(trial.runs)), bare(whole), strict=True):
            assert mine.curve == other.curve[: len(mine.curve)]
            assert mine.state == "pruned" or mine == other
    assert not (tmp_path / "toy" / "checkpoints").exists()


STATES = ("baseline", "search")
