"""Corruptions of value and resolution. They draw nothing; ``keys`` are there for the form."""

import jax
import jax.numpy as jnp
import numpy as np

_PRECISION = jax.lax.Precision.HIGHEST


def brightness(keys: jax.Array, images: jax.Array, amount: jax.Array) -> jax.Array:
    """Adds to V of HSV. With hue and saturation kept this scales the channels alike.

    Grey images have one channel, which is V.
    """
    value = jnp.max(images, axis=-1, keepdims=True)
    brighter = jnp.clip(value + amount, 0.0, 1.0)
    black = value <= 0
    return jnp.where(black, brighter, images * (brighter / jnp.where(black, 1.0, value)))


def contrast(keys: jax.Array, images: jax.Array, factor: jax.Array) -> jax.Array:
    """(x - mean) factor + mean, with the mean of each image and channel."""
    mean = jnp.mean(images, axis=(1, 2), keepdims=True)
    return (images - mean) * factor + mean


def box_matrices(share: float, shape: tuple[int, int, int]) -> tuple:
    """Pillow's BOX resizing to ``share`` of the size and back: (rows, columns) down, then up."""
    height, width, _ = shape
    small = max(int(height * share), 1), max(int(width * share), 1)
    down = _box_matrix(height, small[0]), _box_matrix(width, small[1])
    up = _box_matrix(small[0], height), _box_matrix(small[1], width)
    return down, up


def pixelate(keys: jax.Array, images: jax.Array, matrices: tuple) -> jax.Array:
    """Resizes down and up again in eight bits, columns first and rounding after each pass."""
    levels = _round(images * 255)
    for rows, columns in matrices:
        levels = _round(jnp.einsum("jw,nhwc->nhjc", columns, levels, precision=_PRECISION))
        levels = _round(jnp.einsum("ih,nhjc->nijc", rows, levels, precision=_PRECISION))
    return levels / 255


def _round(levels: jax.Array) -> jax.Array:
    # Half goes up. Averages of few integers lie on halves or well away from them, and the
    # small term brings those back that float32 leaves just below.
    return jnp.floor(levels + (0.5 + 1e-3))


def _box_matrix(source: int, target: int) -> np.ndarray:
    """Pillow's BOX filter as a matrix (target, source): the mean over what a pixel covers."""
    scale = source / target
    support = max(scale, 1.0)
    matrix = np.zeros((target, source))
    for i in range(target):
        centre = (i + 0.5) * scale
        first = int(max(centre - support / 2 + 0.5, 0))
        last = int(min(centre + support / 2 + 0.5, source))
        for j in range(first, last):
            matrix[i, j] = -0.5 < (j - centre + 0.5) / support <= 0.5
    return (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
