"""Linear maps along one axis of an image, built on the host once per size and severity.

The matrices include the treatment of the border. A separable filter is then two matrix products
on the device.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from vone_jax import fast
from vone_jax.corruptions.levels import Images, Shape
from vone_jax.filters import Border, filter_matrix, gaussian_taps

# Accelerators round the operands of a product by default, with errors of up to one grey level.
PRECISION = jax.lax.Precision.HIGHEST


def image_by_image(corruption: Callable[..., Any]) -> Callable[..., Any]:
    """Make ``corruption(draws, images, arrays)`` process one image at a time on a CPU."""

    @functools.wraps(corruption)
    def applied(draws: Any, images: Images, arrays: Any) -> Images:
        return fast.one_by_one(lambda *batches: corruption(*batches, arrays), draws, images)

    return applied


def separable(
    images: Images, rows: Float[Array, "i h"], columns: Float[Array, "j w"]
) -> Float[Array, "n i j c"]:
    """Apply the matrix ``rows`` along the height of images, and ``columns`` along their width."""
    images = jnp.einsum("ih,nhwc->niwc", rows, images, precision=PRECISION)
    return jnp.einsum("jw,niwc->nijc", columns, images, precision=PRECISION)


def filtered(images: Images, taps: Float[Array, " k"]) -> Images:
    """Correlate images with an odd number of taps along both axes; border values are repeated."""
    reach = len(taps) // 2
    taps = taps[:, None, None, None]
    along_columns = weighted(padded(images, reach, 0, "edge"), taps, 1, 1).reshape(images.shape)
    values = padded(along_columns, 0, reach, "edge")
    return weighted(values, taps, 2, images.shape[-1]).reshape(images.shape)


def padded(images: Images, rows: int, columns: int, mode: str) -> Float[Array, "n _ _"]:
    """Pad images by rows and columns on either side, in a mode of ``jnp.pad``.

    The channels of a row lie side by side in the result: long enough for the vector units of a CPU.
    """
    count, height = images.shape[:2]
    border = ((0, 0), (rows, rows), (columns, columns), (0, 0))

    def pad(images: jax.Array):
        return jnp.pad(images, border, mode=mode).reshape(count, height + 2 * rows, -1)

    return fast.stage(pad, images)


def weighted(
    values: Shaped[Array, "n _ _"], weights: Float[Array, "k 1 _ _"], axis: int, step: int
) -> Float[Array, "n _ _"]:
    """Sum values times weights, shifted along axis 1 or 2 by ``step`` values for each weight.

    The float32 result is shorter than the values by ``step * (k - 1)`` along that axis. The last
    axes of the weights have the size of the result, or 1 for the same weight everywhere.
    """
    length = values.shape[axis] - step * (len(weights) - 1)
    total = jnp.float32(0)
    for place, weight in enumerate(weights):
        part = jax.lax.slice_in_dim(values, step * place, step * place + length, axis=axis)
        total = total + weight * part.astype(jnp.float32)
    return total


def gaussian(
    deviation: float, shape: Shape, border: Border = "nearest", truncate: float = 4
) -> tuple[np.ndarray, ...]:
    """Build the matrices of ``skimage.filters.gaussian``, float32 (H, H) and (W, W).

    The deviation is in pixels, and ``truncate`` is the radius of the filter in deviations.
    """
    taps = gaussian_taps(deviation, int(truncate * deviation + 0.5))
    return tuple(filter_matrix(side, taps, border) for side in shape[:2])


def zoom(side: int, factor: float) -> np.ndarray:
    """Build the matrix that enlarges the centre, float32 (side, side); see ``zoom_places``."""
    low, high, weight = zoom_places(side, factor)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side), low), 1 - weight)
    np.add.at(matrix, (np.arange(side), high), weight)
    return matrix.astype(np.float32)


def zoom_places(side: int, factor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the positions that an enlargement of the centre reads.

    This is ``scipy.ndimage.zoom`` of order 1. The central ``ceil(side / factor)`` values are
    stretched to ``round(ceil(side / factor) * factor)`` values, so that the first and the last
    values stay at the ends. The central ``side`` values of the result are kept.

    Returns:
      ``(low, high, weight)``, each of shape (side,). Output i is
      ``(1 - weight[i]) * input[low[i]] + weight[i] * input[high[i]]``.
    """
    inside = math.ceil(side / factor)
    outside = round(inside * factor)
    trim = (outside - side) // 2
    step = (inside - 1) / (outside - 1) if outside > 1 else 0.0
    position = (np.arange(side) + trim) * step
    low = np.clip(np.floor(position).astype(int), 0, max(inside - 2, 0))
    first = (side - inside) // 2
    return first + low, first + np.minimum(low + 1, inside - 1), position - low
