"""Where `behaviour` looks for a candidate: derivations with their features, thousands of them.

A finite space that is small enough is taken whole. Of a larger one there are blocks of random
derivations: a first one that also gives the principal axes, then one more with every trial, the
oldest leaving. Block k is drawn by (seed, k), so that a restart or a replay has the same pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.samplers.derivations import drawn
from search.samplers.features import BLOCKS, Behaviour, behaviour
from search.space.grammar import Candidate, Grammar

Array = NDArray[np.floating[Any]]

WHOLE = 2_000
"""Derivations of a finite space that is taken whole: 0.7 ms each, once."""
FIRST, BLOCK, WINDOW = 384, 24, 64
"""Candidates of the first block and of the others, and how many of those there are."""
AXES = 24
"""Principal components that are kept: 98 to 99.6 % of the variance in the shipped spaces."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The principal axes of what a grammar's candidates do."""

    centre: Array
    limit: Array
    scale: Array
    components: Array
    """(features, axes)"""

    def project(self, behaviours: Sequence[Behaviour]) -> Array:
        """(n, axes); a feature far outside what the axes were made from is cut."""
        rows = np.array([np.concatenate(b.blocks) for b in behaviours], dtype=np.float64)
        rows = rows.reshape(len(behaviours), len(self.centre)) - self.centre
        return (np.clip(rows, -self.limit, self.limit) * self.scale) @ self.components


def axes_of(behaviours: Sequence[Behaviour]) -> Axes:
    """Axes in which every block of features has variance 1 in all, however many it has.

    By the Gram matrix: there are more features than candidates.
    """
    rows = np.array([np.concatenate(b.blocks) for b in behaviours], dtype=np.float64)
    centre = np.median(rows, axis=0)
    rows = rows - centre
    limit = np.quantile(np.abs(rows), 0.99, axis=0) + 1e-9
    rows = np.clip(rows, -limit, limit)
    sizes = [block.size for block in behaviours[0].blocks]
    parts = np.split((rows**2).mean(axis=0), np.cumsum(sizes)[:-1])
    totals = [float(part.sum()) for part in parts]
    scales = [0.0 if total < 1e-12 else total**-0.5 for total in totals]
    scale = np.repeat(scales, sizes)
    rows = rows * scale
    variances, left = np.linalg.eigh(rows @ rows.T)
    kept = [k for k in np.argsort(-variances)[:AXES] if variances[k] > 1e-9 * variances[-1]]
    components = rows.T @ left[:, kept] / np.sqrt(variances[kept])
    return Axes(centre, limit, scale, components)


@dataclass(frozen=True, slots=True)
class Members:
    """Candidates and where they stand."""

    candidates: tuple[Candidate, ...]
    points: Array
    """(n, axes)"""
    counts: Array
    """(n, counted): what the cost follows from."""


def joined(parts: Iterable[Members]) -> Members:
    """All of them together."""
    parts = tuple(parts)
    candidates = tuple(c for part in parts for c in part.candidates)
    points = np.concatenate([part.points for part in parts])
    return Members(candidates, points, np.concatenate([part.counts for part in parts]))


class Pool:
    """The candidates to choose from; what it holds follows from grammar, seed and trial number."""

    def __init__(self, grammar: Grammar, seed: int):
        self.grammar = grammar
        self.seed = seed
        size = grammar.count()
        self.whole = not size.continuous and size.derivations <= WHOLE
        first = list(grammar.candidates()) if self.whole else self._drawn(0, FIRST)
        behaviours = [behaviour(c.expression) for c in first]
        self.axes = axes_of([b for b in behaviours if b.finite] or behaviours)
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

    def members(self, candidates: Sequence[Candidate]) -> Members:
        """Candidates with finite behaviour; the others would fail a gate."""
        pairs = [(c, behaviour(c.expression)) for c in candidates]
        kept = [(c, b) for c, b in pairs if b.finite]
        behaviours = [b for _, b in kept]
        counts = np.array([b.blocks[BLOCKS.index("counts")] for b in behaviours], dtype=np.float64)
        points = self.axes.project(behaviours)
        return Members(tuple(c for c, _ in kept), points, counts.reshape(len(kept), -1))
