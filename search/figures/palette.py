"""The colours of a heatmap, made to be read through: every one is lighter than ink."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import Colormap, ListedColormap
from numpy.typing import NDArray

WORST, BEST = np.array([0.97, 0.008, 0.03]), np.array([0.66, -0.04, -0.115])
"""The two ends of the colours, in Oklab."""
TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
TO_LINEAR_SRGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def blue_palette() -> Colormap:
    """Cream to blue in equal steps of Oklab: perceptually uniform, ink readable on all of it."""
    return ListedColormap([oklab_to_srgb(colour) for colour in np.linspace(WORST, BEST, 256)])


def oklab_to_srgb(colour: NDArray[np.float64]) -> tuple[float, ...]:
    """sRGB in [0, 1] of an Oklab colour (L, a, b) (Ottosson 2020)."""
    long, middle, short_ = (TO_CONES @ colour) ** 3
    linear = np.clip(TO_LINEAR_SRGB @ np.array([long, middle, short_]), 0.0, 1.0)
    bent = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return tuple(float(channel) for channel in bent)
