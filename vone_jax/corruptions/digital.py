"""Corruptions of value and resolution. They draw nothing; ``keys`` are there for the form."""

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax.corruptions import levels, matrices


def brightness(keys: jax.Array, images: jax.Array, amount: jax.Array) -> jax.Array:
    """Adds to V of HSV. With hue and saturation kept this scales the channels alike.

    Grey images have one channel, which is V.
    """
    value = jnp.max(images, axis=-1, keepdims=True)
    brighter = jnp.clip(value + amount, 0.0, 1.0)
    black = value <= 0
    return jnp.where(black, brighter, images * (brighter / jnp.where(black, 1.0, value)))


def saturation_numbers(parameters: tuple[float, float], shape: tuple[int, int, int]) -> np.ndarray:
    """Factor and addend of the saturation, float32 (2,)."""
    return np.asarray(parameters, np.float32)


def saturate(keys: jax.Array, images: jax.Array, numbers: jax.Array) -> jax.Array:
    """S of HSV becomes clip(factor S + addend, 0, 1), with hue and value kept.

    Grey pixels have no hue; as in the benchmark theirs is red, which shows where an addend gives
    them a saturation. Grey images become the luma of that.
    """
    factor, addend = numbers
    value = jnp.max(images, axis=-1, keepdims=True)
    spread = value - jnp.min(images, axis=-1, keepdims=True)
    grey = spread <= 0
    saturation = jnp.where(grey, 0.0, spread / jnp.where(grey, 1.0, value))
    target = jnp.clip(factor * saturation + addend, 0.0, 1.0)
    # V - (V - x) S' / S, with S = spread / V.
    kept = value - (value - images) * (target * value / jnp.where(grey, 1.0, spread))
    if images.shape[-1] == 1:
        return jnp.where(grey, value * (1 - (1 - levels.LUMA[0]) * target), kept)
    others = jnp.asarray([0.0, 1.0, 1.0], images.dtype)[None, None, None]
    return jnp.where(grey, value * (1 - others * target), kept)


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


def pixelate(keys: jax.Array, images: jax.Array, arrays: tuple) -> jax.Array:
    """Resizes down and up again in eight bits, columns first and rounding after each pass."""
    values = levels.from_images(images)
    for rows, columns in arrays:
        values = jnp.einsum("jw,nhwc->nhjc", columns, values, precision=matrices.PRECISION)
        values = levels.nearest(values)
        values = jnp.einsum("ih,nhjc->nijc", rows, values, precision=matrices.PRECISION)
        values = levels.nearest(values)
    return values / 255


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
