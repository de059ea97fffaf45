"""Correlations of maps with narrow and wide kernels, as products with banded matrices.

If a Gaussian is wide relative to the map, this is faster than a convolution on CPUs and
accelerators, gradients included. Maps continue by reflection.
"""

import functools

import numpy as np
import scipy
from jaxtyping import Float, Float32


def gaussian_taps(deviation: float) -> Float[np.ndarray, " k"]:
    """Return the taps of a Gaussian, cut at three standard deviations; their sum is 1.

    The standard deviation is in positions; 0 gives a single tap.
    """
    reach = int(np.ceil(3.0 * deviation))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * np.square(offsets / max(deviation, 1e-6)))
    return weights / weights.sum()


def half_octaves(deviation: np.ndarray | float) -> np.ndarray:
    """Round standard deviations in positions to half octaves; those below 0.42 become 0."""
    steps = np.round(2.0 * np.log2(np.maximum(deviation, 0.01)))
    return np.where(steps < -2.0, 0.0, 2.0 ** (steps / 2.0))


@functools.lru_cache(maxsize=64)
def reflecting_matrix(side: int, taps: tuple[float, ...]) -> Float32[np.ndarray, "side side"]:
    """The matrix of a correlation along an axis that continues by reflection.

    The number of taps is odd; the middle one is at offset 0.
    """
    return scipy.ndimage.correlate1d(np.eye(side), taps, axis=0, mode="mirror").astype(np.float32)
