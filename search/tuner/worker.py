"""A worker: one trial in a process of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
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
    sent, began = 0, time.perf_counter()
    origin.settle()

    def send(message: dict[str, Any], **metrics: float) -> None:
        nonlocal sent
        sent += 1
        try:
            tune.report({"number": sent, "message": json.dumps(message), **metrics})
        except SystemExit:
            raise Ended from None

    ended: list[Run] = []

    def on_all() -> None:
        # Together: the driver's answer to a message, which a worker waits for, takes it 5 to 10 ms.
        send({"runs": [to_json(run) for run in ended]})
        ended.clear()

    def on_epoch(epoch: int, value: float, points: Mapping[Key, Point]) -> None:
        if epoch <= config["told"]:
            return
        listed = [(rate, seed, asdict(point)) for (rate, seed), point in points.items()]
        send({"points": listed}, epoch=epoch, value=value)

    def on_rung(epoch: int, value: float) -> None:
        send({"rung": epoch, "seconds": time.perf_counter() - began}, value=value)

    def say(line: str) -> None:
        send({"say": line})

    finished = tuple(run_from_json(run) for run in json.loads(config["runs"]))
    seeds, rate, budget, task, rates = json.loads(config["again"])
    task = origin.task(task, training.folder)
    gated, again = not config["baseline"], (tuple(seeds), rate, budget, task, tuple(rates))
    own = config["checkpoints"], config["promoted"]
    job = Job(config["expression"], gated, finished, *again, *own)
    training = origin.here(training)
    if config["alone"]:
        training = replace(training, at_once=1)
    try:
        prepare(training_for(training, job))  # no candidate is to blame for what this takes
        send({"begun": True})
        if training.workers > 1:
            outcome = train_across(training, job, origin, ended.append, on_epoch, on_all)
        else:
            heard = ended.append, on_epoch, say, on_rung, on_all
            outcome = train_candidate(training, job, *heard)
    except Paused:
        send({"paused": True})
        return
    except TaskError as error:
        send({"stop": error.problems})
        return
    send({"outcome": asdict(outcome)})
    if outcome.state == "failed" and training.device != "cpu":
        raise RuntimeError(outcome.reason)  # it may have broken the GPU for this process: end it
