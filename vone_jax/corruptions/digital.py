"""Corruptions of value and resolution. They draw nothing; ``keys`` are there for the form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import fast
from vone_jax.corruptions import levels


def brightness(keys: jax.Array, images: jax.Array, amount: jax.Array) -> jax.Array:
    """Adds to V of HSV. With hue and saturation kept this scales the channels alike.

    Grey images have one channel, which is V.
    """
    value = functools.reduce(jnp.maximum, levels.channels(images))
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
    value = functools.reduce(jnp.maximum, levels.channels(images))
    spread = value - functools.reduce(jnp.minimum, levels.channels(images))
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


def box_weights(share: float, shape: tuple[int, int, int]) -> tuple:
    """Pillow's BOX resizing to ``share`` of the size and back, as weights for rows and columns.

    A large pixel shows the small one that it lies in, the mean of those around that cover it. For
    either axis float32 (2 reach + 1, side): the weights of the neighbours -reach to reach.
    """
    return tuple(_box_weights(side, max(int(side * share), 1)) for side in shape[:2])


def pixelate(keys: jax.Array, images: jax.Array, arrays: tuple) -> jax.Array:
    """Resizes down and up again in eight bits, columns first and rounding after each pass."""
    rows, columns = arrays
    channels = images.shape[-1]

    # Channels side by side, so that rows are long enough for vector units.
    def eight_bits(images):
        return levels.from_images(images).astype(jnp.uint8).reshape(*images.shape[:2], -1)

    def along_rows(values, weights):
        mean = _weighted(values, weights[:, None, None], 2, channels)
        return levels.nearest(mean).astype(jnp.uint8)

    values = _bordered(fast.stage(eight_bits, images), 2, channels * (len(columns) // 2))
    values = fast.stage(along_rows, values, jnp.repeat(columns, channels, axis=1))
    values = _bordered(values, 1, len(rows) // 2)
    mean = _weighted(values, rows[:, None, :, None], 1, 1)
    return (levels.nearest(mean) / 255).reshape(images.shape)


def _bordered(values: jax.Array, axis: int, width: int) -> jax.Array:
    """Zeros before and after the values along an axis. They weigh nothing."""
    border = [(width, width) if one == axis else (0, 0) for one in range(values.ndim)]
    return fast.stage(lambda values: jnp.pad(values, border), values)


def _weighted(values: jax.Array, weights: jax.Array, axis: int, step: int) -> jax.Array:
    """The sum of weights times values, which move on by ``step`` along the axis each time."""
    length = weights.shape[axis + 1]
    parts = (
        jax.lax.slice_in_dim(values, step * place, step * place + length, axis=axis)
        for place in range(len(weights))
    )
    total = jnp.float32(0)
    for weight, part in zip(weights, parts, strict=True):
        total = total + weight * part.astype(jnp.float32)
    return total


def _box_weights(source: int, target: int) -> np.ndarray:
    shown = _box_matrix(target, source).argmax(axis=1)
    means = _box_matrix(source, target)[shown]
    large, small = np.nonzero(means)
    reach = np.abs(small - large).max()
    weights = np.zeros((2 * reach + 1, source), np.float32)
    weights[small - large + reach, large] = means[large, small]
    return weights


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
