"""The random squares of the Square attack: starting patterns and proposals, in three norms.

One example and one key at a time, with a window side that may be traced: a window is a mask made
from indices, so that one compiled function serves all sides.

References:
  Andriushchenko et al., Square attack, 2020, arXiv:1912.00049, algorithms 2 and 3.
  Croce and Hein, Mind the box, 2021, arXiv:2103.01208, appendix (L1).
"""

import jax
import jax.numpy as jnp
import numpy as np

# In a bump the square of half-width k has weight 1 / (k + 1)^power.
_POWER = {"l2": 2, "l1": 4}
_TINY = 1e-12


def stripes(key: jax.Array, shape: tuple[int, ...], eps: jax.Array | float, dtype) -> jax.Array:
    """Start for L-infinity: vertical stripes of -eps or eps, one sign per column and channel."""
    _, width, channels = shape
    return eps * jnp.broadcast_to(
        _signs(jax.random.uniform(key, (1, width, channels), dtype)), shape
    )


def tiles(key: jax.Array, shape: tuple[int, ...], norm: str, dtype) -> jax.Array:
    """Start for L2 and L1: a grid of bump pairs, one sign per tile and channel.

    A tile has a fifth of the shorter side; the grid is centred.
    """
    height, width, channels = shape
    side = max(min(height, width) // 5, 1)
    grid = (height // side, width // side)
    down = np.arange(height) - (height - grid[0] * side) // 2
    across = np.arange(width) - (width - grid[1] * side) // 2
    used = ((down >= 0) & (down < grid[0] * side))[:, None] & (
        (across >= 0) & (across < grid[1] * side)
    )[None]
    tile = (
        np.clip(down // side, 0, grid[0] - 1)[:, None],
        np.clip(across // side, 0, grid[1] - 1)[None],
    )
    drawn = jax.random.uniform(key, (*grid, channels + 1), dtype)[tile]
    rows, columns = np.broadcast_arrays((down % side)[:, None], (across % side)[None])
    rows, columns = jnp.asarray(rows), jnp.asarray(columns)
    pair = bump_pair(rows, columns, side, drawn[..., 0] < 0.5, norm, dtype)
    return jnp.where(used, pair, 0.0)[..., None] * _signs(drawn[..., 1:])


def signed_window(
    key: jax.Array, delta: jax.Array, side: jax.Array, eps: jax.Array | float
) -> jax.Array:
    """Proposal for L-infinity: -eps or eps in a random window, one sign per channel."""
    # One call for all that is random: a call of the generator is what compiles slowly.
    drawn = jax.random.uniform(key, (2 + delta.shape[-1],), delta.dtype)
    inside = _inside(*_window(drawn[:2], delta.shape, side), side)
    return jnp.where(inside[..., None], eps * _signs(drawn[None, None, 2:]), delta)


def moved_window(
    key: jax.Array, delta: jax.Array, side: jax.Array, eps: jax.Array | float, norm: str
) -> jax.Array:
    """Proposal for L2 and L1: the perturbation of one random window moves into another.

    The second window is emptied. The first one gets its old perturbation plus a pair of bumps,
    with the norm that both windows had and what the perturbation has left to ``eps``.
    """
    channels = delta.shape[-1]
    drawn = jax.random.uniform(key, (5 + channels,), delta.dtype)
    rows, columns = _window(drawn[:2], delta.shape, side)
    here = _inside(rows, columns, side)[..., None]
    there = _inside(*_window(drawn[2:4], delta.shape, side), side)[..., None]
    pair = bump_pair(rows, columns, side, drawn[4] < 0.5, norm, delta.dtype)[..., None]
    pair = pair * _signs(drawn[None, None, 5:])
    old = jnp.where(here, delta, 0.0)
    new = pair + old / (_size(old, norm, (0, 1)) + _TINY)
    both = _size(jnp.where(here | there, delta, 0.0), norm)
    whole = _size(delta, norm)
    if norm == "l2":
        budget = jnp.sqrt(jnp.maximum(eps**2 - whole**2, 0.0) / channels + both**2)
    else:
        budget = jnp.maximum(eps - whole, 0.0) + channels * both
    new = new / (_size(new, norm, (0, 1)) + _TINY) * budget
    return jnp.where(here, new, jnp.where(there, 0.0, delta))


def bump_pair(
    rows: jax.Array, columns: jax.Array, side: jax.Array | int, transposed, norm: str, dtype
) -> jax.Array:
    """A positive bump above a negative one in a square, of norm one; zero outside of it.

    Args:
      rows: row of each pixel within the square, which begins at 0; integers of shape (H, W).
      columns: column of each pixel, likewise.
      side: side of the square.
      transposed: whether the bumps lie side by side instead; a scalar or an array (H, W).
      norm: "l2" or "l1".
      dtype: floating dtype of the result.

    Returns:
      Array of shape (H, W).
    """
    down, across = jnp.where(transposed, columns, rows), jnp.where(transposed, rows, columns)
    upper = _bump(down, across, side // 2, side, norm, dtype)
    lower = _bump(down - side // 2, across, side - side // 2, side, norm, dtype)
    # Both halves have norm one, except that of a square of one pixel: its upper half is empty.
    parts = jnp.where(jnp.asarray(side) > 1, 2.0, 1.0)
    return (upper - lower) / (jnp.sqrt(parts) if norm == "l2" else parts).astype(dtype)


def _bump(rows, columns, height, width, norm: str, dtype) -> jax.Array:
    """Squares of half-width k = 0, 1, ... around the middle of a rectangle, of norm one."""
    longest = max(rows.shape)
    # rest[m] is the sum of 1 / (k + 1)^power over k = m, m + 1, ...
    weights = 1.0 / np.arange(1, longest + 2, dtype=np.float64) ** _POWER[norm]
    rest = jnp.asarray(np.append(np.cumsum(weights[::-1])[::-1], 0.0), dtype)
    outermost = jnp.maximum(height // 2, width // 2)

    def value(rows, columns):
        ring = jnp.maximum(jnp.abs(rows - height // 2), jnp.abs(columns - width // 2))
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        # Pixels far outside would read past the end of the table.
        return jnp.where(inside, rest[jnp.minimum(ring, longest)] - rest[outermost + 1], 0.0)

    place = jnp.arange(longest)
    whole = value(place[:, None], place[None])
    return value(rows, columns) / (_size(whole, norm) + _TINY)


def _window(drawn: jax.Array, shape: tuple[int, ...], side) -> tuple[jax.Array, jax.Array]:
    """Rows and columns of all pixels, counted from the corner of a window.

    ``drawn`` holds two numbers in [0, 1) that choose the corner evenly among all that fit.
    """
    places = (jnp.asarray(shape[:2], jnp.int32) - side + 1).astype(drawn.dtype)
    corner = jnp.floor(drawn * places).astype(jnp.int32)
    rows = jnp.arange(shape[0])[:, None] - corner[0]
    columns = jnp.arange(shape[1])[None] - corner[1]
    return jnp.broadcast_to(rows, shape[:2]), jnp.broadcast_to(columns, shape[:2])


def _signs(drawn: jax.Array) -> jax.Array:
    return jnp.where(drawn < 0.5, -1.0, 1.0).astype(drawn.dtype)


def _inside(rows: jax.Array, columns: jax.Array, side) -> jax.Array:
    return (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)


def _size(delta: jax.Array, norm: str, axis=None) -> jax.Array:
    keep = axis is not None
    if norm == "l2":
        return jnp.sqrt(jnp.sum(jnp.square(delta), axis=axis, keepdims=keep))
    return jnp.sum(jnp.abs(delta), axis=axis, keepdims=keep)
