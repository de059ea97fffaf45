"""Linear maps along one axis, built on the host once per size and severity.

The treatment of the border is folded in, so that on the device a separable map is two matrix
products.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import fast

# The default on accelerators would round the operands: errors up to one grey level.
PRECISION = jax.lax.Precision.HIGHEST


def separable(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Applies (H', H) to the rows and (W', W) to the columns of images (N, H, W, C)."""
    images = jnp.einsum("ih,nhwc->niwc", rows, images, precision=PRECISION)
    return jnp.einsum("jw,niwc->nijc", columns, images, precision=PRECISION)


def filtered(images: jax.Array, taps: jax.Array) -> jax.Array:
    """Correlates images (N, H, W, C) with the same few taps along both axes.

    The number of taps is odd; values beyond the border are those at the border.
    """
    count, height, width, channels = images.shape
    reach = len(taps) // 2
    for axis, step, length in ((1, 1, height), (2, channels, channels * width)):
        border = [(reach, reach) if one == axis else (0, 0) for one in range(4)]
        rows = height + 2 * reach * (axis == 1)

        # Channels side by side, so that rows are long enough for vector units.
        def padded(images, border=border, rows=rows):
            return jnp.pad(images, border, mode="edge").reshape(count, rows, -1)

        values = fast.stage(padded, images)
        total = jnp.zeros((count, height, width * channels), images.dtype)
        for k in range(len(taps)):
            part = jax.lax.slice_in_dim(values, step * k, step * k + length, axis=axis)
            total = total + taps[k] * part
        images = total.reshape(images.shape)
    return images


def gaussian(
    side: int, deviation: float, *, border: str = "nearest", truncate: float = 4
) -> np.ndarray:
    """Smoothing with a Gaussian cut off at ``truncate`` deviations, float32 (side, side).

    This is ``skimage.filters.gaussian``: ``border`` "nearest" repeats the border value and
    "reflect" mirrors with the border value repeated.
    """
    radius = int(truncate * deviation + 0.5)
    positions = neighbours(side, radius)
    if border == "nearest":
        positions = np.clip(positions, 0, side - 1)
    else:
        positions = positions % (2 * side)
        positions = np.minimum(positions, 2 * side - 1 - positions)
    return from_taps(gaussian_taps(deviation, radius), positions).astype(np.float32)


def zoom(side: int, factor: float) -> np.ndarray:
    """Enlargement of the centre as a matrix, float32 (side, side); see ``zoom_places``."""
    low, high, weight = zoom_places(side, factor)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side), low), 1 - weight)
    np.add.at(matrix, (np.arange(side), high), weight)
    return matrix.astype(np.float32)


def zoom_places(side: int, factor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Enlargement of the centre: ``scipy.ndimage.zoom`` of order 1.

    The central ``ceil(side / factor)`` values are spread over ``round(side_in * factor)``, first
    on first and last on last, and the central ``side`` of those are kept.

    Returns:
      (low, high, weight), each (side,): every value lies between two, and nearer to the second
      one as ``weight`` grows from 0 to 1.
    """
    inside = math.ceil(side / factor)
    outside = round(inside * factor)
    trim = (outside - side) // 2
    step = (inside - 1) / (outside - 1) if outside > 1 else 0.0
    position = (np.arange(side) + trim) * step
    low = np.clip(np.floor(position).astype(int), 0, max(inside - 2, 0))
    first = (side - inside) // 2
    return first + low, first + np.minimum(low + 1, inside - 1), position - low


def gaussian_taps(deviation: float, radius: int) -> np.ndarray:
    """Weights of a Gaussian at -radius to radius; they sum to 1."""
    if radius == 0:
        return np.ones(1)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    return taps / taps.sum()


def neighbours(side: int, radius: int) -> np.ndarray:
    """Positions read for each output position, shape (side, 2 radius + 1), borders ignored."""
    return np.arange(side)[:, None] + np.arange(-radius, radius + 1)[None]


def mirrored(positions: np.ndarray, side: int) -> np.ndarray:
    """Reflection that does not repeat the border value (OpenCV's default)."""
    positions = np.abs(positions)
    return np.where(positions >= side, 2 * (side - 1) - positions, positions)


def from_taps(taps: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The linear map that reads ``positions`` with weights ``taps``, float64."""
    side = len(positions)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], positions), np.broadcast_to(taps, positions.shape))
    return matrix
