"""The generators of epochs: what trains together, from its start or its checkpoint to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from search.records import Key, Member
from search.tasks.task import MakeActivation, Recipe, Splits, Task, splits_to
from search.training.batched.batch import Batch
from search.training.batched.evaluation import evaluate
from search.training.batched.past import Past
from search.training.batched.state import batch_state, take_up
from search.training.checkpoints import Checkpoint
from search.training.sweep import Epochs, SharedEpochs


def run_together(
    task: Task,
    splits: Splits,
    make_activation: MakeActivation,
    *,
    options: Mapping[str, Any],
    recipe: Recipe,
    keys: Sequence[Key],
    device: torch.device | str = "cpu",
    testing: bool = False,
    checkpoint: Checkpoint | None = None,
) -> Epochs:
    """Train one candidate's runs of all keys from scratch; an Epoch after every epoch.

    As `run_members`, whose only candidate it is.
    """
    members = [(0, *key) for key in keys]
    epochs = run_members(
        task,
        splits,
        (make_activation,),
        options=options,
        recipe=recipe,
        members=members,
        device=device,
        testing=testing,
        checkpoint=checkpoint,
    )
    return of_one(epochs)


def of_one(stream: SharedEpochs) -> Epochs:
    """The epochs of a single candidate."""
    dropped: dict[Member, str] | None = None
    while True:
        try:
            epoch = stream.send(dropped)
        except StopIteration:
            return
        told = yield epoch.of(0)
        dropped = {(0, *key): reason for key, reason in (told or {}).items()}


def run_members(
    task: Task,
    splits: Splits,
    makes: Sequence[MakeActivation],
    *,
    options: Mapping[str, Any],
    recipe: Recipe,
    members: Sequence[Member],
    device: torch.device | str = "cpu",
    testing: bool = False,
    checkpoint: Checkpoint | None = None,
) -> SharedEpochs:
    """Train the runs of several candidates from scratch; a SharedEpoch after every epoch.

    `makes[c]` makes the activation of the members (c, rate, seed), a module that differs from the
    others' in its numbers alone. `options` are complete (see `options_with`). Whoever consumes the
    epochs may end runs by `send({member: reason})`: they come back as pruned with the next one. A
    run's seconds are its share of the time: a step's, divided by the members that took it.
    `testing`, `checkpoint`: see `run_epochs`.

    Raises:
        BatchingError: the model or the recipe cannot be batched; the text names the layer.
        Paused: somebody asked for the end; the checkpoint has all that goes on.
    """
    device = torch.device(device)
    splits = splits_to(splits, device)

    def begin(members: Sequence[Member]) -> Batch:
        return Batch(task, splits, makes, options, recipe, members, device, testing)

    if checkpoint is None:
        yield from _trained(begin(members), Past())
        return
    batch, past = take_up(begin, members, checkpoint)
    dropped = yield from past.heard_again(members)
    if batch is None:
        return
    batch.drop({each.member: "" for each in batch.members if each.member not in members})
    past.ended |= batch.drop(dropped)
    checkpoint.begin(lambda: batch_state(batch, past))
    try:
        yield from _trained(batch, past, checkpoint)
        checkpoint.end(past.state())
    finally:
        checkpoint.leave()


def _trained(batch: Batch, past: Past, checkpoint: Checkpoint | None = None) -> SharedEpochs:
    while batch.members:
        batch.train_epoch(past.ended, checkpoint)
        points, ended = evaluate(batch)
        told = yield past.add(points, ended)
        past.ended |= batch.drop(told or {})
    if past.ended:
        yield past.add({}, {})
