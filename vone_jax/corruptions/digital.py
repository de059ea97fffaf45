"""Brightness, contrast, saturation, pixelate and the elastic transform."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from vone_jax import fast, prng
from vone_jax.corruptions import levels, matrices, noise
from vone_jax.corruptions.levels import Images, Keys, Shape

# Moves of three points, and displacements of the pixels.
ElasticDraws = tuple[Float[Array, "n 3 2"], Float[Array, "n h w 2"]]


def brightness(draws: Any, images: Images, amount: Float[Array, ""]) -> Images:
    """Add ``amount`` to V of HSV; draws nothing.

    With hue and saturation unchanged, all channels are scaled alike. V of a grey image is its
    channel.
    """
    value = functools.reduce(jnp.maximum, levels.channels(images))
    brighter = jnp.clip(value + amount, 0.0, 1.0)
    black = value <= 0
    return jnp.where(black, brighter, images * (brighter / jnp.where(black, 1.0, value)))


def contrast(draws: Any, images: Images, factor: Float[Array, ""]) -> Images:
    """Return (x - mean) factor + mean, with the mean of each image and channel; draws nothing."""
    mean = jnp.mean(images, axis=(1, 2), keepdims=True)
    return (images - mean) * factor + mean


def saturate(draws: Any, images: Images, numbers: Float[Array, " 2"]) -> Images:
    """Set S of HSV to clip(factor S + addend, 0, 1); draws nothing.

    Grey pixels have no hue. As in ImageNet-C they count as red, which is visible if the addend
    gives them a saturation. For a grey image, the result is the luma of that colour.
    """
    factor, addend = numbers
    value = functools.reduce(jnp.maximum, levels.channels(images))
    spread = value - functools.reduce(jnp.minimum, levels.channels(images))
    grey = spread <= 0
    saturation = jnp.where(grey, 0.0, spread / jnp.where(grey, 1.0, value))
    target = jnp.clip(factor * saturation + addend, 0.0, 1.0)
    # V - (V - x) S' / S, with S = spread / V.
    coloured = value - (value - images) * (target * value / jnp.where(grey, 1.0, spread))
    if images.shape[-1] == 1:
        return jnp.where(grey, value * (1 - (1 - levels.LUMA[0]) * target), coloured)
    others = jnp.asarray([0.0, 1.0, 1.0], images.dtype)[None, None, None]
    return jnp.where(grey, value * (1 - others * target), coloured)


def prepare_pixelate(share: float, shape: Shape) -> tuple:
    """Return the weights of Pillow's BOX resizing to ``share`` of the size and back.

    After the second resizing, a pixel shows the pixel of the small image at its place, which is a
    mean over the pixels around. The two arrays, for rows and for columns, are float32
    (2 reach + 1, side) and hold the weights of the neighbours at -reach to reach.
    """
    return tuple(_box_weights(side, max(int(side * share), 1)) for side in shape[:2])


def pixelate(draws: Any, images: Images, arrays: tuple) -> Images:
    """Resize down and up in eight bits, columns first, rounded after each pass; draws nothing."""
    rows, columns = arrays
    channels = images.shape[-1]

    # Channels side by side, so that rows are long enough for vector units.
    def eight_bits(images: jax.Array):
        return levels.from_images(images).astype(jnp.uint8).reshape(*images.shape[:2], -1)

    def along_rows(values: jax.Array, weights: jax.Array):
        mean = matrices.weighted(values, weights[:, None, None], 2, channels)
        return levels.nearest(mean).astype(jnp.uint8)

    values = _bordered(fast.stage(eight_bits, images), 2, channels * (len(columns) // 2))
    values = fast.stage(along_rows, values, jnp.repeat(columns, channels, axis=1))
    values = _bordered(values, 1, len(rows) // 2)
    mean = matrices.weighted(values, rows[:, None, :, None], 1, 1)
    return (levels.nearest(mean) / 255).reshape(images.shape)


def _bordered(values: jax.Array, axis: int, width: int) -> jax.Array:
    """Add zeros before and after the values along an axis."""
    border = np.zeros((values.ndim, 2), int)
    border[axis] = width
    return fast.stage(lambda values: jnp.pad(values, border), values)


def _box_weights(source: int, target: int) -> np.ndarray:
    shown = _box_matrix(target, source).argmax(axis=1)
    means = _box_matrix(source, target)[shown]
    large, small = np.nonzero(means)
    reach = np.abs(small - large).max()
    weights = np.zeros((2 * reach + 1, source), np.float32)
    weights[small - large + reach, large] = means[large, small]
    return weights


def _box_matrix(source: int, target: int) -> np.ndarray:
    """Return Pillow's BOX filter as a matrix (target, source): means over the area of a pixel."""
    identity = Image.fromarray(np.eye(source, dtype=np.float32))
    return np.asarray(identity.resize((target, source), Image.Resampling.BOX)).T


