"""The driver: what Tune asks for candidates and tells results, and where a search may be left."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from search.errors import SearchError, StudyError, TaskError
from search.progress import Display, Goal, standing
from search.proposals import Proposals
from search.records import Point, Trial, run_from_json, to_json
from search.stopping import Stopped
from search.study import Launch, Study
from search.training.candidate import Outcome


class Unsaved:
    """Tune pickles all it is given, for a restore that we never make: nothing is saved of this."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Driver(Unsaved, Searcher):
    """What Tune asks for candidates and tells results; it asks and tells the study."""

    def __init__(
        self,
        study: Study,
        proposals: Proposals,
        goal: Goal,
        display: Display,
        asked: list[int],
        capacity: Callable[[], int] = lambda: sys.maxsize,
    ):
        super().__init__()
        self.study = study
        self.proposals = proposals
        self.goal = goal
        self.display = display
        self.asked = asked
        self.capacity = capacity
        self.live: set[str] = set()
        self.launched: dict[str, Launch] = {}
        self.heard: dict[str, int] = {}
        self.epochs: dict[str, int] = {}
        self.error: SearchError | None = None
        self.show()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        launch = self._safely(self.proposals.next) if self._has_room() else None
        if launch is None:
            return Searcher.FINISHED if self.proposals.ended or self.error else None
        self.live.add(trial_id)
        self.launched[trial_id] = launch
        self.show()
        return {
            "expression": launch.expression,
            # Neither is gated or stopped early.
            "baseline": launch.origin in ("baseline", "finalist"),
            "again": json.dumps([launch.seeds, launch.rate, launch.budget, launch.task]),
            "runs": json.dumps([to_json(run) for run in launch.runs]),
        }

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
        self.live.discard(trial_id)
        if not error:  # of an error `on_error` hears, with its text
            self._safely(lambda: self._ended(trial_id, result or {}))

    def on_error(self, trial_id: str, reason: str) -> None:
        """A worker broke down."""
        self._safely(lambda: self._finish(trial_id, Outcome("failed", reason)))

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
        if self.asked:
            raise Stopped(self.asked[0])

    def _hear(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Take a message once: Tune repeats the last one when a trial ends."""
        number, text = result.get("number", 0), result.get("message")
        if text is None or number <= self.heard.get(trial_id, 0) or trial_id not in self.launched:
            return
        self.heard[trial_id] = number
        trial, message = self.launched[trial_id].number, json.loads(text)
        if "begun" in message:
            self.study.begin(trial)
        elif "run" in message:
            self.study.add_run(trial, run_from_json(message["run"]))
        elif "points" in message:
            self.epochs[trial_id] = result["epoch"]
            points = {(rate, seed): Point(**point) for rate, seed, point in message["points"]}
            self.study.add_epoch(trial, result["epoch"], result["value"], points)
        elif "outcome" in message:
            self._finish(trial_id, Outcome(**message["outcome"]))
        else:
            raise TaskError(*message["stop"])

    def _ended(self, trial_id: str, result: Mapping[str, Any]) -> None:
        self._hear(trial_id, result)
        launch = self.launched.pop(trial_id, None)
        if launch is not None:  # no outcome came: a scheduler stopped it
            self.show(self.study.prune(launch.number, self.epochs.get(trial_id, 0)))

    def _finish(self, trial_id: str, outcome: Outcome) -> None:
        launch = self.launched.pop(trial_id, None)
        if launch is not None:
            self.show(self.study.finish(launch.number, **asdict(outcome)))

    def show(self, ended: Trial | None = None) -> None:
        """Show where the search stands."""
        self.display.show(standing(self.study.trials.values(), self.goal), ended)

    def save_to_dir(self, *_: Any, **__: Any) -> None:
        """Nothing: the study is what is kept."""


class Check(Unsaved, tune.Stopper):
    """Called between two steps of Tune: where a search may be left."""

    def __init__(self, driver: Driver):
        self.driver = driver

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self.driver.check()
        return False


class Errors(Unsaved, tune.Callback):
    """Tells the driver what broke in a worker."""

    def __init__(self, driver: Driver):
        self.driver = driver

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # Tune's own readers look in the storage, where nothing is copied to.
        path = Path(trial.error_file or "")
        lines = path.read_text(errors="replace").split("\n") if path.is_file() else []
        told = [line.strip() for line in lines if line.strip()]
        self.driver.on_error(trial.trial_id, told[-1][:200] if told else "the worker died")
