"""The candidates that wait at a rung, and their way up, as the study remembers it.

A waiting candidate is a trial that Optuna takes for running. Its attributes say the rest, so that a
search goes on after a kill, and can be replayed:

    rung <epoch>        its value there; its rank and of how many when it came; when that was, as a
                        number that counts all decisions of the study
    paused              the epoch at which it waits, its points and seconds so far; null once it
                        goes on
    promoted <epoch>    its rank, of how many, and when, as it was promoted
    unpromoted          the same of one that nobody promoted, at the end
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from search.database.attributes import record_number
from search.database.opening import Database
from search.promotion import UNPROMOTED, Place, places, promotable
from search.records import Key, Point
from search.space.settings import Promotion
from search.trials.launches import Launch


class Ladder:
    """Who reached which rung, and who waits there; `attributes` of a trial are its memory."""

    def __init__(self, promotion: Promotion | None, maximize: bool, database: Database):
        self.promotion = promotion
        self.maximize = maximize
        self.reached: dict[int, dict[int, float]] = {}
        """Values by epoch and trial."""
        self.promoted: dict[int, set[int]] = {}
        """Trials by epoch."""
        self.waiting: dict[int, int] = {}
        """The epoch at which a trial waits."""
        self.seconds: dict[int, float] = {}
        """What those that waited have taken."""
        self.order = 0
        for number, frozen in _every(database) if promotion else ():
            self.remember(number, frozen.user_attrs)

    def remember(self, number: int, attributes: Mapping[str, Any]) -> None:
        """Take in what a trial has kept."""
        for key, kept in rung_attributes(attributes).items():
            what, _, epoch = key.partition(" ")
            self.order = max(self.order, kept["order"])
            if what == "rung":
                self.reached.setdefault(int(epoch), {})[number] = kept["value"]
            elif what == "promoted":
                self.promoted.setdefault(int(epoch), set()).add(number)
        if is_paused(attributes):
            self.waiting[number] = attributes["paused"]["epoch"]
            self.seconds[number] = attributes["paused"]["seconds"]

    def reach(
        self,
        asked: optuna.Trial,
        launch: Launch,
        epoch: int,
        value: float,
        curves: Mapping[Key, list[Point]],
        seconds: float,
    ) -> bool:
        """A trial has its value at a rung; whether it waits there.

        curves, seconds: its points, and the time that it took.
        """
        number = launch.number
        if number not in self.reached.setdefault(epoch, {}):  # else its checkpoint was lost
            self.reached[epoch][number] = value
            asked.set_user_attr(f"rung {epoch}", {"value": value, **self._decision(number, epoch)})
        if launch.origin == "baseline":  # it goes on, whatever its value is
            if number not in self.promoted.setdefault(epoch, set()):
                self.promoted[epoch].add(number)
                asked.set_user_attr(f"promoted {epoch}", self._decision(number, epoch))
            return False
        waits = epoch > launch.promoted
        if waits:
            self.waiting[number], self.seconds[number] = epoch, seconds
            told = [[*key, [asdict(point) for point in points]] for key, points in curves.items()]
            asked.set_user_attr("paused", {"epoch": epoch, "curves": told, "seconds": seconds})
        return waits

    def next(self) -> int | None:
        """The trial that is to go on now, if one may."""
        if self.promotion is None or not self.waiting:
            return None
        epochs = sorted(self.reached)
        reached = [self.reached[epoch] for epoch in epochs]
        promoted = [self.promoted.get(epoch, set()) for epoch in epochs]
        found = promotable(reached, promoted, self.promotion.eta, self.maximize)
        waits = (p for p in found if self.waiting.get(p.number) == epochs[p.rung])
        return next((place.number for place in waits), None)

    def go_on(self, asked: optuna.Trial, number: int) -> int:
        """Let it go on; the epoch at which it waited."""
        epoch = self.waiting.pop(number)
        self.promoted.setdefault(epoch, set()).add(number)
        asked.set_user_attr(f"promoted {epoch}", self._decision(number, epoch))
        asked.set_user_attr("paused", None)
        return epoch

    def give_up(self, asked: optuna.Trial, number: int) -> tuple[int, str]:
        """Nobody will promote it: the epoch at which it waited, and why."""
        epoch = self.waiting.pop(number)
        asked.set_user_attr("unpromoted", self._decision(number, epoch))
        place = self.place(number, epoch)
        return epoch, f"{UNPROMOTED} {epoch}: rank {place.rank} of {place.of}"

    def forget(self, number: int) -> None:
        """The trial goes on under another number."""
        for values in self.reached.values():
            values.pop(number, None)
        for numbers in self.promoted.values():
            numbers.discard(number)

    def place(self, number: int, epoch: int) -> Place:
        """Where a trial stands at a rung now."""
        ordered = places(self.reached[epoch], 0, self.maximize)
        return next(place for place in ordered if place.number == number)

    def _decision(self, number: int, epoch: int) -> dict[str, int]:
        place = self.place(number, epoch)
        self.order += 1
        return {"rank": place.rank, "of": place.of, "order": self.order}


def is_paused(attributes: Mapping[str, Any]) -> bool:
    """Whether a trial waits at a rung."""
    return attributes.get("paused") is not None and "record" not in attributes


def rung_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial keeps of its rungs when it goes on in a later one."""
    return {k: v for k, v in attributes.items() if k.startswith(("rung ", "promoted "))}


def promoted_to(attributes: Mapping[str, Any]) -> int:
    """The epoch of the last rung that a trial has passed; 0: none."""
    passed = [key.partition(" ")[2] for key in attributes if key.startswith("promoted ")]
    return max(map(int, passed), default=0)


def taken_up(database: Database, number: int) -> tuple[optuna.Trial, dict[Key, list[Point]]]:
    """A trial that waits, in the hands of a new driver; and the points that it has."""
    study = database.baselines if number < 0 else database.search
    study.sampler = RandomSampler(seed=0)  # draws nothing
    own = record_number(number < 0, number)
    frozen = next(t for t in study.get_trials(deepcopy=False) if t.number == own)
    curves = {
        (rate, seed): [Point(**point) for point in points]
        for rate, seed, points in frozen.user_attrs["paused"]["curves"]
    }
    return optuna.Trial(study, frozen._trial_id), curves


def _every(database: Database) -> Iterator[tuple[int, FrozenTrial]]:
    """All trials but those that go on in a later one."""
    for baselines, study in database.studies:
        for frozen in study.get_trials(deepcopy=False):
            if "continued" not in frozen.user_attrs:
                yield record_number(baselines, frozen.number), frozen
