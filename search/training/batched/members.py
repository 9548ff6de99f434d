"""The members of a batch: runs on their way, and how they end."""

from __future__ import annotations

from dataclasses import dataclass, field

from search.records import Key, Member, Point, Run, RunState, ended_run

Ended = dict[Member, Run]
"""Runs that ended, by member."""


@dataclass(slots=True)
class MemberRun:
    """One run on its way."""

    member: Member
    curve: list[Point] = field(default_factory=list)
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    """Of the steps of the epoch under way."""
    test: float | None = None
    """The score on the test part."""

    @property
    def key(self) -> Key:
        """Its rate and seed."""
        return self.member[1:]

    def run(self, state: RunState, step: int, reason: str = "") -> Run:
        """Its record, when it ends so after `step` steps."""
        return ended_run(self.key, state, reason, self.curve, step, self.seconds, self.test)
