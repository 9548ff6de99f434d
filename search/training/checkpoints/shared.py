"""The checkpoint of a run that several processes share: a file of each, and two sets in turn.

All of them write after the same step, by the first one's clock, and none goes on before all have
written. So of the last two sets one is whole whenever they are killed, and all go on from it.
"""

from __future__ import annotations

import time

from search.training.checkpoints.store import State
from search.training.checkpoints.trial import Checkpoint, Checkpoints
from search.training.shards import Shards

ASKS = 10
"""Steps between two questions whether it is time: each has the processes wait for each other."""
ENDED = 2**62
"""The step of a set that says what came of the run."""


def run_checkpoint(kept: Checkpoints, rate: float, seed: int, shards: Shards) -> Checkpoint:
    """Of a plain run, of one process or of several."""
    alone = kept.run(rate, seed)
    return alone if shards.world == 1 else SharedCheckpoint(kept, alone.name, shards)


class SharedCheckpoint(Checkpoint):
    """This process's part. At a wish to pause a set is written, once; then the driver ends them."""

    def __init__(self, trial: Checkpoints, name: str, shards: Shards):
        super().__init__(trial, name)
        self.shards = shards
        self.turn = 0
        """Which of the two sets is written next."""
        self.asked = False
        """Whether the wish to pause was heard."""

    def read(self) -> State | None:
        """This process's file of the latest set that is whole."""
        found = [self.trial._read(self._file(turn)) for turn in (0, 1)]
        steps = self.shards.of_all([_steps(state) for state in found])
        whole = [t for t in (0, 1) if steps[0][t] >= 0 and len({each[t] for each in steps}) == 1]
        if not whole:
            return None
        latest = max(whole, key=lambda turn: steps[0][turn])
        self.turn, self.written = 1 - latest, True
        return found[latest]

    def due(self, step: int) -> bool:
        every = self.trial.keeping
        if every.steps is not None and step % every.steps == 0:
            return True
        return step % ASKS == 0 and self.shards.of_all(self._wanted())[0]

    def _wanted(self) -> bool:
        if not self.asked and self.trial.asked_to_pause():
            self.asked = True
            return True
        seconds = self.trial.keeping.seconds
        return seconds is not None and time.monotonic() - self.last >= seconds

    def keep(self) -> None:
        self.save()

    def save(self) -> None:
        if self.state is not None:
            self._write(self.state())

    def end(self, outcome: State) -> None:
        if self.written:
            self._write(outcome)
        self.leave()

    def _write(self, state: State) -> None:
        self.trial._write(self._file(self.turn), state)
        self.shards.wait()
        self.turn, self.written, self.last = 1 - self.turn, True, time.monotonic()

    def _file(self, turn: int) -> str:
        return f"{self.name}_{turn}_{self.shards.rank}"


def _steps(state: State | None) -> int:
    """How far a set is; -1 where there is none."""
    if state is None:
        return -1
    return ENDED if "run" in state else state["step"] + len(state["losses"])
