"""Filters along one axis, as taps and as matrices. NumPy only."""

from typing import Literal

import numpy as np
import scipy
from jaxtyping import Float, Float32

# Modes of ``scipy.ndimage``: repeat the border value; mirror without it; mirror including it; or
# zeros outside.
Border = Literal["nearest", "mirror", "reflect", "constant"]


def gaussian_taps(deviation: float, radius: int) -> Float[np.ndarray, " k"]:
    """Return the weights of a Gaussian at -radius to radius; they sum to 1."""
    if radius == 0:
        return np.ones(1)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    return taps / taps.sum()


def filter_matrix(
    side: int, taps: Float[np.ndarray, " k"], border: Border
) -> Float32[np.ndarray, "side side"]:
    """Return the matrix of a correlation with an odd number of taps.

    If a filter is wide relative to the axis, the product with this matrix is faster than a
    convolution on CPUs and accelerators, gradients included.
    """
    return scipy.ndimage.correlate1d(np.eye(side), taps, axis=0, mode=border).astype(np.float32)
