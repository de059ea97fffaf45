"""Corruptions of value and resolution. They draw nothing; ``keys`` are there for the form."""

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax.corruptions import levels, stages


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


def box_places(share: float, shape: tuple[int, int, int]) -> tuple:
    """Pillow's BOX resizing to ``share`` of the size and back: (rows, columns) of both ways.

    For either axis: the places that each small pixel is the mean of, (taps, small), how many of
    them count, (small,), and which small pixel each large one shows, (side,). All int32.
    """
    return tuple(_box_places(side, max(int(side * share), 1)) for side in shape[:2])


def pixelate(keys: jax.Array, images: jax.Array, arrays: tuple) -> jax.Array:
    """Resizes down and up again in eight bits, columns first and rounding after each pass."""
    rows, columns = arrays
    count, height, width, channels = images.shape
    small = _box_mean(levels.from_images(images), 2, *columns[:2])
    # Channels side by side, so that rows are long enough for vector units.
    small = stages.stored(small.reshape(count, height, -1))
    small = stages.stored(_box_mean(small, 1, *rows[:2]) / 255)
    wide = _read(small.reshape(count, small.shape[1], -1, channels), 2, columns[2])
    wide = stages.stored(wide.reshape(count, -1, width * channels))
    return _read(wide, 1, rows[2]).reshape(images.shape)


def _box_mean(values: jax.Array, axis: int, places: jax.Array, counts: jax.Array) -> jax.Array:
    along = [1] * values.ndim
    along[axis] = -1
    total = _read(values, axis, places[0])
    for tap in range(1, len(places)):
        counted = (counts > tap).astype(values.dtype).reshape(along)
        total = total + counted * _read(values, axis, places[tap])
    return levels.nearest(total / counts.astype(values.dtype).reshape(along))


def _read(values: jax.Array, axis: int, places: jax.Array) -> jax.Array:
    return values.at[(slice(None),) * axis + (places,)].get(mode="promise_in_bounds")


def _box_places(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pillow's BOX filter: the mean over what a pixel covers; enlarged, the pixel it lies in."""
    down = _box_matrix(source, target) > 0
    counts = down.sum(axis=1)
    taps = np.arange(counts.max())
    # Places beyond the last one of a pixel do not count, but they are read.
    places = np.minimum(down.argmax(axis=1) + taps[:, None], source - 1)
    up = _box_matrix(target, source).argmax(axis=1)
    return places.astype(np.int32), counts.astype(np.int32), up.astype(np.int32)


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
