"""Edges of 8-bit images and distances to them, as OpenCV computes them, on the device.

All arrays are levels or distances (N, H, W).
"""

import functools

import jax
import jax.numpy as jnp

from vone_jax import fast

# A pixel in the units of distances, in which OpenCV's chamfer lengths for a 5 x 5 mask are whole:
# 1 straight, 1.4 diagonal, 2.1969 for a knight's move.
UNIT = 10000
_STEPS = (10000, 14000, 21969)


def canny(levels: jax.Array, low: int, high: int) -> jax.Array:
    """Canny edges with 3 x 3 Sobel gradients and the L1 norm, boolean.

    Args:
      levels: int32.
      low: edge points have a larger gradient than this one.
      high: edges are those connected to a point with a larger gradient than this one.
    """
    padded = fast.stage(
        lambda levels: jnp.pad(levels, ((0, 0), (1, 1), (1, 1)), mode="edge"), levels
    )
    right, down = fast.stage(_gradients, padded)
    size = jnp.abs(right) + jnp.abs(down)
    around = _Around(size, 1, 0)
    # tan 22.5 degrees in 15-bit fixed point, as OpenCV has it.
    flat = jnp.abs(right) * 13573
    steep = flat + (jnp.abs(right) << 16)
    height = jnp.abs(down) << 15
    falling = (right ^ down) >= 0
    along_row = (size > around(0, -1)) & (size >= around(0, 1))
    along_column = (size > around(-1, 0)) & (size >= around(1, 0))
    along_diagonal = jnp.where(
        falling,
        (size > around(-1, -1)) & (size > around(1, 1)),
        (size > around(-1, 1)) & (size > around(1, -1)),
    )
    crest = jnp.where(
        height < flat, along_row, jnp.where(height > steep, along_column, along_diagonal)
    )
    candidates = crest & (size > low)
    return _connected(candidates & (size > high), candidates)


def _gradients(padded: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sobel gradients to the right and down of levels that are padded by one."""
    smooth = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    right = smooth[:, :, 2:] - smooth[:, :, :-2]
    smooth = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    return right, smooth[:, 2:] - smooth[:, :-2]


def _connected(seeds: jax.Array, candidates: jax.Array) -> jax.Array:
    """The candidates that are connected to a seed over candidates, diagonals included."""

    def grow(state):
        found, _ = state
        around = _Around(found, 1, False)
        grown = found
        for step in _ring(1):
            grown = grown | around(*step)
        grown = grown & candidates
        return grown, jnp.any(grown != found)

    found, _ = jax.lax.while_loop(lambda state: state[1], grow, (seeds, jnp.bool_(True)))
    return found


def truncated_distance(points: jax.Array, largest: int) -> jax.Array:
    """Chamfer distance to the nearest point, at most ``largest``, times ``UNIT``, int32.

    Paths of straight, diagonal and knight's steps of lengths 1, 1.4 and 2.1969. Two straight or
    two diagonal steps can be taken at once, and a shortest path does not mix straight and diagonal
    ones, so half as many rounds as its length, rounded up, of taking the best of all neighbours
    reach every path.
    """
    far = jnp.int32(largest * UNIT)
    start = jnp.where(points, jnp.int32(0), far)

    def relax(_, distance):
        around = _Around(distance, 2, far)
        for step, length in _CHAMFER:
            distance = jnp.minimum(distance, around(*step) + length)
        return distance

    return jax.lax.fori_loop(0, (largest + 1) // 2, relax, start)


def equalised(levels: jax.Array, highest: int) -> jax.Array:
    """Histogram equalisation of int32 levels from 0 to ``highest``."""
    total = levels.shape[1] * levels.shape[2]
    flat_levels = levels.reshape(len(levels), total)
    counts = jax.vmap(functools.partial(jnp.bincount, length=highest + 1))(flat_levels)
    below = jnp.cumsum(counts, axis=1)
    lowest = jnp.argmax(counts > 0, axis=1)
    first = jnp.take_along_axis(counts, lowest[:, None], axis=1)
    # An image of one level stays as it is.
    flat = first == total
    scale = 255 / jnp.where(flat, 1, total - first).astype(jnp.float32)
    spread = jnp.round((below - first).astype(jnp.float32) * scale).astype(jnp.int32)
    table = jnp.where(flat, jnp.arange(highest + 1, dtype=jnp.int32)[None], jnp.maximum(spread, 0))
    return jnp.take_along_axis(table, flat_levels, axis=1).reshape(levels.shape)


def correlated(values: jax.Array, kernel: tuple[tuple[int, ...], ...]) -> jax.Array:
    """Correlation with a 3 x 3 kernel; the border is mirrored without repeating it."""
    padded = fast.stage(
        lambda values: jnp.pad(values, ((0, 0), (1, 1), (1, 1)), mode="reflect"), values
    )
    height, width = values.shape[1:]
    total = jnp.zeros_like(values)
    for row, line in enumerate(kernel):
        for column, weight in enumerate(line):
            if weight:
                part = padded[:, row : row + height, column : column + width]
                total = total + weight * part
    return total


class _Around:
    """Neighbours of each value: ``around(down, right)``, ``outside`` beyond the border."""

    def __init__(self, values: jax.Array, reach: int, outside):
        border = ((0, 0), (reach, reach), (reach, reach))
        self._padded = fast.stage(
            lambda values: jnp.pad(values, border, constant_values=outside), values
        )
        self._reach = reach
        self._shape = values.shape[1:]

    def __call__(self, down: int, right: int) -> jax.Array:
        top, left = self._reach + down, self._reach + right
        return self._padded[:, top : top + self._shape[0], left : left + self._shape[1]]


def _ring(reach: int) -> list[tuple[int, int]]:
    span = range(-reach, reach + 1)
    return [(down, right) for down in span for right in span if (down, right) != (0, 0)]


def _length(down: int, right: int) -> int:
    if abs(down * right) == 2:
        return _STEPS[2]
    return max(abs(down), abs(right)) * _STEPS[1 if down * right else 0]


_CHAMFER = [(step, _length(*step)) for step in _ring(2)]
