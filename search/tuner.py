"""Trials on Ray Tune: workers train, the driver asks and tells the study. The only file with Ray.

One process per worker, used again for the next candidate (a fresh one costs 2 s for importing
torch); a worker sends every finished run at once. Ray decides where trials run and, when asked
for, which are stopped early; it keeps nothing: a search that goes on starts Ray anew.

On a machine of its own (`ray start`, a cluster) set RAY_ADDRESS; otherwise Ray is started here
and ends with the search.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher

from search.environment import available_cpus, environment_variables
from search.errors import SearchError, StudyError, TaskError
from search.orphans import no_orphans
from search.plan import concurrency
from search.progress import Display, Goal, standing
from search.proposals import Gate, Proposals
from search.records import Key, Point, Run, Trial, run_from_json, to_json
from search.stopping import Stopped, stop_signals
from search.study import Launch, Study
from search.training.candidate import Job, Outcome, Training, error_line, train_candidate

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Relative paths of the space file mean the same in a worker.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000000",
}
"""Ray's own tables, logs, snapshots and signal handlers would drown or fight ours."""

OBJECT_STORE = 80 * 2**20
"""Bytes; Ray's minimum is 75 MiB. Only small messages pass through it, and a container's /dev/shm
has 64 MiB (Ray then takes the temporary folder)."""
LONGEST = 36
"""Characters of a temporary folder in which Ray's sockets fit: a path may have 107, Ray adds 70."""


# --- the driver ----------------------------------------------------------------------------------


def run_search(
    study: Study,
    training: Training,
    epochs: int,
    goal: Goal,
    show: Callable[[Goal], Display],
    gate: Gate | None = None,
) -> str:
    """Train what the study still wants; returns why nothing more is to be done.

    Args:
        training: what its candidates share.
        epochs: of one run, for early stopping.
        show: makes the display.
        gate: tells what is not worth training.

    Raises:
        StudyError: the machine lacks the resources, the study cannot be written, or all fails.
        TaskError: the task or its data cannot be used.
        Stopped: somebody asked for the end.
    """
    with ExitStack() as stack:
        display = stack.enter_context(show(goal))
        folder, cpus, gpus = stack.enter_context(_ray())
        concurrent = concurrency(study.space.resources, cpus, gpus)
        goal = replace(goal, concurrent=concurrent)
        asked = stack.enter_context(stop_signals())
        driver = _Driver(study, Proposals(study, gate), goal, display, asked)
        try:
            _tuner(driver, training, epochs, concurrent, folder).fit()
            study.accept_failures()
        except (Stopped, SearchError):
            with suppress(StudyError):  # what cannot be written now is released when it goes on
                study.release()
            raise
        return driver.proposals.ended


class _Unsaved:
    """Tune pickles all it is given, for a restore that we never make: nothing is saved of this."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Driver(_Unsaved, Searcher):
    """What Tune asks for candidates and tells results; it asks and tells the study."""

    def __init__(
        self,
        study: Study,
        proposals: Proposals,
        goal: Goal,
        display: Display,
        asked: list[int],
    ):
        super().__init__()
        self.study = study
        self.proposals = proposals
        self.goal = goal
        self.display = display
        self.asked = asked
        self.launched: dict[str, Launch] = {}
        self.heard: dict[str, int] = {}
        self.epochs: dict[str, int] = {}
        self.error: SearchError | None = None
        self.show()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        launch = self._safely(self.proposals.next)
        if launch is None:
            return Searcher.FINISHED if self.proposals.ended or self.error else None
        self.launched[trial_id] = launch
        self.show()
        return {
            "expression": launch.expression,
            # Neither is gated or stopped early.
            "baseline": launch.origin in ("baseline", "finalist"),
            "again": json.dumps([launch.seeds, launch.rate, launch.budget, launch.task]),
            "runs": json.dumps([to_json(run) for run in launch.runs]),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._safely(lambda: self._hear(trial_id, result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
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


class _Check(_Unsaved, tune.Stopper):
    """Called between two steps of Tune: where a search may be left."""

    def __init__(self, driver: _Driver):
        self.driver = driver

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self.driver.check()
        return False


class _Errors(_Unsaved, tune.Callback):
    """Tells the driver what broke in a worker."""

    def __init__(self, driver: _Driver):
        self.driver = driver

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # Tune's own readers look in the storage, where nothing is copied to.
        path = Path(trial.error_file or "")
        lines = path.read_text(errors="replace").split("\n") if path.is_file() else []
        told = [line.strip() for line in lines if line.strip()]
        self.driver.on_error(trial.trial_id, told[-1][:200] if told else "the worker died")


def _tuner(
    driver: _Driver, training: Training, epochs: int, concurrent: int, folder: Path
) -> tune.Tuner:
    resources = driver.study.space.resources
    wanted = {"cpu": resources.cpu} | ({"gpu": resources.gpu} if resources.gpu else {})
    return tune.Tuner(
        tune.with_resources(partial(_train, training=training), wanted),
        tune_config=tune.TuneConfig(
            search_alg=driver,
            scheduler=_scheduler(driver.study.space.search.stopping, training, epochs),
            num_samples=-1,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(folder),
            stop=_Check(driver),
            callbacks=[_Errors(driver)],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )


# --- early stopping ------------------------------------------------------------------------------


class _Asha(ASHAScheduler):
    """ASHA that measures candidates against the baselines too, and stops no baseline."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if trial.config["baseline"] else decision


