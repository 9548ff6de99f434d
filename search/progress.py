"""What a search shows while it runs: one live display, or a plain line per trial."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.records import Trial
from search.trials.tally import TOLD, Tally


@dataclass(frozen=True, slots=True)
class Goal:
    """What a search is for, as its display words it."""

    name: str
    metric: str
    maximize: bool
    budget: int
    """Candidates to train."""
    baselines: int
    concurrent: int = 1
    placebos: int = 0
    finalists: int = 0
    """At most, where fewer candidates have a score than places."""

    @property
    def trials(self) -> int:
        """Of every kind."""
        return self.budget + self.baselines + self.placebos + self.finalists

    def written(self, score: float | None) -> str:
        """A score: accuracies in percent.

        >>> Goal("gated", "accuracy", True, 40, 7).written(0.97361)
        '97.36 %'
        """
        if score is None:
            return "–"
        return f"{100 * score:.2f} %" if "accuracy" in self.metric else f"{score:.4g}"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a search stands."""

    trained: int
    baselines: int
    running: int
    states: Counter[str]
    """Candidates by state."""
    best: Trial | None
    best_baseline: Trial | None
    finalists: int
    placebos: int
    remaining: float | None
    """Seconds until the end, by what trials took so far; None as long as none has ended."""


def standing(trials: Iterable[Trial], goal: Goal) -> Standing:
    """Count and compare trials."""
    return standing_of(Tally(goal.maximize, trials), goal)


def standing_of(tally: Tally, goal: Goal) -> Standing:
    """Where a search stands whose trials are counted already."""
    return Standing(
        trained=tally.count("search"),
        baselines=tally.count("baseline"),
        running=len(tally.running),
        states=tally.of("search"),
        best=tally.best.get("search"),
        best_baseline=tally.best.get("baseline"),
        finalists=len(tally.finals),
        placebos=tally.count("placebo"),
        remaining=_remaining(tally, goal),
    )


def _remaining(tally: Tally, goal: Goal) -> float | None:
    trials, seconds = tally.took
    if not trials:
        return None
    left = max(0, goal.trials - tally.ended)
    return math.ceil(left / goal.concurrent) * seconds / trials


def duration(seconds: float | None) -> str:
    """Seconds as a person says them.

    >>> duration(42), duration(90), duration(7300), duration(None)
    ('42 s', '1 min 30 s', '2 h 01 min', '…')
    """
    if seconds is None:
        return "…"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Display(Protocol):
    """Shows a search to a person."""

    def __enter__(self) -> Display: ...
    def __exit__(self, *error: object) -> None: ...
    def say(self, text: str) -> None:
        """One line that stays."""

    def show(self, standing: Standing, ended: Trial | None = None) -> None:
        """Where it stands now, and the trial that has just ended, if one has."""


def display(console: Console, goal: Goal) -> Display:
    """A live display on a terminal, lines elsewhere."""
    return LiveDisplay(console, goal) if console.is_terminal else PlainDisplay(console, goal)


class PlainDisplay:
    """A line per trial that was trained."""

    def __init__(self, console: Console, goal: Goal):
        self.console = console
        self.goal = goal

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, standing: Standing, ended: Trial | None = None) -> None:
        if ended is not None and ended.state in TOLD:
            self.say(line(ended, standing, self.goal))


def line(trial: Trial, standing: Standing, goal: Goal) -> str:
    """One trial in one line: how far the search is, its result, what it was."""
    places = {
        "search": f"{standing.trained}/{goal.budget}",
        "baseline": f"baseline {standing.baselines}/{goal.baselines}",
        "placebo": f"placebo {standing.placebos}/{goal.placebos}",
        "finalist": f"finalist {standing.finalists}/{goal.finalists}",
    }
    place = places[trial.origin]
    if trial.state == "complete":
        where = " on the test split" if trial.origin == "finalist" else ""
        score = goal.written(trial.score)
        if trial.task:  # it has a metric of its own
            where += f" of {trial.task}"
            score = f"{trial.environment.get('metric', 'score')} {trial.score:.4g}"
        result = f"{score}{where} at rate {trial.best_rate:g}"
    else:
        result = f"{trial.state} ({trial.reason})" if trial.reason else trial.state
    what = f"{trial.name}: {trial.expression}" if trial.name else trial.expression
    return f"{place}  {result}  {what}  [{len(trial.runs)} runs, {duration(trial.seconds)}]"


class LiveDisplay:
    """One panel that is drawn over itself four times a second."""

    def __init__(self, console: Console, goal: Goal):
        self.console = console
        self.goal = goal
        self.began = time.monotonic()
        self.standing: Standing | None = None
        self.live = Live(get_renderable=self._drawn, console=console, refresh_per_second=4)

    def __enter__(self) -> LiveDisplay:
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def show(self, standing: Standing, ended: Trial | None = None) -> None:
        self.standing = standing

    def _drawn(self) -> Group:
        goal, now = self.goal, self.standing
        if now is None:
            return Group(Text(f"{goal.name}: starting Ray …"))
        done = now.trained + now.baselines + now.placebos + now.finalists
        bar = Table.grid(padding=(0, 1))
        counts = [f"{now.trained}/{goal.budget} candidates"]
        counts.append(f"{now.baselines}/{goal.baselines} baselines")
        counts += [f"{now.placebos}/{goal.placebos} placebos"] if goal.placebos else []
        counts += [f"{now.finalists}/{goal.finalists} finalists"] if goal.finalists else []
        elapsed = duration(time.monotonic() - self.began)
        bar.add_row(
            Text(goal.name, style="bold"),
            ProgressBar(total=max(1, goal.trials), completed=done, width=30),
            ", ".join(counts),
            f"{now.running} running, {elapsed}, about {duration(now.remaining)} left",
        )
        rows = Table.grid(padding=(0, 1))
        rows.add_row("best", *self._row(now.best))
        rows.add_row("best baseline", *self._row(now.best_baseline))
        names = ("pruned", "diverged", "failed", "rejected", "duplicate")
        lost = ", ".join(f"{now.states[name]} {name}" for name in names if now.states[name])
        return Group(bar, rows, Text(lost, style="dim"))

    def _row(self, trial: Trial | None) -> tuple[str, Text]:
        if trial is None:
            return "–", Text("")
        what = f"{trial.name}: {trial.expression}" if trial.name else trial.expression
        return self.goal.written(trial.score), Text(what, no_wrap=True, overflow="ellipsis")
