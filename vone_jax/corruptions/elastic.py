"""Elastic transform: a random affine map, then smooth random displacements."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import fast, prng
from vone_jax.corruptions import matrices


def prepare(parameters: tuple[float, float, float], shape: tuple[int, int, int]) -> tuple:
    """Matrices of the smoothing, amplitude of the displacements and move of the three points."""
    amplitude, deviation, move = parameters
    rows, columns = (
        matrices.gaussian(side, deviation, border="reflect", truncate=3) for side in shape[:2]
    )
    return rows, columns, np.float32(amplitude), np.float32(move)


def draw(keys: jax.Array, shape: tuple[int, int, int], arrays: tuple) -> tuple:
    """Draws uniform in (-1, 1): moves (N, 3, 2) of three points, fields (N, H, W, 2).

    Of a point the first number moves it along x, the second along y. The first field is the
    displacement along x, the second along y.
    """
    height, width = shape[:2]
    move = lambda key: jax.random.uniform(key, (3, 2), jnp.float32, -1.0, 1.0)  # noqa: E731
    field = lambda key: fast.symmetric_uniform(key, (height, width, 2))  # noqa: E731
    moves, fields = (prng.stream(keys, name) for name in ("moves", "fields"))
    return jax.vmap(move)(moves), jax.vmap(field)(fields)


def transform(draws: tuple, images: jax.Array, arrays: tuple) -> jax.Array:
    """Elastic transform with given draws, see ``draw``."""
    moves, fields = draws
    rows, columns, amplitude, move = arrays
    images = fast.stage(_affine, images, move * moves)
    field = amplitude * matrices.separable(fields, rows, columns)
    y, x = _grid(images)
    return _bilinear(images, y + field[..., 1], x + field[..., 0], _mirror_with_border)


def _affine(images: jax.Array, moves: jax.Array) -> jax.Array:
    """The affine map that moves three points around the centre; border mirrored (OpenCV)."""
    height, width = images.shape[1:3]
    reach = float(min(height, width) // 3)
    # The points are (+, +), (+, -) and (-, -) of the centre. Written from the second one, the
    # edges to the others are (0, 2 reach) and (-2 reach, 0) before and ``first``, ``other`` after.
    corner_x, corner_y = width // 2 + reach, height // 2 - reach
    moves = moves[:, :, :, None, None]
    first = moves[:, 0, 0] - moves[:, 1, 0], moves[:, 0, 1] - moves[:, 1, 1] + 2 * reach
    other = moves[:, 2, 0] - moves[:, 1, 0] - 2 * reach, moves[:, 2, 1] - moves[:, 1, 1]
    y, x = _grid(images)
    x, y = x - (corner_x + moves[:, 1, 0]), y - (corner_y + moves[:, 1, 1])
    area = first[0] * other[1] - other[0] * first[1]
    along_first = (other[1] * x - other[0] * y) / area
    along_other = (first[0] * y - first[1] * x) / area
    return _bilinear(
        images, corner_y + 2 * reach * along_first, corner_x - 2 * reach * along_other, _mirror
    )


def _grid(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """y (1, H, 1) and x (1, 1, W) of the pixels."""
    y, x = (jnp.arange(side, dtype=jnp.float32) for side in images.shape[1:3])
    return y[None, :, None], x[None, None]


def _bilinear(
    images: jax.Array, y: jax.Array, x: jax.Array, fold: Callable[[jax.Array, int], jax.Array]
) -> jax.Array:
    """Images (N, H, W, C) read at real positions (N, H, W); ``fold`` treats those outside."""
    count, height, width, channels = images.shape
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    top, left = top.astype(jnp.int32), left.astype(jnp.int32)
    rows = [fold(top + step, height) * width for step in (0, 1)]
    columns = [fold(left + step, width) for step in (0, 1)]
    pixels = images.reshape(count, height * width, channels)

    def read(row, column):
        index = (row + column).reshape(count, height * width, 1)
        found = jnp.take_along_axis(pixels, index, axis=1, mode="promise_in_bounds")
        return found.reshape(images.shape)

    upper = read(rows[0], columns[0]) * (1 - right) + read(rows[0], columns[1]) * right
    lower = read(rows[1], columns[0]) * (1 - right) + read(rows[1], columns[1]) * right
    return upper * (1 - down) + lower * down


def _mirror(position: jax.Array, side: int) -> jax.Array:
    """Reflection that does not repeat the border value, any number of times."""
    period = max(2 * (side - 1), 1)
    position = position % period
    return jnp.minimum(position, period - position)


def _mirror_with_border(position: jax.Array, side: int) -> jax.Array:
    """Reflection that repeats the border value, any number of times."""
    position = position % (2 * side)
    return jnp.minimum(position, 2 * side - 1 - position)
