"""One training run: a plain loop that everything else is built on.

`run_epochs` yields a `Point` after every epoch and returns the `Run`; `train` drains it.

    for epoch: for batch: loss, gradients, step; evaluate on the validation part

A run is bitwise repeatable on a CPU with the same number of threads (on a GPU as far as its
kernels are): weights, order of data, augmentation and dropout follow from the seed, and two
activations with the same seed start from the same weights and see the same batches, so that their
runs pair.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from search.records import Point, Run, run_from_json, to_json
from search.tasks.task import MakeActivation, Recipe, Split, Splits, Task, splits_to
from search.training.augment import augment
from search.training.checkpoints import Stream
from search.training.compiled import Recorded
from search.training.optimizers import make_optimizer, penalties, set_rate
from search.training.plain_run import PlainRun
from search.training.schedules import rate_factor
from search.training.shards import ALONE, Shards, in_parts
from search.training.streaming import streamed
from search.training.streams import INITIAL, LAYERS, seeded, stream_seed

EVALUATION_BATCH = 1000
"""Samples evaluated at once: no figure depends on it, memory does."""

Update = Callable[[int, Tensor, Tensor], Tensor]
"""`update(step, inputs, targets)`: one training step; the loss before it, detached."""


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
    stream: Stream | None = None,
    shards: Shards = ALONE,
) -> Generator[Point, str | None, Run]:
    """Train one model from scratch; a Point after every epoch, at last the Run.

    `options` are complete (see `options_with`). Whoever consumes the points may end the run by
    `send(reason)`: it returns the Run as pruned. A loss that is not finite or lies above the
    recipe's bound ends it as diverged. `testing`: the last step is followed by one look at the test
    part, which nothing else reads. `stream`: where its checkpoints lie. From one of them it goes on
    with the numbers that it would have had; the points of before come first, as they did then.
    `shards`: this process's part in a run of several, each of which runs this.

    Raises:
        Paused: somebody asked for the end; the stream has all that goes on.
    """
    kept = stream.read() if stream else None
    if kept is not None and "run" in kept:
        return (yield from _heard_again(run_from_json(kept["run"])))
    device = torch.device(device)
    splits = splits_to(splits, device)
    steps = count_steps(len(splits.train.targets), recipe)

    def begin() -> tuple[PlainRun, Update]:
        model = initial_model(task, splits, make_activation, options, seed, device)
        model = shards.synchronised(model, device)
        recorded = is_recorded(recipe, device) and shards.world == 1
        optimizer = make_optimizer(model, recipe, learning_rate, recorded)
        scaler = make_scaler(recipe, device)
        update = make_update(
            task, model, recipe, learning_rate, steps, optimizer, scaler, shards=shards
        )
        return PlainRun(learning_rate, seed, model, optimizer, scaler, device), update

    at, update = begin()
    if stream is not None and kept is not None and not stream.restored(at.restore, kept):
        at, update = begin()
    if stream is None:
        return (yield from _trained(task, splits, recipe, at, update, steps, testing, shards))
    stream.begin(at.state)
    try:
        run = yield from _trained(task, splits, recipe, at, update, steps, testing, shards, stream)
        stream.end({"run": to_json(run)})
    finally:
        stream.leave()
    return run


def _heard_again(run: Run) -> Generator[Point, str | None, Run]:
    """A run that has ended, as it came."""
    for point in run.curve:
        _ = yield point  # what it is told now it was told then
    return run


def _trained(
    task: Task,
    splits: Splits,
    recipe: Recipe,
    at: PlainRun,
    update: Update,
    steps: int,
    testing: bool,
    shards: Shards,
    stream: Stream | None = None,
) -> Generator[Point, str | None, Run]:
    for point in tuple(at.curve):
        if stop := (yield point):
            return at.run("pruned", stop)
    while at.step < steps:
        if problem := _epoch(splits, recipe, at, update, steps, stream):
            return at.run("diverged", problem)
        at.step, losses, at.losses = at.step + len(at.losses), at.losses, []
        loss, score = evaluate(task, at.model, splits.validation, recipe.amp, shards)
        if not (math.isfinite(loss) and math.isfinite(score)):
            what = f"validation loss is {loss}, {task.metric} {score}"
            return at.run("diverged", f"step {at.step}: {what}")
        at.end_epoch(Point(at.step, sum(losses) / len(losses), loss, score))
        if stop := (yield at.curve[-1]):
            return at.run("pruned", stop)
    if not testing:
        return at.run("complete")
    _, score = evaluate(task, at.model, splits.test, recipe.amp, shards)
    if problem := test_problem(score, task, at.step):
        return at.run("diverged", problem)
    return at.run("complete", test=score)


def _epoch(
    splits: Splits, recipe: Recipe, at: PlainRun, update: Update, steps: int, stream: Stream | None
) -> str:
    """Train the epoch under way to its end; why it diverged, or nothing."""
    clock = time.perf_counter()

    def after(losses: list[float]) -> None:
        """Write a checkpoint; the clock of the training stands meanwhile."""
        nonlocal clock
        assert stream is not None, "only a stream is due"
        at.losses = losses
        at.seconds += time.perf_counter() - clock
        stream.keep()
        clock = time.perf_counter()

    with seeded(stream_seed(at.seed, LAYERS, at.step), at.device):
        at.begin_epoch()
        at.model.train()
        done = len(at.losses)
        batches = epoch_batches(
            splits, recipe, at.order, at.draws, steps - at.step, at.device, done
        )
        keep = None if stream is None else (stream.due, after)
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


def count_steps(samples: int, recipe: Recipe) -> int:
    """Steps of the whole run: full batches of every epoch, at most `max_steps`.

    The last, smaller batch of an epoch is left out (each epoch leaves out others), except where
    it is the only one.
    """
    steps = max(1, samples // recipe.batch_size) * recipe.epochs
    return min(steps, recipe.max_steps or steps)


def epoch_batches(
    splits: Splits,
    recipe: Recipe,
    order: torch.Generator,
    draws: torch.Generator,
    at_most: int,
    device: torch.device,
    done: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The epoch's batches (inputs, targets) in a fresh order, augmented; without
    the first `done`, for which nothing is drawn."""
    split = splits.train
    count = len(split.targets)
    numbers = torch.randperm(count, generator=order).to(split.targets.device)
    full = max(1, count // recipe.batch_size)
    chosen = numbers.split(recipe.batch_size)[done : min(full, at_most)]
    if splits.stream:
        batches = streamed(split, chosen, device)
    else:
        batches = ((split.inputs[batch], split.targets[batch]) for batch in chosen)
    for inputs, targets in batches:
        yield augment(inputs, recipe.augmentation, draws), targets


Keep = tuple[Callable[[int], bool], Callable[[list[float]], None]]
"""Whether something is to be kept after so many steps of the run, and what does it, given the
epoch's losses so far."""


def train_epoch(
    update: Update,
    batches: Iterable[tuple[Tensor, Tensor]],
    step: int,
    bound: float,
    device: torch.device,
    losses: Sequence[float] = (),
    keep: Keep | None = None,
) -> tuple[list[float], str]:
    """The losses of the epoch's steps, up to the first that diverged and why it did.

    losses: of its steps so far, where it was left in its middle.
    """
    together = looks_at(device)
    found, pending = list(losses), list[Tensor]()
    for inputs, targets in batches:
        pending.append(update(step + len(found) + len(pending), inputs, targets))
        due = keep is not None and keep[0](step + len(found) + len(pending))
        if len(pending) < together and not due:
            continue
        if problem := _collect(pending, found, step, bound):
            return found, problem
        if keep is not None and due:
            keep[1](found)
    return found, _collect(pending, found, step, bound)


def _collect(pending: list[Tensor], losses: list[float], step: int, bound: float) -> str:
    """Move the pending losses to `losses`, until one is bad; what is wrong with that one."""
    values = torch.stack(pending).tolist() if pending else []
    pending.clear()
    for loss in values:
        losses.append(loss)
        if problem := loss_problem(loss, bound, step + len(losses)):
            return problem
    return ""


def looks_at(device: torch.device) -> int:
    """How many losses are looked at together: each one on a CPU; on a GPU 32, as each look waits
    for all that is queued."""
    return 1 if device.type == "cpu" else 32


def loss_problem(loss: float, bound: float, step: int) -> str:
    """Why a training loss ends its run as diverged, or nothing."""
    if not math.isfinite(loss):
        return f"step {step}: loss is {loss}"
    return f"step {step}: loss is {loss:.4g}, above the bound {bound:g}" if loss > bound else ""


def test_problem(score: float, task: Task, step: int) -> str:
    """Why a score on the test part cannot be used, or nothing."""
    return "" if math.isfinite(score) else f"step {step}: test {task.metric} is {score}"


def make_scaler(recipe: Recipe, device: torch.device) -> GradScaler:
    """Loss scaling, at work only for float16 on a GPU."""
    return GradScaler(enabled=recipe.amp == "float16" and device.type == "cuda")


def is_recorded(recipe: Recipe, device: torch.device) -> bool:
    """Whether a step is a CUDA graph; loss scaling asks the CPU in its middle."""
    on_gpu = device.type == "cuda"
    return recipe.compile == "cudagraphs" and on_gpu and recipe.amp != "float16"


def make_update(
    task: Task,
    model: nn.Module,
    recipe: Recipe,
    learning_rate: float,
    steps: int,
    optimizer: Optimizer | None = None,
    scaler: GradScaler | None = None,
    shards: Shards = ALONE,
) -> Update:
    """The training step of a model: schedule, loss with the activations' penalties, gradients,
    clipping, optimizer. Loss scaling only for float16 on a GPU. Compiled as the recipe says, except
    where several processes share it: the first step then takes as long as the compiler does."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    recording = is_recorded(recipe, device) and shards.world == 1
    optimizer = optimizer or make_optimizer(model, recipe, learning_rate, recording)
    precision = precision_of(recipe.amp, device)
    scaler = scaler or make_scaler(recipe, device)
    terms = penalties(model) if recipe.penalty else []

    def loss_of(forward: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        with precision():
            loss = task.loss(forward(inputs), targets, recipe.label_smoothing)
            for penalty in terms:
                loss = loss + recipe.penalty * penalty()
        return loss

    if recipe.compile == "inductor" and shards.world == 1:  # the same draws of random layers
        loss_of = torch.compile(loss_of, dynamic=False, options={"fallback_random": True})

    def undivided(inputs: Tensor, targets: Tensor) -> Tensor:
        loss = loss_of(model, inputs, targets)
        scaler.scale(loss).backward()
        return loss.detach()

    split = shards.world > 1 or recipe.accumulate > 1
    backward = in_parts(model, loss_of, scaler, shards, recipe.accumulate) if split else undivided

    def whole(inputs: Tensor, targets: Tensor, rate: float | Tensor) -> Tensor:
        set_rate(optimizer, rate)
        for parameter in parameters:  # 1 µs; optimizer.zero_grad takes 30
            parameter.grad = None
        loss = backward(inputs, targets)
        if recipe.clip_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        return loss

    once = Recorded(whole) if recording else whole

    def update(step: int, inputs: Tensor, targets: Tensor) -> Tensor:
        return once(inputs, targets, learning_rate * rate_factor(recipe, step, steps))

    return update


def precision_of(
    amp: str | None, device: torch.device
) -> Callable[[], AbstractContextManager[object]]:
    """Makes the context of a forward pass: autocast to `amp`, or nothing."""
    return partial(torch.autocast, device.type, getattr(torch, amp)) if amp else nullcontext


@torch.no_grad()
def evaluate(
    task: Task,
    model: nn.Module,
    split: Split,
    amp: str | None = None,
    shards: Shards = ALONE,
) -> tuple[float, float]:
    """Mean loss and score of a model on a split, in evaluation mode."""
    model.eval()
    count, shards = len(split.targets), shards if len(split.targets) >= shards.world else ALONE
    shards.agree(model)
    split = shards.of_split(split) if shards.world > 1 else split
    precision = precision_of(amp, split.inputs.device)
    sums = MetricSums(task)
    batches = (part.split(EVALUATION_BATCH) for part in (split.inputs, split.targets))
    for inputs, targets in zip(*batches, strict=True):
        with precision():
            outputs = model(inputs)
        sums.add(outputs.float() if amp else outputs, targets)
    for value in sums.sums.values():
        shards.total(value)
    return sums.means(count)


class MetricSums:
    """A task's loss and metrics, summed over the batches of a split."""

    def __init__(self, task: Task):
        self.task = task
        self.sums: dict[str, Tensor] = {}

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch's outputs."""
        loss = self.task.loss(outputs, targets, 0.0) * len(targets)
        for name, value in {"loss": loss, **self.task.metrics(outputs, targets)}.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def means(self, count: int) -> tuple[float, float]:
        """The mean loss and the score of `count` samples."""
        means = {name: value.cpu().double() / count for name, value in self.sums.items()}
        score = self.task.score(means) if self.task.score else means[self.task.metric].item()
        return means["loss"].item(), score
