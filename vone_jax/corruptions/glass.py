"""Glass blur: pixels copied from near-by ones, between two Gaussian blurs.

The benchmark walks over the pixels from the last to the first and overwrites each with a random
neighbour: a copy, although its code reads like a swap. A pixel thus shows what its neighbour
showed before the walk or, if the walk came by the neighbour earlier, what that one had copied.
Where a chain of copies ends is found here for all pixels at once by pointer doubling.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import counter_random
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
    """Displacements (down, right) from -reach to reach - 1, int32 (N, 3, H, W, 2).

    There are always as many passes as the largest severity has; the others go unused.
    """
    reach = arrays[1].astype(jnp.uint32)

    def draw(key):
        words, _ = counter_random.random_words(key, (_MOST_PASSES, *shape[:2], 2))
        # Of each word 16 bits: the chances of the values differ by less than 2^-13.
        return (((words >> 16) * (2 * reach)) >> 16).astype(jnp.int32) - arrays[1]

    return jax.vmap(draw)(keys)


def blur(moves: jax.Array, images: jax.Array, arrays: tuple) -> jax.Array:
    """Glass blur with given displacements, see ``draw_moves``."""
    taps, reach, passes = arrays
    count, height, width, channels = images.shape
    smooth = levels.truncate(255 * matrices.filtered(images, taps))
    origin = sources(moves, reach, passes)
    pixels = smooth.reshape(count, height * width, channels)
    shuffled = _take(pixels, origin[..., None]).reshape(images.shape)
    return matrices.filtered(shuffled / 255, taps)


def sources(moves: jax.Array, reach: jax.Array, passes: jax.Array) -> jax.Array:
    """The pixel that each pixel shows after the given passes, raster indices (N, H W)."""
    count, _, height, width, _ = moves.shape
    y, x = jnp.arange(height)[:, None], jnp.arange(width)[None]
    inside = (y > reach) & (y <= height - reach) & (y < height) & (x > reach) & (x <= width - reach)
    inside = jnp.broadcast_to(inside.reshape(1, -1), (count, height * width))
    place = jnp.arange(height * width, dtype=jnp.int32)
    place = jnp.broadcast_to(place[None], (count, height * width))

    def walk(index, origin):
        move = jax.lax.dynamic_index_in_dim(moves, index, axis=1, keepdims=False)
        step = (move[..., 0] * width + move[..., 1]).reshape(count, -1)
        there = place + jnp.where(inside, step, 0)
        # Later in raster order means visited earlier.
        visited = (there > place) & _take(inside, there)
        last = _chase(jnp.where(visited, there, place))
        return _take(origin, _take(there, last))

    return jax.lax.fori_loop(0, passes, walk, place)


def _chase(links: jax.Array) -> jax.Array:
    """Where the chains of links end, by doubling: links that point to themselves are ends."""

    def advance(state):
        links, _ = state
        doubled = _take(links, links)
        return doubled, jnp.any(doubled != links)

    links, _ = jax.lax.while_loop(lambda state: state[1], advance, (links, jnp.bool_(True)))
    return links


def _take(values: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values, index, axis=1, mode="promise_in_bounds")
