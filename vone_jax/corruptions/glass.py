"""Glass blur: pixels copied from near-by ones, between two Gaussian blurs.

The benchmark walks over the pixels from the last to the first and overwrites each with a random
neighbour: a copy, although its code reads like a swap. A pixel thus shows what its neighbour
showed before the walk or, if the walk came by the neighbour earlier, what that one had copied.
Where a chain of copies ends is found here for all pixels at once by pointer doubling: a link
that has not come to an end is replaced by the link that it leads to.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import fast
from vone_jax.corruptions import levels, matrices

_MOST_PASSES = 3
_LARGEST_RADIUS = 6  # of the blur, in all tables


def prepare(parameters: tuple[float, int, int], shape: tuple[int, int, int]) -> tuple:
    """Taps of the blur, largest displacement in pixels and number of passes."""
    deviation, reach, passes = parameters
    radius = int(4 * deviation + 0.5)
    taps = np.pad(matrices.gaussian_taps(deviation, radius), _LARGEST_RADIUS - radius)
    return taps.astype(np.float32), np.int32(reach), np.int32(passes)


def draw_moves(keys: jax.Array, shape: tuple[int, int, int], arrays: tuple) -> jax.Array:
    """Displacements (down, right) from -reach to reach - 1, int8 (N, 3, 2, H, W).

    There are always as many passes as the largest severity has; the others go unused.
    """
    reach = arrays[1].astype(jnp.uint32)
    draw = jax.vmap(lambda key: fast.random_words(key, (2, *shape[:2])))
    words = jnp.concatenate(fast.stage(draw, keys), axis=1)[:, :_MOST_PASSES, None]
    # A word has 16 bits for either: the chances of the values differ by less than 2^-13.
    shifts = jnp.asarray([16, 0], jnp.uint32)[None, None, :, None, None]
    moves = (((words >> shifts) & 0xFFFF) * (2 * reach)) >> 16
    return (moves.astype(jnp.int32) - arrays[1]).astype(jnp.int8)


def blur(moves: jax.Array, images: jax.Array, arrays: tuple) -> jax.Array:
    """Glass blur with given displacements, see ``draw_moves``."""
    return fast.one_by_one(functools.partial(_blurred, arrays=arrays), moves, images)


def _blurred(moves: jax.Array, images: jax.Array, arrays: tuple) -> jax.Array:
    taps, reach, passes = arrays
    smooth = levels.truncate(255 * matrices.filtered(images, taps)).astype(jnp.int32)
    # The channels of a pixel move together: as the bytes of one number.
    places = 8 * jnp.arange(images.shape[-1], dtype=jnp.int32)[None, None, None]
    pixels = jnp.sum(smooth << places, axis=-1)
    pixels = shuffled(pixels, moves, reach, passes)
    copied = (pixels[..., None] >> places) & 255
    return matrices.filtered(copied.astype(jnp.float32) / 255, taps)


def shuffled(pixels: jax.Array, moves: jax.Array, reach: jax.Array, passes: jax.Array) -> jax.Array:
    """What the pixels (N, H, W) are after the given passes; for ``moves`` see ``draw_moves``."""
    count, height, width = pixels.shape
    y, x = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None]
    place = y * width + x

    def visited(y, x):
        return (y > reach) & (y <= height - reach) & (x > reach) & (x <= width - reach)

    def walk(index, pixels):
        move = jax.lax.dynamic_index_in_dim(moves, index, axis=1, keepdims=False)
        down, right = jnp.moveaxis(move.astype(jnp.int32), 1, 0)
        there = place + jnp.where(visited(y, x), down * width + right, 0)
        # Later in raster order means visited earlier.
        overwritten = (there > place) & visited(y + down, x + right)
        return _take(pixels, _followed(jnp.where(overwritten, ~there, there)))

    return jax.lax.fori_loop(0, passes, walk, pixels)


def _followed(links: jax.Array) -> jax.Array:
    """Places (N, H, W) where the chains of links end, by doubling.

    A link is the place that a pixel copies. Its complement, below zero, says that the pixel there
    was overwritten before, so that its link counts.
    """

    def advance(links):
        return jnp.where(links < 0, _take(links, jnp.where(links < 0, ~links, links)), links)

    return jax.lax.while_loop(lambda links: jnp.any(links < 0), advance, links)


def _take(values: jax.Array, index: jax.Array) -> jax.Array:
    count = len(values)
    found = jnp.take_along_axis(
        values.reshape(count, -1), index.reshape(count, -1), axis=1, mode="promise_in_bounds"
    )
    return found.reshape(values.shape)
