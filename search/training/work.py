"""A job in a worker's hands: how its runs are trained, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from search.activation import Activation
from search.records import Run
from search.training.checkpoints import Checkpoints
from search.training.course import OnEpoch
from search.training.job import Job, Outcome, OutcomeState, Training
from search.training.prepared import Prepared
from search.training.rates import Grid
from search.training.sweep import Together, sweep
from search.training.ways import start_run, together_or_plainly


@dataclass(frozen=True, slots=True)
class Work:
    """One job, with what it takes to train it."""

    prepared: Prepared
    training: Training
    job: Job
    make_activation: partial[Activation]
    parameters: int
    """Trainable numbers in the model's activations."""
    say: Callable[[str], None]
    """Called with a line when a checkpoint is of no use."""
    on_all: Callable[[], None] = lambda: None
    """Called when all runs that ended together have been told."""
    told: dict[str, Any] = field(default_factory=dict)
    """What the outcome's environment is to remember; grows on the way."""

    def checkpoints(self) -> Checkpoints | None:
        """Those of its runs, if there are to be any."""
        prepared, keeping = self.prepared, self.training.checkpoints
        if keeping is None or not self.job.checkpoints:
            return None
        about = [self.job.expression, prepared.task.name, prepared.options, prepared.device]
        return Checkpoints(
            store=keeping.of_trial(self.job.checkpoints),
            keeping=keeping,
            about=repr([*about, prepared.recipe, len(prepared.splits.train.targets)]),
            say=self.say,
            part="final_" if prepared.testing else "",
        )

    def sweep(
        self,
        grid: Grid,
        kept: Checkpoints | None,
        on_run: Callable[[Run], None],
        on_epoch: OnEpoch | None = None,
    ) -> tuple[Run, ...]:
        """Its runs of a grid, those that an earlier driver saw the end of included."""
        return sweep(
            grid,
            partial(start_run, self.prepared, self.make_activation, self.prepared.recipe, kept),
            together=self._together(kept),
            finished=self.job.finished,
            on_run=on_run,
            on_all=self.on_all,
            on_epoch=on_epoch,
            epochs=self.prepared.epochs,
        )

    def _together(self, kept: Checkpoints | None) -> Together | None:
        """Trains several runs in one program, where the study wants that; None for the plain loop,
        but for what was begun together."""
        at_once = self.training.at_once
        if at_once < 2 and not (kept and kept.any()):
            return None
        abreast = self.training.in_step or self.training.grid.halving is not None
        made = self.prepared, self.make_activation
        return together_or_plainly(*made, at_once, abreast, self.told, kept)

    def ended(self, state: OutcomeState, reason: str = "", **found: Any) -> Outcome:
        """Its outcome; `found`: further fields of it."""
        return Outcome(state, reason, parameters=self.parameters, environment=self.told, **found)
