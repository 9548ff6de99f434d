"""A worker: one trial in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ray import tune

from search.errors import TaskError
from search.records import Key, Point, Run, run_from_json, to_json
from search.training.candidate import Job, Training, train_candidate
from search.tuner.shipping import Origin


def train_trial(config: dict[str, Any], training: Training, origin: Origin) -> None:
    """One trial, in a worker's process."""
    sent = 0
    origin.settle()

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
    task = origin.task(task, training.folder)
    gated = not config["baseline"]
    job = Job(config["expression"], gated, finished, tuple(seeds), rate, budget, task)
    send({"begun": True})
    try:
        outcome = train_candidate(origin.here(training), job, on_run, on_epoch)
    except TaskError as error:
        send({"stop": error.problems})
        return
    send({"outcome": asdict(outcome)})
    if outcome.state == "failed" and training.device != "cpu":
        raise RuntimeError(outcome.reason)  # it may have broken the GPU for this process: end it
