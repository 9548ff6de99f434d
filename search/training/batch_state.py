"""Where a batch stands: all that its next step depends on, and how that is written down."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from search.records import Member, Point, Run, SharedEpoch, run_from_json, to_json
from search.training.checkpoints import State, Stream
from search.training.stacked_optimizers import StackedAdamW, StackedOptimizer

if TYPE_CHECKING:
    from search.training.batched import Batch


Ended = dict[Member, Run]
"""Runs that ended, by member."""


@dataclass(slots=True)
class Past:
    """What a batch has told so far, and what it is to tell with the epoch under way."""

    epochs: list[SharedEpoch] = field(default_factory=list)
    ended: Ended = field(default_factory=dict)
    """Runs that ended since the last epoch was told."""

    def add(self, points: Mapping[Member, Point], ended: Mapping[Member, Run]) -> SharedEpoch:
        """The epoch that is told now."""
        self.epochs.append(SharedEpoch(points, {**self.ended, **ended}))
        self.ended = {}
        return self.epochs[-1]

    def heard_again(
        self, members: Collection[Member]
    ) -> Generator[SharedEpoch, Mapping[Member, str] | None, dict[Member, str]]:
        """The epochs of before, of the runs that are asked for; which of them are to end now."""
        dropped: dict[Member, str] = {}
        for epoch in self.epochs:
            points = {member: point for member, point in epoch.points.items() if member in members}
            ended = {member: run for member, run in epoch.ended.items() if member in members}
            dropped |= (yield SharedEpoch(points, ended)) or {}
        return dropped

    def state(self) -> State:
        """As it is written."""
        every = [self.ended, *(epoch.ended for epoch in self.epochs)]
        return {
            "keys": [list(member) for ended in every for member in ended],
            "epochs": [
                {
                    "points": [[*member, *astuple(point)] for member, point in each.points.items()],
                    "ended": _written(each.ended),
                }
                for each in self.epochs
            ],
            "ended": _written(self.ended),
            "members": [],
        }


def _written(ended: Mapping[Member, Run]) -> list[Any]:
    return [[list(member), to_json(run)] for member, run in ended.items()]


def _read(ended: Sequence[Any]) -> Ended:
    return {tuple(member): run_from_json(run) for member, run in ended}


def past_of(state: Mapping[str, Any]) -> Past:
    """What was written."""
    epochs = [
        SharedEpoch(
            {(place, rate, seed): Point(*rest) for place, rate, seed, *rest in each["points"]},
            _read(each["ended"]),
        )
        for each in state["epochs"]
    ]
    return Past(epochs, _read(state["ended"]))


def take_up(
    begin: Callable[[Sequence[Member]], Batch], members: Sequence[Member], stream: Stream
) -> tuple[Batch | None, Past]:
    """The batch as it was written down, None if nothing of it is left to train; or a new one."""
    state = stream.read()
    if state is None:
        return begin(members), Past()
    past = past_of(state)
    if not state["members"]:
        return None, past
    batch = begin([tuple(each["member"]) for each in state["members"]])
    if not stream.restored(lambda state: restore(batch, state), state):
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
        "names": list(batch.stacked.names),
        "tensors": _tensors(batch),
        "streams": [each.get_state() for each in batch.stacked.streams.generators],
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
    same = batch.stacked.names == state["names"] and len(places) == len(values)
    pairs = list(zip(places, values, strict=True)) if same else []
    if not same or any(place.shape != value.shape for place, value in pairs):
        raise ValueError("it is of another model")
    for place, value in pairs:
        place.copy_(value)
    for member, kept in zip(batch.members, state["members"], strict=True):
        member.curve = [Point(*point) for point in kept["curve"]]
        member.seconds, member.losses = kept["seconds"], list(kept["losses"])
    for own, kept in zip(batch.stacked.streams.generators, state["streams"], strict=True):
        own.set_state(kept)
    for generators, name in ((batch.batches.order, "order"), (batch.batches.draws, "draws")):
        for seed, kept in state[name]:
            if seed in generators:
                generators[seed].set_state(kept)
    batch.batches.numbers = state["numbers"].to(batch.device)
    batch.step, batch.done = state["step"], state["done"]


def _tensors(batch: Batch) -> list[Tensor]:
    """What training changes: parameters, buffers, and the optimizer's own."""
    stacked = batch.stacked
    return [*stacked.stored, *stacked.constants, *_of_optimizer(batch.optimizer)]


def _of_optimizer(optimizer: StackedOptimizer) -> list[Tensor]:
    if isinstance(optimizer, StackedAdamW):
        return [*optimizer.means, *optimizer.squares, *optimizer.steps]
    return [momentum for momentum in optimizer.momenta if momentum is not None]
