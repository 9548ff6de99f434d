"""What a study remembers: plain values, written by the driver, read by the report.

A `Run` is one training, a `Trial` one candidate's sweep. Both travel as JSON (`to_json`,
`trial_from_json`) so that they ride on an Optuna trial and outlive every version of the code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from search.integrity.sealing import opened

RunState = Literal["complete", "diverged", "pruned"]
TrialState = Literal["running", "complete", "pruned", "diverged", "rejected", "failed", "duplicate"]
Origin = Literal["search", "baseline", "placebo", "finalist"]


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluation on the validation split."""

    step: int
    train_loss: float
    """Mean training loss since the previous point."""
    loss: float
    """Validation loss."""
    score: float
    """The task's metric on the validation split (accuracy in [0, 1], loss, …)."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training: a candidate at one learning rate with one seed."""

    learning_rate: float
    seed: int
    state: RunState
    reason: str = ""
    """Why it is not complete: `step 12: loss is nan`."""
    score: float | None = None
    """The task's metric on the validation split after the last step; None unless complete."""
    loss: float | None = None
    """Validation loss after the last step; None unless complete."""
    test: float | None = None
    """The task's metric on the test split after the last step: of finalists only."""
    curve: tuple[Point, ...] = ()
    steps: int = 0
    seconds: float = 0.0
    """Wall time of the training steps alone: no data set-up, no evaluation."""


Key = tuple[float, int]
"""A run's learning rate and seed."""


Member = tuple[int, float, int]
"""A run among those of several candidates: the candidate's place, the learning rate, the seed."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch of one candidate's runs that train together brought."""

    points: Mapping[Key, Point]
    """Of every run that trained through it."""
    ended: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class SharedEpoch:
    """What an epoch of several candidates' runs that train together brought."""

    points: Mapping[Member, Point]
    ended: Mapping[Member, Run] = field(default_factory=dict)

    def of(self, candidate: int) -> Epoch:
        """One candidate's part of it."""
        points = {(rate, seed): p for (c, rate, seed), p in self.points.items() if c == candidate}
        ended = tuple(run for (c, _, _), run in self.ended.items() if c == candidate)
        return Epoch(points, ended)


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate's sweep over learning rates and seeds."""

    number: int
    """Optuna's number of the trial."""
    origin: Origin
    name: str
    """The catalogue name of a baseline; empty for a candidate of the search."""
    expression: str
    fingerprint: str
    state: TrialState
    reason: str = ""
    """`bounded: f(1e4) is inf in float16` for a rejection, the error of a failure, …"""
    choices: dict[str, Any] = field(default_factory=dict)
    """The grammar's choices by path, as Optuna's parameters."""
    runs: tuple[Run, ...] = ()
    score: float | None = None
    """Mean over seeds at the best learning rate (see `search.training.rates.best_rate`)."""
    best_rate: float | None = None
    cost: float | None = None
    """Seconds of a training step relative to the same model with ReLU, measured side by side."""
    share: float | None = None
    """Of a training step's time, what is spent in activations: what the same model saves that has
    the identity in their place."""
    composed_share: float | None = None
    """That share with the formula composed of torch operations instead of its fused kernel."""
    memory: float | None = None
    """Bytes that a training step keeps for its backward pass, relative to the model with ReLU."""
    parameters: int = 0
    """Trainable numbers in the activations of the task's model."""
    spared: int = 0
    """Steps that its runs did not take because their rates left at a rung."""
    seconds: float = 0.0
    """Wall time of the whole trial."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Device, versions, host of the worker."""
    duplicate_of: int | None = None
    of: int | None = None
    """Of a finalist: the number of the trial whose activation it trains again."""
    budget: float = 1.0
    """Of a finalist: how many times as long as in the search its runs are."""
    task: str = ""
    """Of a finalist: another task than the search's."""
    seeds: tuple[int, ...] = ()
    """Of a finalist or a placebo: the seeds that it is trained with."""
    rates: tuple[float, ...] = ()
    """Of a finalist that fills a heatmap: the rates beside the frozen one, of which nothing is
    claimed."""
    sources: tuple[str, ...] = ()
    """In a study that was merged of others: the trials that are this one now, `results/a/12`."""
    finals: tuple[Trial, ...] = ()
    """The finalists of this trial, as `read_trials` finds them: their `best_rate` is this trial's,
    their seeds are fresh, their score is the mean over the seeds on the test split."""


def ended_run(
    key: Key,
    state: RunState,
    reason: str,
    curve: Sequence[Point],
    steps: int,
    seconds: float,
    test: float | None = None,
) -> Run:
    """A run that ends so; of a complete one, its last point and `test` are what it is worth."""
    last = curve[-1] if state == "complete" else None
    return Run(
        learning_rate=key[0],
        seed=key[1],
        state=state,
        reason=reason,
        score=last.score if last else None,
        loss=last.loss if last else None,
        test=test if last else None,
        curve=tuple(curve),
        steps=steps,
        seconds=seconds,
    )


def unfinished(
    curves: Mapping[Key, Sequence[Point]], finished: Iterable[Run], reason: str
) -> list[Run]:
    """The runs of a trial that was cut off, as pruned: what its points tell of them."""
    known = {(run.learning_rate, run.seed) for run in finished}
    return [
        Run(rate, seed, "pruned", reason, curve=tuple(curve), steps=curve[-1].step)
        for (rate, seed), curve in curves.items()
        if (rate, seed) not in known
    ]


_RUN_NUMBERS = ("score", "loss", "test", "seconds", "learning_rate")
_TRIAL_NUMBERS = ("score", "best_rate", "cost", "share", "composed_share", "memory")


def to_json(record: Run | Trial) -> dict[str, Any]:
    """A record as JSON values; a float that is not finite becomes its name ("nan", "inf")."""
    return _jsonable(asdict(record))


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def run_from_json(data: dict[str, Any]) -> Run:
    """The inverse of `to_json` for a run, with or without its hash."""
    data = opened(data)
    curve = tuple(
        Point(point["step"], *(_number(point[k]) for k in ("train_loss", "loss", "score")))
        for point in data.get("curve", ())
    )
    numbers = {key: _number(data.get(key)) for key in _RUN_NUMBERS}
    return Run(**{**data, **numbers, "curve": curve})


def trial_from_json(data: dict[str, Any]) -> Trial:
    """The inverse of `to_json` for a trial, with or without its hash."""
    data = opened(data)
    runs = tuple(run_from_json(run) for run in data.get("runs", ()))
    numbers = {key: _number(data.get(key)) for key in _TRIAL_NUMBERS}
    finals = tuple(trial_from_json(final) for final in data.get("finals", ()))
    lists = {name: tuple(data.get(name, ())) for name in ("seeds", "rates", "sources")}
    return Trial(**{**data, **numbers, "runs": runs, "finals": finals, **lists})
