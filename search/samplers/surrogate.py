"""A Gaussian process over behaviours, averaged over its length scale and noise.

A Matérn 5/2 kernel in the principal axes, with the amplitude at its most likely value; length
scale and noise lie on a small grid, weighted by their marginal likelihood. A grid and not an
optimizer: with ten trials the likelihood has several tops, and a length scale shares one
decomposition for all its noises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.spatial.distance import cdist

Array = NDArray[np.floating[Any]]

LENGTHS = (0.4, 0.7, 1.2, 2.0, 3.5, 6.0)
"""In units in which every block of features has variance 1."""
NOISES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Variance of the noise by that of the function."""
LIKELY = 128
"""Observations that the weights follow from, at most."""
MODES = 4
"""Settings of the grid that predict, at most."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A point of the grid."""

    length: float
    noise: float
    amplitude: float
    """Variance of the function."""
    weight: float


def matern(distances: Array, length: float) -> Array:
    """(1 + r + r²/3) exp(-r), r = sqrt(5) d / length."""
    r = distances * (5**0.5 / length)
    return (1 + r + r * r / 3) * np.exp(-r)


def settings(points: Array, values: Array) -> list[Setting]:
    """The most likely points of the grid, weights adding up to 1; `values` have mean 0."""
    n, distances = len(values), cdist(points, points)
    found: list[tuple[float, float, float, float]] = []
    for length in LENGTHS:
        eigenvalues, vectors = np.linalg.eigh(matern(distances, length))
        rotated = (vectors.T @ values) ** 2
        for noise in NOISES:
            variances = np.maximum(eigenvalues, 0) + noise
            # One virtual observation of variance 1: two equal values do not make it 0.
            amplitude = (float((rotated / variances).sum()) + 1.0) / (n + 1)
            likelihood = -0.5 * ((n + 1) * np.log(amplitude) + np.log(variances).sum())
            found.append((float(likelihood), length, noise, amplitude))
    found.sort(reverse=True)
    weights = np.exp([each[0] - found[0][0] for each in found[:MODES]])
    weights /= weights.sum()
    return [
        Setting(length, noise, amplitude, float(weight))
        for (_, length, noise, amplitude), weight in zip(found, weights, strict=False)
    ]


def predict(
    points: Array, values: Array, running: Array, wanted: Array, grid: list[Setting]
) -> tuple[Array, Array]:
    """Mean and standard deviation at `wanted`, (m, axes); without the noise.

    Trials that run are believed to bring what is expected of them (kriging believer, Ginsbourger
    et al. 2010): that leaves every mean as it is and takes the variance around them away.
    """
    all_points = np.concatenate([points, running])
    inside, across = cdist(all_points, all_points), cdist(wanted, all_points)
    mean, second = np.zeros(len(wanted)), np.zeros(len(wanted))
    n = len(values)
    for s in grid:
        kernel = matern(inside, s.length) + s.noise * np.eye(len(all_points))
        root = cholesky(kernel, lower=True)
        k = matern(across, s.length)
        # The leading block of the root is the root of the leading block.
        own = k[:, :n] @ cho_solve((root[:n, :n], True), values)
        solved = solve_triangular(root, k.T, lower=True)
        variance = s.amplitude * np.maximum(1.0 - (solved**2).sum(axis=0), 1e-9)
        mean += s.weight * own
        second += s.weight * (variance + own**2)
    return mean, np.sqrt(np.maximum(second - mean**2, 1e-12))
