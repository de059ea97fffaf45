"""Spatter: drops of water (severities 1 to 3) or of mud (4 and 5).

Water needs Canny edges and distances to them. They are computed here as OpenCV does, on integer
levels and distances of shape (N, H, W).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vone_jax import fast
from vone_jax.corruptions import levels, matrices, noise
from vone_jax.corruptions.levels import Images, Keys, Shape

_WATER = (175, 238, 238)
_MUD = (63, 42, 20)
_LARGEST_DISTANCE = 20  # to the edge of a drop, in pixels
_RELIEF = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
_BOX = ((1, 1, 1),) * 3

# A pixel in the units of distances. In these units OpenCV's lengths of steps in a 5 x 5 mask are
# whole: 1 straight, 1.4 diagonal, 2.1969 for a knight's move.
UNIT = 10000
_STRAIGHT, _DIAGONAL, _KNIGHT = 10000, 14000, 21969


def prepare(parameters: tuple, shape: Shape) -> dict:
    """Return the numbers of the severity and the smoothing of the liquid and of a mask of mud.

    Raises:
      ValueError: if the images are smaller than 2 x 2 pixels.
    """
    mean, deviation, smoothing, threshold, strength, is_mud = parameters
    if min(shape[:2]) < 2:
        raise ValueError(f"spatter needs images of at least 2x2 pixels, got {shape[0]}x{shape[1]}")

    return {
        "numbers": np.asarray([mean, deviation, threshold], np.float32),
        "smoothing": matrices.gaussian(smoothing, shape),
        # Water and mud are compiled separately: the other one is None.
        "water": None if is_mud else np.float32(strength),
        "mud": matrices.gaussian(strength, shape) if is_mud else None,
    }


def draw(keys: Keys, shape: Shape, arrays: dict) -> Float[Array, "n h w 1"]:
    """Draw standard normal numbers."""
    return noise.normal(keys, (*shape[:2], 1))


def spatter(normal: Float[Array, "n h w 1"], images: Images, arrays: dict) -> Images:
    """Add a film of water, or blend in mud, whose shape follows from the normal numbers."""
    mean, deviation, threshold = arrays["numbers"]
    liquid = matrices.separable(mean + deviation * normal, *arrays["smoothing"])
    if arrays["mud"] is None:
        liquid = jnp.where(liquid < threshold, 0.0, liquid)
        # As in ImageNet-C, eight bits overflow where the liquid exceeds 1.
        liquid = levels.truncate(255 * liquid[..., 0]) % 256
        film = arrays["water"] * fast.one_by_one(water, liquid)[..., None]
        return images + film * levels.colour(_WATER, images.shape[-1])
    mask = (liquid > threshold).astype(jnp.float32)
    mask = matrices.separable(mask, *arrays["mud"])
    mask = jnp.where(mask < 0.8, 0.0, mask)
    return images * (1 - mask) + mask * levels.colour(_MUD, images.shape[-1])


def water(liquid: Float[Array, "n h w"]) -> Float[Array, "n h w"]:
    """Return the thickness of the film of water, from 0 to 1, for levels of liquid.

    The liquid is weighted with a relief, which follows from the distance to the edges of drops.
    """
    points = canny(liquid.astype(jnp.int32), 50, 150)
    distance = truncated_distance(points, _LARGEST_DISTANCE)
    # The mean of 9, truncated to whole pixels.
    distance = _correlated(distance, _BOX) // (9 * UNIT)
    distance = _equalised(distance, _LARGEST_DISTANCE)
    relief = jnp.clip(_correlated(distance, _RELIEF), 0, 255)
    relief = (2 * _correlated(relief, _BOX) + 9) // 18
    film = liquid * relief.astype(jnp.float32)
    thickest = jnp.max(film, axis=(1, 2), keepdims=True)
    return jnp.where(thickest > 0, film / jnp.where(thickest > 0, thickest, 1.0), 0.0)


def canny(levels: Int[Array, "n h w"], low: int, high: int) -> Bool[Array, "n h w"]:
    """Find Canny edges with 3 x 3 Sobel gradients and the L1 norm.

    Points of an edge have a gradient above ``low``, and one of them has a gradient above ``high``.
    """
    padded = _padded(levels, 1, mode="edge")
    right, down = fast.stage(_gradients, padded)
    size = jnp.abs(right) + jnp.abs(down)
    around = _around(size, 1, 0)
    # tan 22.5 degrees in 15-bit fixed point, as in OpenCV.
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
    """Return the Sobel gradients to the right and down of levels that are padded by one."""
    smooth = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    right = smooth[:, :, 2:] - smooth[:, :, :-2]
    smooth = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    return right, smooth[:, 2:] - smooth[:, :-2]


def _connected(seeds: jax.Array, candidates: jax.Array) -> jax.Array:
    """Return the candidates that are connected to a seed over candidates, diagonals included."""

    def grow(state: tuple[jax.Array, jax.Array]):
        connected, _ = state
        around = _around(connected, 1, False)
        grown = connected
        for step in _ring(1):
            grown = grown | around(*step)
        grown = grown & candidates
        return grown, jnp.any(grown != connected)

    connected, _ = jax.lax.while_loop(lambda state: state[1], grow, (seeds, jnp.bool_(True)))
    return connected


def truncated_distance(points: Bool[Array, "n h w"], largest: int) -> Int[Array, "n h w"]:
    """Return the chamfer distance to the nearest point, at most ``largest``, times ``UNIT``.

    A path has straight, diagonal and knight's steps of the lengths 1, 1.4 and 2.1969. A round
    relaxes over all neighbours within 2 pixels, so it covers two straight or two diagonal steps. A
    shortest path does not mix straight and diagonal steps, so half as many rounds as ``largest``,
    rounded up, are enough.
    """
    far = jnp.int32(largest * UNIT)
    start = jnp.where(points, jnp.int32(0), far)

    def relax(_: jax.Array, distance: jax.Array):
        around = _around(distance, 2, far)
        for step in _ring(2):
            distance = jnp.minimum(distance, around(*step) + _length(*step))
        return distance

    return jax.lax.fori_loop(0, (largest + 1) // 2, relax, start)


def _equalised(levels: jax.Array, highest: int) -> jax.Array:
    """Equalise the histograms of int32 levels from 0 to ``highest``."""
    total = levels.shape[1] * levels.shape[2]
    flat_levels = levels.reshape(len(levels), total)
    counts = jax.vmap(functools.partial(jnp.bincount, length=highest + 1))(flat_levels)
    below = jnp.cumsum(counts, axis=1)
    lowest = jnp.argmax(counts > 0, axis=1)
    first = jnp.take_along_axis(counts, lowest[:, None], axis=1)
    # An image of a single level is not changed.
    flat = first == total
    scale = 255 / jnp.where(flat, 1, total - first).astype(jnp.float32)
    spread = jnp.round((below - first).astype(jnp.float32) * scale).astype(jnp.int32)
    table = jnp.where(flat, jnp.arange(highest + 1, dtype=jnp.int32)[None], jnp.maximum(spread, 0))
    return jnp.take_along_axis(table, flat_levels, axis=1).reshape(levels.shape)


def _correlated(values: jax.Array, kernel: tuple[tuple[int, ...], ...]) -> jax.Array:
    """Correlate with a 3 x 3 kernel; the border is mirrored and not repeated."""
    padded = _padded(values, 1, mode="reflect")
    height, width = values.shape[1:]
    total = jnp.zeros_like(values)
    for row, line in enumerate(kernel):
        for column, weight in enumerate(line):
            if weight:
                part = padded[:, row : row + height, column : column + width]
                total = total + weight * part
    return total


def _padded(values: jax.Array, width: int, **options: Any) -> jax.Array:
    border = ((0, 0), (width, width), (width, width))
    return fast.stage(lambda values: jnp.pad(values, border, **options), values)


def _around(
    values: jax.Array, reach: int, outside: jax.Array | int
) -> Callable[[int, int], jax.Array]:
    """Return ``neighbour(down, right)`` of each value; it is ``outside`` beyond the border."""
    padded = _padded(values, reach, constant_values=outside)
    height, width = values.shape[1:]

    def neighbour(down: int, right: int) -> jax.Array:
        top, left = reach + down, reach + right
        return padded[:, top : top + height, left : left + width]

    return neighbour


def _ring(reach: int) -> list[tuple[int, int]]:
    """Return the steps (down, right) to all neighbours within ``reach``."""
    span = range(-reach, reach + 1)
    return [(down, right) for down in span for right in span if (down, right) != (0, 0)]


def _length(down: int, right: int) -> int:
    """Return the length of a step, in ``UNIT``."""
    if abs(down * right) == 2:
        return _KNIGHT
    return max(abs(down), abs(right)) * (_DIAGONAL if down * right else _STRAIGHT)
