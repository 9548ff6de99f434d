"""The trials of a study by number, and what is counted of them as they come, change and go.

At every candidate a driver asks for these counts a dozen times: over 10,000 trials, each look at
all of them takes 2 to 20 ms.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from search.records import Origin, Trial, TrialState

TOLD: tuple[TrialState, ...] = ("complete", "pruned", "diverged", "failed")
"""How trials end that were trained."""
WORKED: tuple[TrialState, ...] = ("complete", "pruned", "diverged")
"""How those end that the task was no hindrance to."""


class Tally:
    """Trials, counted; only `put` and `drop` change either.

    maximize: whether larger scores are better.
    """

    def __init__(self, maximize: bool, trials: Iterable[Trial] = ()):
        self.maximize = maximize
        self.trials: dict[int, Trial] = {}
        self.states: Counter[tuple[Origin, TrialState]] = Counter()
        self.running: dict[int, Trial] = {}
        """Those that have not ended, by number."""
        self.firsts: dict[str, int] = {}
        """The first trial of every function among candidates and baselines, by fingerprint."""
        self.best: dict[Origin, Trial] = {}
        """The complete trial with the best score; the earliest of equals."""
        self.finals: set[tuple[int | None, str, bool]] = set()
        """The finalists that have ended: whose, on which task, whether at the further rates."""
        self.ended = 0
        """Trials that were trained, of every origin."""
        self.took: tuple[int, float] = 0, 0.0
        """How many of them tell their seconds, and all of those."""
        for trial in trials:
            self.put(trial)

    def put(self, trial: Trial) -> None:
        """Take in a trial, or what has become of it."""
        if (old := self.trials.get(trial.number)) is not None:
            self.states[old.origin, old.state] -= 1
        self.trials[trial.number] = trial
        self.states[trial.origin, trial.state] += 1
        if trial.state == "running":
            self.running[trial.number] = trial
        else:
            self.running.pop(trial.number, None)
        if trial.state != "duplicate" and trial.origin in ("search", "baseline"):
            self.firsts.setdefault(trial.fingerprint, trial.number)
        if trial.state in TOLD and (old is None or old.state not in TOLD):
            self._count_ended(trial)

    def _count_ended(self, trial: Trial) -> None:
        self.ended += 1
        if trial.seconds > 0:
            self.took = self.took[0] + 1, self.took[1] + trial.seconds
        if trial.origin == "finalist":
            self.finals.add((trial.of, trial.task, bool(trial.rates)))
        if trial.state == "complete" and trial.score is not None and not math.isnan(trial.score):
            best = self.best.get(trial.origin)
            if best is None or self._order(trial) < self._order(best):
                self.best[trial.origin] = trial

    def _order(self, trial: Trial) -> tuple[float, int]:
        score = trial.score or 0.0
        return -score if self.maximize else score, trial.number

    def drop(self, number: int) -> None:
        """Forget a trial that goes on under another number."""
        trial = self.trials.pop(number)
        self.states[trial.origin, trial.state] -= 1
        self.running.pop(number, None)
        if self.firsts.get(trial.fingerprint) == number:
            del self.firsts[trial.fingerprint]

    def of(self, origin: Origin) -> Counter[str]:
        """The trials of one origin by state."""
        counted = self.states.items()
        return Counter({str(state): n for (whose, state), n in counted if whose == origin and n})

    def count(self, origin: Origin, states: Iterable[TrialState] = TOLD) -> int:
        """How many trials of one origin have ended so."""
        return sum(self.states[origin, state] for state in states)

    def anything_worked(self) -> bool:
        """Whether the task let any trial train."""
        return any(n for (_, state), n in self.states.items() if state in WORKED)