class _Median(MedianStoppingRule):
    """The median rule, likewise."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        if trial.config["baseline"]:
            self._stopped_trials.discard(trial)
            return TrialScheduler.CONTINUE
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing: the last message has no epoch, and Tune's own would trip over that."""


def _scheduler(stopping: str | None, training: Training, epochs: int) -> TrialScheduler:
    """No trial is stopped in the first tenth of its epochs."""
    mode = "max" if training.grid.maximize else "min"
    grace = max(1, epochs // 10)
    if stopping == "asha":
        return _Asha("epoch", "value", mode, max_t=max(epochs, grace + 1), grace_period=grace)
    if stopping == "median":
        # Left to itself it pauses trials to let others pass, and ours cannot be paused.
        return _Median("epoch", "value", mode, grace_period=grace, min_time_slice=sys.maxsize)
    return FIFOScheduler()


# --- the worker ----------------------------------------------------------------------------------


def _train(config: dict[str, Any], training: Training) -> None:
    """One trial, in a worker's process."""
    sent = 0

    def send(message: dict[str, Any], **metrics: float) -> None:
        nonlocal sent
        sent += 1
        tune.report({"number": sent, "message": json.dumps(message), **metrics})

    def on_run(run: Run) -> None:
        send({"run": to_json(run)})

    def on_epoch(epoch: int, value: float, points: Mapping[Key, Point]) -> None:
        listed = [(rate, seed, asdict(point)) for (rate, seed), point in points.items()]
        send({"points": listed}, epoch=epoch, value=value)

    finished = tuple(run_from_json(run) for run in json.loads(config["runs"]))
    seeds, rate, budget, task = json.loads(config["again"])
    gated = not config["baseline"]
    job = Job(config["expression"], gated, finished, tuple(seeds), rate, budget, task)
    send({"begun": True})
    try:
        outcome = train_candidate(training, job, on_run, on_epoch)
    except TaskError as error:
        send({"stop": error.problems})
        return
    send({"outcome": asdict(outcome)})
    if outcome.state == "failed" and training.device != "cpu":
        raise RuntimeError(outcome.reason)  # it may have broken the GPU for this process: end it


# --- Ray itself ----------------------------------------------------------------------------------


@contextmanager
def _ray() -> Iterator[tuple[Path, float, float]]:
    """Ray, running: a temporary folder, processors, GPUs. Ended here if it is started here."""
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        made = tempfile.TemporaryDirectory(prefix="activations-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(made))
        if not ray.is_initialized():
            note = stack.enter_context(no_orphans(folder))
            stack.callback(ray.shutdown)
            _start_ray(folder)
            note()
        found = ray.cluster_resources()
        yield folder, found.get("CPU", 0.0), found.get("GPU", 0.0)


def _start_ray(folder: Path) -> None:
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": address or "local"}
    if not address:
        options |= {
            "num_cpus": available_cpus(),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE,
        }
        if len(str(folder)) < LONGEST:
            options["_temp_dir"] = str(folder)
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise StudyError(f"Ray does not start: {error_line(error)}") from error


def _quiet() -> AbstractContextManager[None]:
    """Ray's environment variables, for as long as it runs."""
    wanted = dict(_ENVIRONMENT)
    root = Path(__file__).parent.parent
    if "site-packages" not in root.parts:  # a checkout: workers must find it as the driver has
        wanted["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    return environment_variables(wanted)
