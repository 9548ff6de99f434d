"""Figures of `bench kernels` as plain values: what was timed, how long it took, against what."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

OURS = "ours"
COMPILED, COPY = "compile", "copy"
PEERS = ("native", "eager", COMPILED, COPY)
"""torch's own operator · the composed formula · torch.compile of that · the same bytes moved."""
DIRECTIONS = ("forward", "backward", "both")


@dataclass(frozen=True)
class Spread:
    """Repeated figures: one a round."""

    samples: tuple[float, ...]

    @cached_property
    def median(self) -> float:
        return statistics.median(self.samples)

    @cached_property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third; the figure itself with one round."""
        if len(self.samples) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return low, high

    def as_json(self) -> dict[str, Any]:
        return {
            "median": self.median,
            "quartiles": self.quartiles,
            "least": min(self.samples),
            "most": max(self.samples),
            "n": len(self.samples),
        }


@dataclass(frozen=True, slots=True)
class Timed:
    """One contestant of one case."""

    microseconds: Spread | None
    """Of one pass, by round; None when it could not run."""
    repetitions: int = 0
    """Passes in a round's sample."""
    compile_seconds: float | None = None
    """Of its first call, for a contestant that is compiled then."""
    problem: str = ""
    """Why it could not run, in one line."""


@dataclass(frozen=True, slots=True)
class First:
    """A new formula's way to its first finished step, in a process that has run others."""

    load: float
    """Seconds: lowered, rendered, compiled, loaded."""
    step: float
    """Seconds of the first forward and backward of 64 × 256 numbers after that."""

    @property
    def seconds(self) -> float:
        return self.load + self.step


@dataclass(frozen=True, slots=True)
class Measurement:
    """One formula in one direction, size and dtype: everybody's times, taken in turn."""

    name: str
    expression: str
    direction: str
    """One of DIRECTIONS."""
    elements: int
    dtype: str
    bytes: int
    """Read and written by one pass that touches every tensor once."""
    rendering: str
    """What computed ours: c, triton or torch."""
    times: Mapping[str, Timed]
    """By contestant: OURS, then those of PEERS that were asked for and exist."""
    first: First | None = None

    def ratio(self, peer: str) -> Spread | None:
        """Ours over the peer's time, round by round; None when either did not run."""
        pair = self._pair(peer)
        if pair is None:
            return None
        ours, theirs = pair
        return Spread(tuple(a / b for a, b in zip(ours.samples, theirs.samples, strict=True)))

    def ratio_of_least(self, peer: str) -> float | None:
        """Ours over the peer's shortest time: what a busy machine disturbs least."""
        pair = self._pair(peer)
        return None if pair is None else min(pair[0].samples) / min(pair[1].samples)

    def _pair(self, peer: str) -> tuple[Spread, Spread] | None:
        """Our times and the peer's; None when either did not run."""
        ours, other = self.times.get(OURS), self.times.get(peer)
        if not ours or not other or not ours.microseconds or not other.microseconds:
            return None
        return ours.microseconds, other.microseconds

    def rate(self, contestant: str) -> float | None:
        """Bytes per second, in 10⁹, at the median time."""
        timed = self.times.get(contestant)
        if timed is None or timed.microseconds is None:
            return None
        return self.bytes / timed.microseconds.median / 1e3

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "expression": self.expression,
            "direction": self.direction,
            "elements": self.elements,
            "dtype": self.dtype,
            "bytes": self.bytes,
            "rendering": self.rendering,
            "first_seconds": self.first and {"load": self.first.load, "step": self.first.step},
            "contestants": {name: self._contestant(name) for name in self.times},
        }

    def _contestant(self, name: str) -> dict[str, Any]:
        timed, ratio = self.times[name], self.ratio(name) if name != OURS else None
        figures = timed.microseconds
        return {
            "microseconds": figures and {**figures.as_json(), "samples": figures.samples},
            "gigabytes_per_second": self.rate(name),
            "ours_over_it": ratio and {**ratio.as_json(), "of_least": self.ratio_of_least(name)},
            "repetitions": timed.repetitions,
            "compile_seconds": timed.compile_seconds,
            "problem": timed.problem,
        }
