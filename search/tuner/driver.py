"""The driver: what Tune asks for candidates and tells results, and where a search may be left."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from search.database.storage import same_file
from search.errors import SearchError, StudyError, TaskError
from search.progress import Display, Goal, standing_of
from search.proposals import Proposals
from search.records import Point, Trial, run_from_json, to_json
from search.stopping import Stopped
from search.study import Launch, Study
from search.training.job import Outcome, Training
from search.tuner.deaths import Silence, death, patience
from search.tuner.pausing import Pausing

AHEAD = 0.01
"""The share of the slots' time from which a candidate is proposed ahead. It would be spent waiting
for a proposal; but what is proposed ahead knows one result less."""
SOON = 1.0
"""Seconds in which a worker says that it has begun, and is not to wait for its answer."""
STILLBORN = 6
"""So many workers that die in a row before they begin end a search."""


class Unsaved:
    """Tune pickles all it is given, for a restore that we never make: nothing is saved of this."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Driver(Unsaved, Searcher):
    """What Tune asks for candidates and tells results; it asks and tells the study."""

    def __init__(
        self,
        study: Study,
        training: Training,
        proposals: Proposals,
        goal: Goal,
        display: Display,
        asked: list[int],
        capacity: Callable[[], int] = lambda: sys.maxsize,
    ):
        super().__init__()
        self.study = study
        self.training = training
        self.proposals = proposals
        self.goal = goal
        self.display = display
        self.asked = asked
        self.capacity = capacity
        self.live: dict[str, float] = {}
        """What Tune has of ours, and when it was given that."""
        self.ready: Launch | None = None
        """Proposed ahead: in the study it runs as those that wait for a worker do, and a driver
        that is killed lets it go on like them."""
        self.fruitless = False
        """Whether nothing could be proposed ahead since a trial has ended last."""
        self.proposing: tuple[int, float] = 0, 0.0
        """How many proposals were made, and their seconds."""
        self.launched: dict[str, Launch] = {}
        self.heard: dict[str, int] = {}
        self.epochs: dict[str, int] = {}
        self.silence = Silence()
        self.stillborn = 0
        """Workers in a row that died before they began."""
        self.pausing = Pausing(training.checkpoints, study)
        self.there = same_file(study.place)
        self.error: SearchError | None = None
        self.show()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.asked:
            return None
        if not self._has_room():
            self._look_ahead()
            return Searcher.FINISHED if self.error else None
        launch, self.ready = self.ready or self._propose(), None
        if launch is None:
            return Searcher.FINISHED if self.proposals.ended or self.error else None
        self.live[trial_id] = time.monotonic()
        self.launched[trial_id] = launch
        self.show()
        return {
            "expression": launch.expression,
            # Neither is gated or stopped early.
            "baseline": launch.origin in ("baseline", "finalist"),
            "again": json.dumps(
                [launch.seeds, launch.rate, launch.budget, launch.task, launch.rates]
            ),
            "runs": json.dumps([to_json(run) for run in launch.runs]),
            "alone": launch.alone,
            "checkpoints": launch.checkpoints,
            "promoted": launch.promoted,
            "told": launch.told,
        }

    def _propose(self) -> Launch | None:
        began = time.monotonic()
        launch = self._safely(self.proposals.next)
        for ended in self.proposals.given_up():
            self.show(ended)
        if launch is not None:
            proposals, seconds = self.proposing
            self.proposing = proposals + 1, seconds + time.monotonic() - began
        return launch

    def _look_ahead(self) -> None:
        """Propose what the next free slot will train, once nobody waits for an answer."""
        now = time.monotonic()
        starting = any(not self.heard.get(t) and now - at < SOON for t, at in self.live.items())
        if self.ready is None and not self.fruitless and not starting and self._pays():
            self.ready = self._propose()
            self.fruitless = self.ready is None

    def _pays(self) -> bool:
        """Whether slots that wait for proposals may waste more than `AHEAD` of their time."""
        (proposals, asking), (trials, training) = self.proposing, self.study.tally.took
        if not trials or not proposals:
            return True
        return asking / proposals * len(self.live) > AHEAD * training / trials

    def _has_room(self) -> bool:
        """Whether one more trial may be under way; Tune's own limit cannot follow a cluster."""
        room = self._safely(self.capacity) or 0
        if room and room != self.goal.concurrent:
            self.goal = replace(self.goal, concurrent=room)
        return len(self.live) < room

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._safely(lambda: self._hear(trial_id, result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self.live.pop(trial_id, None)
        self.fruitless = False
        if not error:  # of an error `on_error` hears, with its text
            self._safely(lambda: self._ended(trial_id, result or {}))

    def on_error(self, trial_id: str, told: str) -> None:
        """A worker broke down; `told` is what Ray says of it."""
        self._safely(lambda: self._broke_down(trial_id, told))

    def _broke_down(self, trial_id: str, told: str) -> None:
        found = death(told)
        if found.cause is None:
            self._finish(trial_id, Outcome("failed", found.reason))
        elif (launch := self._gone(trial_id)) is not None:
            if found.cause == "worker" and not self.heard.get(trial_id):
                self._count_stillborn(found.reason)
            ended = self.study.lose(launch.number, found.cause, found.reason)
            if ended is None:
                self.display.say(f"{launch.expression}: {found.reason}; it is tried again")
            else:
                self.pausing.ended(launch.checkpoints)
            self.show(ended)

    def _count_stillborn(self, reason: str) -> None:
        """No candidate is to blame for a worker that never began, and the next one may; a machine
        without the packages lets none."""
        self.stillborn += 1
        if self.stillborn >= STILLBORN:
            raise StudyError(
                f"workers die before they begin, {self.stillborn} in a row; the last one: {reason}"
            )

    def hanging(self) -> list[str]:
        """The trials that are out of time, which fail by that; their processes are to be ended."""
        late = self.silence.too_long(time.monotonic())
        for trial_id in late:
            allowed = self.silence.allowed[trial_id]
            limit = f"timeout: {self.study.space.timeout:g} s a run"
            reason = f"no run ended within {allowed:g} s ({limit})"
            self._safely(lambda: self._finish(trial_id, Outcome("failed", reason)))  # noqa: B023
        return late

    def _safely(self, act: Callable[[], Any]) -> Any:
        """Act; an error is kept, and raised between two steps of Tune (`check`): raised in here,
        Tune would take it for an error of the trial."""
        if self.error is not None:
            return None
        try:
            with self.study.storage_errors():
                return act()
        except SearchError as error:
            self.error = error
        except Exception as error:
            told = traceback.format_exception_only(error)[-1].strip()
            self.error = StudyError(f"{self.study.name}: cannot go on: {told}")
            self.error.__cause__ = error
        return None

    def check(self) -> None:
        """Raises what ends the search."""
        if self.error is not None:
            raise self.error
        if not self.there():
            told = "was removed or replaced while the search ran; expected it to stay"
            raise StudyError(f"{self.study.place}: {told}")
        if self.asked and self.pausing.over(self.launched):
            raise Stopped(self.asked[0])

    def _hear(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Take a message once: Tune repeats the last one when a trial ends."""
        number, text = result.get("number", 0), result.get("message")
        if text is None or number <= self.heard.get(trial_id, 0) or trial_id not in self.launched:
            return
        self.heard[trial_id] = number
        launch, message = self.launched[trial_id], json.loads(text)
        trial, timeout = launch.number, self.study.space.timeout
        self.silence.broken(trial_id, patience(timeout, self.training, launch))
        if "begun" in message:
            self.stillborn = 0
            self.study.begin(trial)
        elif "runs" in message:
            self.study.add_runs(trial, [run_from_json(run) for run in message["runs"]])
        elif "points" in message:
            self.epochs[trial_id] = result["epoch"]
            points = {(rate, seed): Point(**point) for rate, seed, point in message["points"]}
            self.study.add_epoch(trial, result["epoch"], result["value"], points)
        elif "say" in message:
            self.display.say(f"{launch.expression}: {message['say']}")
        elif "rung" in message:
            spent = launch.seconds + message["seconds"]
            if self.study.reach(launch, message["rung"], result["value"], spent):
                self._gone(trial_id)
        elif "paused" in message:
            self._gone(trial_id)
        elif "outcome" in message:
            self._finish(trial_id, Outcome(**message["outcome"]))
        else:
            raise TaskError(*message["stop"])

    def _ended(self, trial_id: str, result: Mapping[str, Any]) -> None:
        self._hear(trial_id, result)
        launch = self._gone(trial_id)
        if launch is not None:  # no outcome came: a scheduler stopped it
            ended = self.study.prune(launch.number, self.epochs.get(trial_id, 0))
            self.pausing.ended(launch.checkpoints)
            self.show(ended)

    def _finish(self, trial_id: str, outcome: Outcome) -> None:
        launch = self._gone(trial_id)
        if launch is not None:
            seconds = launch.seconds + outcome.seconds
            ended = self.study.finish(launch.number, **asdict(replace(outcome, seconds=seconds)))
            self.pausing.ended(launch.checkpoints)
            self.show(ended)

    def _gone(self, trial_id: str) -> Launch | None:
        """What was launched, once: nothing more is heard of it."""
        self.silence.ended(trial_id)
        return self.launched.pop(trial_id, None)

    def show(self, ended: Trial | None = None) -> None:
        """Show where the search stands."""
        now = standing_of(self.study.tally, self.goal)
        self.display.show(replace(now, running=now.running - (self.ready is not None)), ended)

    def save_to_dir(self, *_: Any, **__: Any) -> None:
        """Nothing: the study is what is kept."""


class Check(Unsaved, tune.Stopper):
    """Called between two steps of Tune: where a search may be left.

    settle: sees to it that the working directory is there (`Origin.settle`).
    """

    def __init__(self, driver: Driver, settle: Callable[[], None]):
        self.driver = driver
        self.settle = settle

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self.settle()
        self.driver.check()
        return False


class Workers(Unsaved, tune.Callback):
    """Tells the driver what broke in a worker, and ends those that hang."""

    def __init__(self, driver: Driver):
        self.driver = driver
        self.begun: dict[str, Any] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.begun[trial.trial_id] = trial

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for trial_id in self.driver.hanging():
            actor = self.begun[trial_id].temporary_state.ray_actor
            if actor is not None:
                ray.kill(actor)  # also where it is stuck in C code and holds Python's lock

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.begun.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.begun.pop(trial.trial_id, None)
        # Tune's own readers look in the storage, where nothing is copied to.
        path = Path(trial.error_file or "")
        self.driver.on_error(trial.trial_id, _read(path))


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
