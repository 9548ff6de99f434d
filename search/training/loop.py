"""One training run: a plain loop that everything else is built on.

`run_epochs` yields a `Point` after every epoch and returns the `Run`; `train` drains it.

    for epoch: for batch: loss, gradients, step; evaluate on the validation part

A run is bitwise repeatable on a CPU with the same number of threads (on a GPU as far as its
kernels are): weights, order of data, augmentation and dropout follow from the seed, and two
activations with the same seed start from the same weights and see the same batches, so that their
runs pair.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from search.records import Point, Run, run_from_json, to_json
from search.tasks.task import MakeActivation, Recipe, Splits, Task, splits_to
from search.training.checkpoints import Checkpoint
from search.training.epochs import Keep, count_steps, epoch_batches, train_epoch
from search.training.evaluation import evaluate, score_problem, test_problem
from search.training.optimizers import make_optimizer
from search.training.plain_run import PlainRun
from search.training.precision import make_scaler
from search.training.shards import ALONE, Shards
from search.training.step import Update, is_recorded, make_update
from search.training.streams import INITIAL, LAYERS, seeded, stream_seed


def train(
    task: Task,
    splits: Splits,
    make_activation: MakeActivation,
    *,
    options: Mapping[str, Any],
    recipe: Recipe,
    learning_rate: float,
    seed: int,
    device: torch.device | str = "cpu",
) -> Run:
    """The whole run of `run_epochs`, without its points on the way."""
    epochs = run_epochs(
        task,
        splits,
        make_activation,
        options=options,
        recipe=recipe,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
    )
    while True:
        try:
            next(epochs)
        except StopIteration as end:
            return end.value


def run_epochs(
    task: Task,
    splits: Splits,
    make_activation: MakeActivation,
    *,
    options: Mapping[str, Any],
    recipe: Recipe,
    learning_rate: float,
    seed: int,
    device: torch.device | str = "cpu",
    testing: bool = False,
    checkpoint: Checkpoint | None = None,
    shards: Shards = ALONE,
) -> Generator[Point, str | None, Run]:
    """Train one model from scratch; a Point after every epoch, at last the Run.

    `options` are complete (see `options_with`). Whoever consumes the points may end the run by
    `send(reason)`: it returns the Run as pruned. A loss that is not finite or lies above the
    recipe's bound ends it as diverged. `testing`: the last step is followed by one look at the test
    part, which nothing else reads. `checkpoint`: where it is written down. From there it goes on
    with the numbers that it would have had; the points of before come first, as they did then.
    `shards`: this process's part in a run of several, each of which runs this.

    Raises:
        Paused: somebody asked for the end; the checkpoint has all that goes on.
    """
    kept = checkpoint.read() if checkpoint else None
    if kept is not None and "run" in kept:
        return (yield from _heard_again(run_from_json(kept["run"])))
    device = torch.device(device)
    splits = splits_to(splits, device)
    steps = count_steps(len(splits.train.targets), recipe)
    fixed = _Fixed(task, splits, recipe, steps, testing, shards)

    def begin() -> tuple[PlainRun, Update]:
        model = initial_model(task, splits, make_activation, options, seed, device)
        return _begun(fixed, model, learning_rate, seed, device)

    at, update = begin()
    if checkpoint is not None and kept is not None and not checkpoint.restored(at.restore, kept):
        at, update = begin()
    if checkpoint is None:
        return (yield from _trained(fixed, at, update))
    checkpoint.begin(at.state)
    try:
        run = yield from _trained(fixed, at, update, checkpoint)
        checkpoint.end({"run": to_json(run)})
    finally:
        checkpoint.leave()
    return run


def _heard_again(run: Run) -> Generator[Point, str | None, Run]:
    """A run that has ended, as it came."""
    for point in run.curve:
        _ = yield point  # what it is told now it was told then
    return run


@dataclass(frozen=True, slots=True)
class _Fixed:
    """Of a run, what nothing changes on its way."""

    task: Task
    splits: Splits
    recipe: Recipe
    steps: int
    testing: bool
    shards: Shards


def _begun(
    fixed: _Fixed, model: nn.Module, learning_rate: float, seed: int, device: torch.device
) -> tuple[PlainRun, Update]:
    """A run before its first step, and what makes a step."""
    recipe, shards = fixed.recipe, fixed.shards
    model = shards.synchronised(model, device)
    recorded = is_recorded(recipe, device, shards)
    optimizer = make_optimizer(model, recipe, learning_rate, recorded)
    scaler = make_scaler(recipe, device)
    update = make_update(
        fixed.task, model, recipe, learning_rate, fixed.steps, optimizer, scaler, shards
    )
    return PlainRun(learning_rate, seed, model, optimizer, scaler, device), update


def _trained(
    fixed: _Fixed, at: PlainRun, update: Update, checkpoint: Checkpoint | None = None
) -> Generator[Point, str | None, Run]:
    task, splits, recipe, shards = fixed.task, fixed.splits, fixed.recipe, fixed.shards
    for point in tuple(at.curve):
        if stop := (yield point):
            return at.run("pruned", stop)
    while at.step < fixed.steps:
        if problem := _epoch(fixed, at, update, checkpoint):
            return at.run("diverged", problem)
        at.step, losses, at.losses = at.step + len(at.losses), at.losses, []
        loss, score = evaluate(task, at.model, splits.validation, recipe.amp, shards)
        if problem := score_problem(loss, score, task, at.step):
            return at.run("diverged", problem)
        at.end_epoch(Point(at.step, sum(losses) / len(losses), loss, score))
        if stop := (yield at.curve[-1]):
            return at.run("pruned", stop)
    if not fixed.testing:
        return at.run("complete")
    _, score = evaluate(task, at.model, splits.test, recipe.amp, shards)
    if problem := test_problem(score, task, at.step):
        return at.run("diverged", problem)
    return at.run("complete", test=score)


def _epoch(fixed: _Fixed, at: PlainRun, update: Update, checkpoint: Checkpoint | None) -> str:
    """Train the epoch under way to its end; why it diverged, or nothing."""
    clock = time.perf_counter()

    def write(losses: list[float]) -> None:
        """Write a checkpoint; the clock of the training stands meanwhile."""
        nonlocal clock
        assert checkpoint is not None, "only a checkpoint is due"
        at.losses = losses
        at.seconds += time.perf_counter() - clock
        checkpoint.keep()
        clock = time.perf_counter()

    keep = None if checkpoint is None else Keep(checkpoint.due, write)
    splits, recipe, left = fixed.splits, fixed.recipe, fixed.steps - at.step
    with seeded(stream_seed(at.seed, LAYERS, at.step), at.device):
        at.begin_epoch()
        at.model.train()
        done = len(at.losses)
        batches = epoch_batches(splits, recipe, at.order, at.draws, left, at.device, done)
        at.losses, problem = train_epoch(
            update, batches, at.step, recipe.loss_bound, at.device, at.losses, keep
        )
    at.seconds += time.perf_counter() - clock
    return problem


def initial_model(
    task: Task,
    splits: Splits,
    make_activation: MakeActivation,
    options: Mapping[str, Any],
    seed: int,
    device: torch.device,
) -> nn.Module:
    """The model with the seed's weights, the same on every device.

    Two samples pass through it, in evaluation mode, so that parameters that take their size from
    the input exist before an optimizer asks for them.
    """
    with seeded(stream_seed(seed, INITIAL), device):
        model = task.build(make_activation, splits, **options).to(device)
        with torch.no_grad():
            model.eval()(splits.train.inputs[:2].to(device))
    return model
