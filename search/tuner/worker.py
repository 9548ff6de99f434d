"""A worker: one trial in a process of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ray import tune

from search.errors import TaskError
from search.records import Key, Point, Run, run_from_json, to_json
from search.training.candidate import train_candidate
from search.training.checkpoints import Paused
from search.training.job import Job, Training, training_for
from search.training.prepared import prepare
from search.tuner.parallel import train_across
from search.tuner.shipping import Origin


class Ended(BaseException):
    """Ray ends the trial: it leaves by SystemExit out of a report, which must not be taken for a
    `sys.exit` of the task, as the next report would wait for ever."""


def train_trial(config: dict[str, Any], training: Training, origin: Origin) -> None:
    """One trial, in a worker's process."""
    try:
        _train(config, training, origin)
    except Ended:
        sys.exit(0)


def _train(config: dict[str, Any], training: Training, origin: Origin) -> None:
    wire = Wire(config["told"])
    origin.settle()
    job, training = _job(config, training, origin), origin.here(training)
    if config["alone"]:
        training = replace(training, at_once=1)
    try:
        prepare(training_for(training, job))  # no candidate is to blame for what this takes
        wire.send({"begun": True})
        heard = wire.ended.append, wire.on_epoch
        if training.workers > 1:
            outcome = train_across(training, job, origin, *heard, wire.on_all)
        else:
            outcome = train_candidate(training, job, *heard, wire.say, wire.on_rung, wire.on_all)
    except Paused:
        wire.send({"paused": True})
        return
    except TaskError as error:
        wire.send({"stop": error.problems})
        return
    wire.send({"outcome": asdict(outcome)})
    if outcome.state == "failed" and training.device != "cpu":
        raise RuntimeError(outcome.reason)  # it may have broken the GPU for this process: end it


def _job(config: Mapping[str, Any], training: Training, origin: Origin) -> Job:
    """What is to be trained, out of the plain values that Ray hands over."""
    seeds, rate, budget, task, rates = json.loads(config["again"])
    return Job(
        expression=config["expression"],
        gated=not config["baseline"],
        finished=tuple(run_from_json(run) for run in json.loads(config["runs"])),
        seeds=tuple(seeds),
        rate=rate,
        budget=budget,
        task=origin.task(task, training.folder),
        rates=tuple(rates),
        checkpoints=config["checkpoints"],
        promoted=config["promoted"],
    )


@dataclass(slots=True)
class Wire:
    """What a trial tells the driver, message by message."""

    told: int
    """The last epoch that an earlier worker has told."""
    sent: int = 0
    began: float = field(default_factory=time.perf_counter)
    ended: list[Run] = field(default_factory=list)
    """Runs that ended and are not told yet."""

    def send(self, message: dict[str, Any], **metrics: float) -> None:
        self.sent += 1
        try:
            tune.report({"number": self.sent, "message": json.dumps(message), **metrics})
        except SystemExit:
            raise Ended from None

    def on_all(self) -> None:
        # Together: the driver's answer to a message, which a worker waits for, takes it 5 to 10 ms.
        self.send({"runs": [to_json(run) for run in self.ended]})
        self.ended.clear()

    def on_epoch(self, epoch: int, value: float, points: Mapping[Key, Point]) -> None:
        if epoch <= self.told:
            return
        listed = [(rate, seed, asdict(point)) for (rate, seed), point in points.items()]
        self.send({"points": listed}, epoch=epoch, value=value)

    def on_rung(self, epoch: int, value: float) -> None:
        self.send({"rung": epoch, "seconds": time.perf_counter() - self.began}, value=value)

    def say(self, line: str) -> None:
        self.send({"say": line})
