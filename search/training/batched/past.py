"""What a batch has told so far, and how that is written down."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from search.records import Member, Point, Run, SharedEpoch, run_from_json, to_json
from search.training.batched.members import Ended
from search.training.checkpoints import State


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
