"""Where a batch stands: all that its next step depends on, and how that is written down."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from search.records import Epoch, Key, Point, Run, run_from_json, to_json
from search.training.checkpoints import State, Stream
from search.training.stacked_optimizers import StackedAdamW, StackedOptimizer

if TYPE_CHECKING:
    from search.training.batched import Batch


@dataclass(slots=True)
class Past:
    """What a batch has told so far, and what it is to tell with the epoch under way."""

    epochs: list[Epoch] = field(default_factory=list)
    ended: list[Run] = field(default_factory=list)
    """Runs that ended since the last epoch was told."""

    def add(self, points: Mapping[Key, Point], ended: Sequence[Run] = ()) -> Epoch:
        """The epoch that is told now."""
        self.epochs.append(Epoch(points, (*self.ended, *ended)))
        self.ended = []
        return self.epochs[-1]

    def heard_again(
        self, keys: Collection[Key]
    ) -> Generator[Epoch, Mapping[Key, str] | None, dict[Key, str]]:
        """The epochs of before, of the runs that are asked for; which of them are to end now."""
        dropped: dict[Key, str] = {}
        for epoch in self.epochs:
            points = {key: point for key, point in epoch.points.items() if key in keys}
            ended = tuple(run for run in epoch.ended if (run.learning_rate, run.seed) in keys)
            dropped |= (yield Epoch(points, ended)) or {}
        return dropped

    def state(self) -> State:
        """As it is written."""
        return {
            "keys": sorted({key for key in self._keys()}),
            "epochs": [
                {
                    "points": [[*key, *astuple(point)] for key, point in epoch.points.items()],
                    "ended": [to_json(run) for run in epoch.ended],
                }
                for epoch in self.epochs
            ],
            "ended": [to_json(run) for run in self.ended],
            "members": [],
        }

    def _keys(self) -> list[Key]:
        runs = [*self.ended, *(run for epoch in self.epochs for run in epoch.ended)]
        return [(run.learning_rate, run.seed) for run in runs]


def past_of(state: Mapping[str, Any]) -> Past:
    """What was written."""
    epochs = [
        Epoch(
            {(rate, seed): Point(*rest) for rate, seed, *rest in epoch["points"]},
            tuple(run_from_json(run) for run in epoch["ended"]),
        )
        for epoch in state["epochs"]
    ]
    return Past(epochs, [run_from_json(run) for run in state["ended"]])


def take_up(
    begin: Callable[[Sequence[Key]], Batch], keys: Sequence[Key], stream: Stream
) -> tuple[Batch | None, Past]:
    """The batch as it was written down, None if nothing of it is left to train; or a new one."""
    state = stream.read()
    if state is None:
        return begin(keys), Past()
    past = past_of(state)
    if not state["members"]:
        return None, past
    batch = begin([tuple(member["key"]) for member in state["members"]])
    if not stream.restored(lambda state: restore(batch, state), state):
        return begin(keys), Past()
    return batch, past


def batch_state(batch: Batch, past: Past) -> State:
    """All of it, between two steps."""
    told = past.state()
    own = [member.key for member in batch.members]
    return {
        **told,
        "keys": [*told["keys"], *own],
        "members": [
            {
                "key": list(member.key),
                "curve": [list(astuple(point)) for point in member.curve],
                "seconds": member.seconds,
                "losses": list(member.losses),
            }
            for member in batch.members
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
