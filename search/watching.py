"""Where a study stands, read from any process: `python -m search.status results/gated`.

The database is only read. With its write-ahead log a reader keeps nobody waiting and waits for
nobody.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from search.claiming import in_use
from search.database.attributes import launched, record_number, recorded, run_attributes
from search.database.opening import Database, existing_database
from search.figures.settings import ReportSettings, settings_from_folder
from search.integrity.audit import altered_line
from search.progress import Goal, Standing, duration, standing
from search.records import Trial
from search.trials.ladder import is_paused

RECENT = timedelta(minutes=10)
"""How far back the rate of runs looks."""
LISTED = 16
"""Running trials that are listed one by one."""


@dataclass(frozen=True, slots=True)
class Running:
    """A trial that is being trained."""

    trial: Trial
    seconds: float
    """Since it was launched."""
    runs: int
    """That have ended."""


@dataclass(frozen=True, slots=True)
class Status:
    """A study at one moment."""

    goal: Goal
    standing: Standing
    running: tuple[Running, ...]
    runs: int
    per_minute: float | None
    """Runs that end in a minute, lately or at the study's end; None before the first."""
    driven: bool
    """Whether a driver is writing."""
    again: str
    """The command that goes on."""


def status_of(folder: Path, database: Database, now: datetime) -> Status:
    """Where the study stands at `now`, in local time."""
    settings, driven = settings_from_folder(folder), in_use(folder)
    found = list(_launched(database))
    trials = [trial for trial, _ in found]
    running = [pair for pair in found if _runs(*pair)]
    goal = _goal(settings, trials, max(1, len(running)))
    return Status(
        goal=goal,
        standing=standing(trials, goal),
        running=tuple(_running(trial, frozen, now) for trial, frozen in running),
        runs=sum(len(run_attributes(frozen.user_attrs)) for _, frozen in found),
        per_minute=_per_minute([frozen for _, frozen in found], now if driven else None),
        driven=driven,
        again=_again(folder, settings),
    )


def _launched(database: Database) -> Iterator[tuple[Trial, FrozenTrial]]:
    """Every trial that counts, without its runs, which are many."""
    for baselines, study in database.studies:
        for frozen in study.get_trials(deepcopy=False):
            kept = frozen.user_attrs.get("candidate")
            waits = frozen.state == TrialState.WAITING
            if kept is not None and not waits and "continued" not in frozen.user_attrs:
                number = record_number(baselines, frozen.number)
                yield recorded(frozen) or launched(number, kept), frozen


def _runs(trial: Trial, frozen: FrozenTrial) -> bool:
    """Whether a worker has it: one that waits at a rung, none has."""
    return trial.state == "running" and not is_paused(frozen.user_attrs)


def _running(trial: Trial, frozen: FrozenTrial, now: datetime) -> Running:
    began = frozen.datetime_start or now
    runs = len(run_attributes(frozen.user_attrs))
    return Running(trial, max(0.0, (now - began).total_seconds()), runs)


def _goal(settings: ReportSettings, trials: Sequence[Trial], concurrent: int) -> Goal:
    baselines = len({trial.name for trial in trials if trial.origin == "baseline"})
    budget, places = settings.budget or 0, settings.places
    finalists = 0
    if places is not None:
        own = min(places, budget) + baselines
        finalists = own * (1 + len(settings.further_tasks)) + settings.placebos
    return Goal(
        name=settings.name,
        metric=settings.metric,
        maximize=settings.maximize,
        budget=budget,
        baselines=baselines,
        concurrent=concurrent,
        placebos=settings.placebos,
        finalists=finalists,
    )


def _per_minute(launched: Sequence[FrozenTrial], now: datetime | None) -> float | None:
    """Runs of the trials that ended lately, by the time since the first of those began."""
    ended = [each for each in launched if each.datetime_complete and each.datetime_start]
    times = [each.datetime_complete for each in ended if each.datetime_complete]
    if not times:
        return None
    until = now or max(times)
    lately = [t for t in ended if t.datetime_complete and t.datetime_complete > until - RECENT]
    began = min((t.datetime_start for t in lately if t.datetime_start), default=until)
    runs = sum(len(run_attributes(each.user_attrs)) for each in lately)
    seconds = (until - began).total_seconds()
    return 60 * runs / seconds if seconds > 0 else 0.0


def _again(folder: Path, settings: ReportSettings) -> str:
    """The command that goes on with a study, as far as its files tell."""
    space = str(settings.environment.get("space") or f"spaces/{settings.name}.yaml")
    words = ["python", "-m", "search.run", space]
    if folder.parent != Path("results"):
        words += ["--results", str(folder.parent)]
    return shlex.join(words)


def lines(status: Status) -> list[str]:
    """A status in words."""
    goal, now = status.goal, status.standing
    counts = [f"{now.trained}/{goal.budget} candidates"] if goal.budget else []
    counts.append(f"{now.baselines}/{goal.baselines} baselines")
    counts += [f"{now.placebos}/{goal.placebos} placebos"] if goal.placebos else []
    counts += [f"{now.finalists}/{goal.finalists} finalists"] if goal.finalists else []
    states = [f"{number} {state}" for state, number in sorted(now.states.items())]
    told = [
        f"{goal.name}: {', '.join(counts)}",
        *([f"candidates     {', '.join(states)}"] if states else []),
        f"best           {_scored(now.best, goal)}",
        f"best baseline  {_scored(now.best_baseline, goal)}",
        f"runs           {_rate(status)}",
    ]
    for each in sorted(status.running, key=lambda each: -each.seconds)[:LISTED]:
        what = _what(each.trial)
        told.append(f"running        {duration(each.seconds)}, {each.runs} runs ended: {what}")
    if len(status.running) > LISTED:
        told.append(f"running        and {len(status.running) - LISTED} more")
    return [*told, _ending(status)]


def _rate(status: Status) -> str:
    rate = "" if status.per_minute is None else f", {status.per_minute:.3g} a minute"
    return f"{status.runs} have ended{rate}"


def _ending(status: Status) -> str:
    if status.driven:
        return f"time left      about {duration(status.standing.remaining)}"
    return f"no driver is running; go on with: {status.again}"


def _scored(trial: Trial | None, goal: Goal) -> str:
    return "–" if trial is None else f"{goal.written(trial.score)}  {_what(trial)}"


def _what(trial: Trial) -> str:
    return f"{trial.name}: {trial.expression}" if trial.name else trial.expression


def watched(folder: Path, seconds: float) -> Iterator[list[str]]:
    """The status again and again, until no driver is running.

    Raises:
        StudyError: there is no study, or it cannot be read.
    """
    before = [line] if (line := altered_line(folder)) else []
    while True:
        with existing_database(folder) as database:
            status = status_of(folder, database, datetime.now())
        yield [*before, *lines(status)]
        if not status.driven:
            return
        time.sleep(seconds)
