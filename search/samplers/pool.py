"""Where `behaviour` looks for a candidate: derivations with their features, thousands of them.

A finite space that is small enough is taken whole. Of a larger one there are blocks of random
derivations: a first one that also gives the principal axes, then one more with every trial, the
oldest leaving. Block k is drawn by (seed, k), so that a restart or a replay has the same pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from search.samplers.derivations import Choices, drawn
from search.samplers.features import BLOCKS, GROUPS, Behaviour, behaviour
from search.samplers.surrogate import Points, together
from search.space.grammar import Candidate, Grammar

Array = NDArray[np.floating[Any]]

WHOLE = 2_000
"""Derivations of a finite space that is taken whole: 0.7 ms each, once."""
FIRST, BLOCK, WINDOW = 384, 16, 96
"""Candidates of the first block and of the others, and how many of those there are."""
HASHED = 128
"""Places that chosen numbers are hashed to."""
AXES = 12
"""Principal components that are kept of every group of features."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The principal axes of one group of features, over a grammar's candidates."""

    blocks: tuple[int, ...]
    """Places of the group's blocks in a behaviour."""
    centre: Array
    limit: Array
    scale: Array
    components: Array
    """(features, axes)"""

    def project(self, behaviours: Sequence[Behaviour]) -> Array:
        """(n, axes); a feature far outside what the axes were made from is cut."""
        rows = _rows(behaviours, self.blocks).reshape(len(behaviours), len(self.centre))
        rows = np.clip(rows - self.centre, -self.limit, self.limit)
        return (rows * self.scale) @ self.components


def _rows(behaviours: Sequence[Behaviour], blocks: Sequence[int]) -> Array:
    rows = [np.concatenate([each.blocks[k] for k in blocks]) for each in behaviours]
    return np.array(rows, dtype=np.float64)


def axes_of(behaviours: Sequence[Behaviour], group: Sequence[str]) -> Axes:
    """Axes in which all blocks of the group have the same variance and 1 together.

    By the Gram matrix: there are more features than candidates.
    """
    blocks = tuple(BLOCKS.index(name) for name in group)
    rows = _rows(behaviours, blocks)
    centre = np.median(rows, axis=0)
    rows = rows - centre
    limit = np.quantile(np.abs(rows), 0.99, axis=0) + 1e-9
    rows = np.clip(rows, -limit, limit)
    sizes = [behaviours[0].blocks[k].size for k in blocks]
    parts = np.split((rows**2).mean(axis=0), np.cumsum(sizes)[:-1])
    totals = np.array([float(part.sum()) for part in parts])
    scales = np.where(totals < 1e-12, 0.0, (len(blocks) * np.maximum(totals, 1e-12)) ** -0.5)
    scale = np.repeat(scales, sizes)
    rows = rows * scale
    variances, left = np.linalg.eigh(rows @ rows.T)
    kept = [k for k in np.argsort(-variances)[:AXES] if variances[k] > 1e-9]
    components = rows.T @ left[:, kept] / np.sqrt(variances[kept])
    return Axes(blocks, centre, limit, scale, np.pad(components, ((0, 0), (0, AXES - len(kept)))))


@dataclass(frozen=True, slots=True)
class Members:
    """Candidates and where they stand."""

    candidates: tuple[Candidate, ...]
    points: Points
    counts: Array
    """(n, counted): what the cost follows from."""


def joined(parts: Iterable[Members]) -> Members:
    """All of them together."""
    parts = tuple(parts)
    candidates = tuple(c for part in parts for c in part.candidates)
    points = together([part.points for part in parts])
    return Members(candidates, points, np.concatenate([part.counts for part in parts]))


def chosen_numbers(choices: Choices) -> Array:
    """(hashed,), of length 1: its product with another's is the share of the numbers that both
    chose at the same path, 1 where neither chose any.

    Numbers of a range are never equal by chance; two derivations have them in common where one is
    a variation of the other.
    """
    chosen = [f"{path} {value!r}" for path, value in choices.items() if isinstance(value, float)]
    found = np.zeros(HASHED)
    for each in chosen or ["none"]:
        found[crc32(each.encode()) % HASHED] += 1.0
    return found / np.linalg.norm(found)


class Pool:
    """The candidates to choose from; what it holds follows from grammar, seed and trial number."""

    def __init__(self, grammar: Grammar, seed: int):
        self.grammar = grammar
        self.seed = seed
        size = grammar.count()
        self.whole = not size.continuous and size.derivations <= WHOLE
        first = list(grammar.candidates()) if self.whole else self._drawn(0, FIRST)
        behaviours = [behaviour(c.expression) for c in first]
        tame = [b for b in behaviours if b.finite] or behaviours
        some = tame[:: 1 + (len(tame) - 1) // FIRST]  # a Gram matrix of 2,000 would take seconds
        self.axes = tuple(axes_of(some, group) for group in GROUPS)
        self._blocks: dict[int, Members] = {0: self.members(first)}

    def _drawn(self, block: int, size: int) -> list[Candidate]:
        rng = np.random.default_rng([self.seed, block, 3])
        return [drawn(self.grammar, rng) for _ in range(size)]

    def at(self, number: int) -> Members:
        """The pool of a trial."""
        if self.whole:
            return self._blocks[0]
        wanted = [0, *range(max(1, number - WINDOW + 1), number + 1)]
        self._blocks = {
            block: self._blocks.get(block) or self.members(self._drawn(block, BLOCK))
            for block in wanted
        }
        return joined(self._blocks.values())

    def points(self, derived: Sequence[tuple[Choices, Behaviour]]) -> Points:
        """Of derivations and what they do."""
        behaviours = [each for _, each in derived]
        axes = np.stack([axes.project(behaviours) for axes in self.axes])
        numbers = np.array([chosen_numbers(choices) for choices, _ in derived])
        return Points(axes, numbers.reshape(len(derived), HASHED))

    def members(self, candidates: Sequence[Candidate]) -> Members:
        """Candidates with finite behaviour; the others would fail a gate."""
        pairs = [(c, behaviour(c.expression)) for c in candidates]
        kept = [(c, b) for c, b in pairs if b.finite]
        behaviours = [b for _, b in kept]
        counts = np.array([b.blocks[BLOCKS.index("counts")] for b in behaviours], dtype=np.float64)
        points = self.points([(c.choices, b) for c, b in kept])
        return Members(tuple(c for c, _ in kept), points, counts.reshape(len(kept), -1))
