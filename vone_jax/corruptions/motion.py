"""Motion blur: one-sided, along a line of a random angle. Snow moves its flakes with it too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import fast
from vone_jax.corruptions import levels

# The largest radius of all tables is 20 pixels.
_MOST_TAPS = 41
_REACH = _MOST_TAPS - 1
# A round over the images costs more time in memory than in sums.
_TAPS_AT_ONCE = 8


def taps(parameters: tuple[float, float], shape: tuple[int, int, int]) -> tuple:
    """Weights of the taps, padded with zeros to (41,), and how many there are.

    Args:
      parameters: radius and standard deviation in pixels: 2 radius + 1 taps
        exp(-i^2 / (2 deviation^2)), i = 0, 1, ..., that sum to 1.
      shape: (H, W, C) of the images.
    """
    radius, deviation = parameters
    count = 2 * int(radius) + 1
    weights = np.exp(-(np.arange(count) ** 2) / (2.0 * deviation**2))
    weights /= weights.sum()
    return np.pad(weights, (0, _MOST_TAPS - count)).astype(np.float32), np.int32(count)


def draw_angles(keys: jax.Array, shape: tuple[int, int, int], arrays: tuple) -> jax.Array:
    """Angles in degrees, uniform from -45 to 45, shape (N,)."""
    return jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32, -45.0, 45.0))(keys)


def blur(angles: jax.Array, images: jax.Array, arrays: tuple) -> jax.Array:
    """Motion blur of the images as 8-bit levels, rounded down as ImageMagick does.

    Args:
      angles: degrees, shape (N,).
      images: float32 in [0, 1], shape (N, H, W, C).
      arrays: see ``taps``.
    """
    return blur_levels(angles, levels.from_images(images), arrays) / 255


def blur_levels(angles: jax.Array, values: jax.Array, arrays: tuple) -> jax.Array:
    """sum_i w_i values(y + ceil(i sin - 1/2), x + ceil(i cos - 1/2)), rounded down.

    Values beyond the border are those at the border.
    """
    return fast.one_by_one(functools.partial(_blurred, arrays=arrays), angles, values)


def _blurred(angles: jax.Array, values: jax.Array, arrays: tuple) -> jax.Array:
    weights, count = arrays
    angles = jnp.deg2rad(angles)[:, None]
    rounds = -(-count // _TAPS_AT_ONCE)
    missing = -_MOST_TAPS % _TAPS_AT_ONCE
    weights = jnp.pad(weights, (0, missing))
    # What weighs nothing is read at the first tap.
    steps = jnp.pad(jnp.arange(_MOST_TAPS, dtype=jnp.float32), (0, missing))[None]
    down = jnp.ceil(steps * jnp.sin(angles) - 0.5).astype(jnp.int32) + _REACH
    right = jnp.ceil(steps * jnp.cos(angles) - 0.5).astype(jnp.int32) + _REACH
    border = (_REACH, _REACH)
    count_images, height, width, channels = values.shape

    # Channels side by side, so that rows are long enough for vector units.
    def pad(values):
        padded = jnp.pad(values, ((0, 0), border, border, (0, 0)), mode="edge")
        return padded.reshape(count_images, height + 2 * _REACH, -1)

    padded = fast.stage(pad, values)
    start = jnp.zeros((count_images, height, width * channels), values.dtype)

    def window(image, top, left):
        return jax.lax.dynamic_slice(image, (top, left), start.shape[1:])

    def add(number, total):
        for tap in range(_TAPS_AT_ONCE):
            tap += number * _TAPS_AT_ONCE
            parts = jax.vmap(window)(padded, down[:, tap], channels * right[:, tap])
            total = total + weights[tap] * parts
        return total

    # A loop of as many rounds as there are taps for: one compilation, little time lost on zeros.
    total = jax.lax.fori_loop(0, rounds, add, start)
    return levels.truncate(total.reshape(values.shape))
