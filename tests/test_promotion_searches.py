"""Searches with rungs, killed ones among them."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search.proposals import Proposals
from search.records import Point, Run, Trial
from search.run import main
from search.space.settings import Space
from search.study import Launch, Study, open_study, read_trials
from search.training.candidate import train_candidate
from search.training.job import Job
from search.training.rates import Grid
from tests.promotion_cases import bare, make_space, training

# --- a study that is killed -----------------------------------------------------------------------


RUNGS = (2, 4)


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
    for trial in read_trials(tmp_path / "results"):
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


# --- on Ray ---------------------------------------------------------------------------------------


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
