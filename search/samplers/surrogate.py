"""A Gaussian process over behaviours, averaged over its length scale and noise.

The kernel is a mean of Matérn 5/2 kernels, one for each group of features: what two candidates
have in common in one respect is learned from, whatever they do in another. (One kernel in all
features at once needed 49 instead of 35 trials, in the mean over 30 searches of a table of
unary/binary functions, and 25 instead of 19 on gated ones.) Length scale and noise lie on a small
grid, weighted by their marginal likelihood. A grid and not an optimizer: with ten trials the
likelihood has several tops, and all noises share the decomposition of a length scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.spatial.distance import cdist

Array = NDArray[np.floating[Any]]

LENGTHS = (1.2, 2.0, 3.5, 6.0, 10.0, 16.0)
"""In units in which every group of features has variance 1."""
LENGTH, SPREAD = 5.0, 0.8
"""The prior's: log length ~ N(log 5, 0.8²)."""
NOISES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Variance of the noise by that of the function."""
LIKELY = 128
"""Observations that the weights follow from, at most."""
MODES = 4
"""Settings of the grid that predict, at most; of more than `LIKELY` observations the best alone."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A point of the grid."""

    length: float
    noise: float
    amplitude: float
    """Variance of the function."""
    weight: float


def distances(first: Array, second: Array) -> Array:
    """(groups, n, m) from (groups, n, axes) and (groups, m, axes)."""
    return np.stack([cdist(a, b) for a, b in zip(first, second, strict=True)])


def kernel(distances: Array, length: float) -> Array:
    """The mean over the groups of (1 + r + r²/3) exp(-r), r = sqrt(5) d / length."""
    total = np.zeros_like(distances[0])
    for group in distances:
        r = group * (5**0.5 / length)
        total += (1 + r + r * r / 3) * np.exp(-r)
    return total / len(distances)


def settings(points: Array, values: Array) -> list[Setting]:
    """The most likely points of the grid, weights adding up to 1; `values` have mean 0."""
    n, within = len(values), distances(points, points)
    found: list[tuple[float, float, float, float]] = []
    for length in LENGTHS:
        prior = -0.5 * (np.log(length / LENGTH) / SPREAD) ** 2
        eigenvalues, vectors = np.linalg.eigh(kernel(within, length))
        rotated = (vectors.T @ values) ** 2
        for noise in NOISES:
            variances = np.maximum(eigenvalues, 0) + noise
            # One virtual observation of variance 1: two equal values do not make it 0.
            amplitude = (float((rotated / variances).sum()) + 1.0) / (n + 1)
            likelihood = -0.5 * ((n + 1) * np.log(amplitude) + np.log(variances).sum())
            found.append((float(prior + likelihood), length, noise, amplitude))
    found.sort(reverse=True)
    weights = np.exp([each[0] - found[0][0] for each in found[:MODES]])
    weights /= weights.sum()
    return [
        Setting(length, noise, amplitude, float(weight))
        for (_, length, noise, amplitude), weight in zip(found, weights, strict=False)
    ]


def likeliest(grid: list[Setting]) -> list[Setting]:
    """The first alone, with all the weight."""
    return [replace(grid[0], weight=1.0)]


def predict(
    points: Array, values: Array, running: Array, wanted: Array, grid: list[Setting]
) -> tuple[Array, Array]:
    """Mean and standard deviation, (m,), at `wanted`; without the noise.

    points, running, wanted: (groups, n | k | m, axes). values: (n,).

    Trials that run are believed to bring what is expected of them (kriging believer, Ginsbourger
    et al. 2010): that leaves every mean as it is and takes the variance around them away.
    """
    both = np.concatenate([points, running], axis=1)
    # In float32, twice as fast: the noise is 1e5 roundings or more.
    within, across = distances(both, both), distances(wanted, both).astype(np.float32)
    kernels = {s.length: kernel(across, s.length) for s in grid}
    mean, second = np.zeros(wanted.shape[1]), np.zeros(wanted.shape[1])
    n = len(values)
    for s in grid:
        noisy = kernel(within, s.length) + s.noise * np.eye(both.shape[1])
        root, k = cholesky(noisy, lower=True), kernels[s.length]
        # The leading block of the root is the root of the leading block.
        own = k[:, :n] @ cho_solve((root[:n, :n], True), values)
        solved = solve_triangular(root.astype(np.float32), k.T, lower=True)
        variance = s.amplitude * np.maximum(1.0 - (solved**2).sum(axis=0), 1e-6)
        mean += s.weight * own
        second += s.weight * (variance + own**2)
    return mean, np.sqrt(np.maximum(second - mean**2, 1e-12))
