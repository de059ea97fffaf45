"""Glass blur: pixels copied from near-by ones, between two Gaussian blurs.

The benchmark walks over the pixels from the last to the first and overwrites each with a random
neighbour: a copy, although its code reads like a swap. A pixel thus shows what its neighbour
showed before the walk or, if the walk came by the neighbour earlier, what that one had copied.
Where a chain of copies ends is found here for all pixels at once by pointer doubling.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax.corruptions import levels, matrices

_MOST_PASSES = 3


def prepare(parameters: tuple[float, int, int], shape: tuple[int, int, int]) -> tuple:
    """Matrices of the blur, largest displacement in pixels and number of passes."""
    deviation, reach, passes = parameters
    rows, columns = (matrices.gaussian(side, deviation) for side in shape[:2])
    return rows, columns, np.int32(reach), np.int32(passes)


def draw_moves(keys: jax.Array, shape: tuple[int, int, int], arrays: tuple) -> jax.Array:
    """Displacements (down, right) from -reach to reach - 1, int32 (N, 3, H, W, 2).

    There are always as many passes as the largest severity has; the others go unused.
    """
    reach = arrays[2].astype(jnp.uint32)

    def draw(key):
        bits = jax.random.bits(key, (_MOST_PASSES, *shape[:2]), jnp.uint32)
        # Two draws of 16 bits each: the chances of the values differ by less than 2^-13.
        halves = jnp.stack([bits >> 16, bits & 0xFFFF], axis=-1)
        return ((halves * (2 * reach)) >> 16).astype(jnp.int32) - arrays[2]

    return jax.vmap(draw)(keys)


def blur(moves: jax.Array, images: jax.Array, arrays: tuple) -> jax.Array:
    """Glass blur with given displacements, see ``draw_moves``."""
    rows, columns, reach, passes = arrays
    count, height, width, channels = images.shape
    smooth = levels.truncate(255 * matrices.separable(images, rows, columns))
    origin = sources(moves, reach, passes)
    pixels = smooth.reshape(count, height * width, channels)
    shuffled = _take(pixels, origin[..., None]).reshape(images.shape)
    return matrices.separable(shuffled / 255, rows, columns)


def sources(moves: jax.Array, reach: jax.Array, passes: jax.Array) -> jax.Array:
    """The pixel that each pixel shows after the given passes, raster indices (N, H W)."""
    count, _, height, width, _ = moves.shape
    y, x = jnp.arange(height)[:, None], jnp.arange(width)[None]
    place = y * width + x
    inside = (y > reach) & (y <= height - reach) & (y < height) & (x > reach) & (x <= width - reach)

    def walk(index, origin):
        move = jax.lax.dynamic_index_in_dim(moves, index, axis=1, keepdims=False)
        there = place[None] + jnp.where(inside[None], move[..., 0] * width + move[..., 1], 0)
        there = there.reshape(count, height * width)
        known = jnp.broadcast_to(place.reshape(1, -1), there.shape)
        # Later in raster order means visited earlier.
        visited = _take(jnp.broadcast_to(inside.reshape(1, -1), there.shape), there)
        chain = jnp.where(visited & (there > known) & inside.reshape(1, -1), there, known)
        last = _chase(chain)
        return _take(origin, _take(there, last))

    start = jnp.broadcast_to(place.reshape(1, -1), (count, height * width))
    return jax.lax.fori_loop(0, passes, walk, start)


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
