"""Where a batch stands: all that its next step depends on, and how that is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

from search.records import Member, Point
from search.training.batched.batch import Batch
from search.training.batched.optimizers import StackedAdamW, StackedOptimizer
from search.training.batched.past import Past, past_of
from search.training.checkpoints import Checkpoint, State


def take_up(
    begin: Callable[[Sequence[Member]], Batch], members: Sequence[Member], checkpoint: Checkpoint
) -> tuple[Batch | None, Past]:
    """The batch as it was written down, None if nothing of it is left to train; or a new one."""
    state = checkpoint.read()
    if state is None:
        return begin(members), Past()
    past = past_of(state)
    if not state["members"]:
        return None, past
    batch = begin([tuple(each["member"]) for each in state["members"]])
    if not checkpoint.restored(lambda state: restore(batch, state), state):
        return begin(members), Past()
    return batch, past


def batch_state(batch: Batch, past: Past) -> State:
    """All of it, between two steps."""
    told = past.state()
    own = [list(each.member) for each in batch.members]
    return {
        **told,
        "keys": [*told["keys"], *own],
        "members": [
            {
                "member": list(each.member),
                "curve": [list(astuple(point)) for point in each.curve],
                "seconds": each.seconds,
                "losses": list(each.losses),
            }
            for each in batch.members
        ],
        "step": batch.step,
        "done": batch.done,
        "names": list(batch.update.stacked.names),
        "tensors": _tensors(batch),
        "streams": [each.get_state() for each in batch.update.stacked.streams.generators],
        "order": [[seed, each.get_state()] for seed, each in batch.batches.order.items()],
        "draws": [[seed, each.get_state()] for seed, each in batch.batches.draws.items()],
        "numbers": batch.batches.numbers,
    }


@torch.no_grad()
def restore(batch: Batch, state: Mapping[str, Any]) -> None:
    """Stand where the state was written; `batch` is a new one of its members.

    Raises:
        ValueError: it is of another model.
    """
    places, values = _tensors(batch), state["tensors"]
    same = batch.update.stacked.names == state["names"] and len(places) == len(values)
    pairs = list(zip(places, values, strict=True)) if same else []
    if not same or any(place.shape != value.shape for place, value in pairs):
        raise ValueError("it is of another model")
    for place, value in pairs:
        place.copy_(value)
    for member, kept in zip(batch.members, state["members"], strict=True):
        member.curve = [Point(*point) for point in kept["curve"]]
        member.seconds, member.losses = kept["seconds"], list(kept["losses"])
    for own, kept in zip(batch.update.stacked.streams.generators, state["streams"], strict=True):
        own.set_state(kept)
    for generators, name in ((batch.batches.order, "order"), (batch.batches.draws, "draws")):
        for seed, kept in state[name]:
            if seed in generators:
                generators[seed].set_state(kept)
    batch.batches.numbers = state["numbers"].to(batch.device)
    batch.step, batch.done = state["step"], state["done"]


def _tensors(batch: Batch) -> list[Tensor]:
    """What training changes: parameters, buffers, and the optimizer's own."""
    stacked = batch.update.stacked
    return [*stacked.stored, *stacked.constants, *_of_optimizer(batch.update.optimizer)]


def _of_optimizer(optimizer: StackedOptimizer) -> list[Tensor]:
    if isinstance(optimizer, StackedAdamW):
        return [*optimizer.means, *optimizer.squares, *optimizer.steps]
    return [momentum for momentum in optimizer.momenta if momentum is not None]