def prepare_elastic(parameters: tuple[float, float, float], shape: Shape) -> tuple:
    """Return the smoothing matrices, the amplitude of displacements and the move of the points.

    The parameters are the amplitude, the standard deviation of the smoothing, and the largest move
    of the three points of the affine map, in pixels.
    """
    amplitude, deviation, move = parameters
    rows, columns = matrices.gaussian(deviation, shape, border="reflect", truncate=3)
    return rows, columns, np.float32(amplitude), np.float32(move)


def draw_elastic(keys: Keys, shape: Shape, arrays: tuple) -> ElasticDraws:
    """Draw moves of three points and displacements of the pixels, uniform in (-1, 1).

    The last axis holds the part along x, then the part along y.
    """

    def move(key: jax.Array):
        return jax.random.uniform(key, (3, 2), jnp.float32, -1.0, 1.0)

    fields = noise.uniform(prng.stream(keys, "fields"), (*shape[:2], 2))
    return jax.vmap(move)(prng.stream(keys, "moves")), fields


def elastic(draws: ElasticDraws, images: Images, arrays: tuple) -> Images:
    """Apply a random affine map, then smooth random displacements; see ``draw_elastic``."""
    moves, fields = draws
    rows, columns, amplitude, move = arrays
    images = fast.stage(_affine, images, move * moves)
    field = amplitude * matrices.separable(fields, rows, columns)
    y, x = _grid(images)
    return bilinear(images, y + field[..., 1], x + field[..., 0], _mirror_with_border)


def _affine(images: jax.Array, moves: jax.Array) -> jax.Array:
    """Apply the affine map that moves three points around the centre (OpenCV, border mirrored)."""
    height, width = images.shape[1:3]
    reach = float(min(height, width) // 3)
    # The points lie at (+, +), (+, -) and (-, -) ``reach`` from the centre. The vectors from the
    # second point to the others are (0, 2 reach) and (-2 reach, 0) before, ``first`` and ``other``
    # after the moves.
    corner_x, corner_y = width // 2 + reach, height // 2 - reach
    moves = moves[:, :, :, None, None]
    first = moves[:, 0, 0] - moves[:, 1, 0], moves[:, 0, 1] - moves[:, 1, 1] + 2 * reach
    other = moves[:, 2, 0] - moves[:, 1, 0] - 2 * reach, moves[:, 2, 1] - moves[:, 1, 1]
    y, x = _grid(images)
    x, y = x - (corner_x + moves[:, 1, 0]), y - (corner_y + moves[:, 1, 1])
    area = first[0] * other[1] - other[0] * first[1]
    along_first = (other[1] * x - other[0] * y) / area
    along_other = (first[0] * y - first[1] * x) / area
    return bilinear(
        images, corner_y + 2 * reach * along_first, corner_x - 2 * reach * along_other, _mirror
    )


def _grid(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return y (1, H, 1) and x (1, 1, W) of the pixels."""
    y, x = (jnp.arange(side, dtype=jnp.float32) for side in images.shape[1:3])
    return y[None, :, None], x[None, None]


def bilinear(images: Array, y: Array, x: Array, fold: Callable[[Array, int], Array]) -> Array:
    """Read images (N, H, W, C) at real positions (N, H, W), in pixels.

    ``fold(positions, side)`` moves int32 positions into [0, side). On a CPU the channels of a pixel
    are read together. Elsewhere each channel is a plane, which moves far less memory on a TPU.
    """

    def interpolated(images: Array, y: Array, x: Array, channels: int) -> Array:
        count, height, width = y.shape
        pixels = jnp.moveaxis(images, -1, channels)
        axis = 1 if channels == -1 else 2
        flat = pixels.reshape(*pixels.shape[:axis], height * width, *pixels.shape[axis + 2 :])
        top, left = jnp.floor(y), jnp.floor(x)
        down, right = (jnp.expand_dims(part, channels) for part in (y - top, x - left))
        top, left = top.astype(jnp.int32), left.astype(jnp.int32)
        rows = [fold(top + step, height) * width for step in (0, 1)]
        columns = [fold(left + step, width) for step in (0, 1)]

        def read(row: Array, column: Array) -> Array:
            index = jnp.expand_dims((row + column).reshape(count, height * width), channels)
            values = jnp.take_along_axis(flat, index, axis=axis, mode="promise_in_bounds")
            return values.reshape(pixels.shape)

        upper = read(rows[0], columns[0]) * (1 - right) + read(rows[0], columns[1]) * right
        lower = read(rows[1], columns[0]) * (1 - right) + read(rows[1], columns[1]) * right
        return jnp.moveaxis(upper * (1 - down) + lower * down, channels, -1)

    by_pixel, by_plane = (functools.partial(interpolated, channels=axis) for axis in (-1, 1))
    return fast.by_platform(images, y, x, cpu=by_pixel, default=by_plane)


def _mirror(position: jax.Array, side: int) -> jax.Array:
    """Reflect positions at the border, any number of times, without repeating the border value."""
    period = max(2 * (side - 1), 1)
    position = position % period
    return jnp.minimum(position, period - position)


def _mirror_with_border(position: jax.Array, side: int) -> jax.Array:
    """Reflect positions at the border, any number of times, and repeat the border value."""
    position = position % (2 * side)
    return jnp.minimum(position, 2 * side - 1 - position)
