"""Gaussian, defocus, zoom, motion and glass blur."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8

from vone_jax import fast
from vone_jax.corruptions import levels, matrices
from vone_jax.corruptions.levels import Images, Keys, Shape
from vone_jax.filters import filter_matrix, gaussian_taps

# The largest values of all tables: reach of the defocus kernel in pixels, taps of the motion blur
# (for a radius of 20 pixels), zoom factors without 1, passes of glass blur and the radius of its
# Gaussian in pixels. Arrays are padded to these sizes, so one compilation serves all severities.
_DEFOCUS_REACH = 10
_MOTION_TAPS = 2 * 20 + 1
_ZOOM_FACTORS = 25
_GLASS_PASSES = 3
_GLASS_RADIUS = 6

# Several taps are summed in one pass over an image, since reading the image costs more than sums.
_TAPS_AT_ONCE = 8


def gaussian(draws: Any, images: Images, arrays: tuple) -> Images:
    """Blur with the matrices of ``matrices.gaussian``; draws nothing."""
    return matrices.separable(images, *arrays)


def prepare_defocus(parameters: tuple[float, float], shape: Shape) -> np.ndarray:
    """Return the kernel of a lens out of focus: a disk with a smoothed border.

    The parameters are the radius of the disk and the standard deviation of the smoothing, in
    pixels. The kernel is float32 (21, 21), padded with zeros. It sums to 1, except that the sum is
    up to 1.013, as in ImageNet-C, if the smoothed disk touches the border of its 17 x 17 or 21 x 21
    pixels.

    Raises:
      ValueError: if the image is too small to be mirrored at its border.
    """
    radius, smoothing = parameters
    reach = 8 if radius <= 8 else int(radius)
    if min(shape[:2]) <= _DEFOCUS_REACH:
        raise ValueError(
            f"defocus_blur needs images larger than {_DEFOCUS_REACH} pixels, got "
            f"{shape[0]}x{shape[1]}"
        )
    across = np.arange(-reach, reach + 1)
    disk = (across[:, None] ** 2 + across[None] ** 2 <= radius**2).astype(np.float64)
    # OpenCV smooths with 3 or 5 taps and mirrors the disk at the border of its array.
    taps = gaussian_taps(smoothing, 1 if radius <= 8 else 2)
    # The kernels of ImageNet-C's code are float32.
    smooth = filter_matrix(len(across), taps, "mirror")
    kernel = smooth @ (disk / disk.sum()) @ smooth.T
    return np.pad(kernel, _DEFOCUS_REACH - reach).astype(np.float32)


@matrices.image_by_image
def defocus(draws: Any, images: Images, kernel: Float[Array, "21 21"]) -> Images:
    """Correlate each channel with the kernel, mirrored at the border; draws nothing."""
    reach = _DEFOCUS_REACH
    count, height, width, channels = images.shape
    padded = matrices.padded(images, reach, reach, "reflect")

    # A sum of shifted images, row by row of the kernel. XLA's convolution of single channels is
    # several times slower on a CPU. Opposite rows and columns have the same weights.
    def add_rows(row: jax.Array, total: jax.Array):
        above, below = reach - row, reach + row
        band = jax.lax.dynamic_slice_in_dim(padded, above, height, axis=1)
        band = band + jax.lax.dynamic_slice_in_dim(padded, below, height, axis=1)
        weights = kernel[above] * jnp.where(row == 0, 0.5, 1.0)

        def column(place: int):
            return band[:, :, channels * place : channels * (place + width)]

        for step in range(1, reach + 1):
            total = total + weights[reach + step] * (column(reach - step) + column(reach + step))
        return total + weights[reach] * column(reach)

    start = jnp.zeros((count, height, width * channels), images.dtype)
    # Rows of zeros above and below a smaller kernel are skipped.
    rows = jnp.sum(jnp.any(kernel != 0, axis=1), dtype=jnp.int32) // 2 + 1
    return fast.repeated(rows, reach + 1, add_rows, start).reshape(images.shape)


def prepare_zoom(parameters: tuple[float, float], shape: Shape) -> tuple:
    """Return the positions that the zooms read, see ``matrices.zoom_places``.

    The parameters are the end and the step of the zoom factors, which start at 1. The result is
    ``(rows, columns, count)``: three arrays (25, side) each, padded with zeros, and the number of
    zooms, without the factor 1.
    """
    end, step = parameters
    # As in ImageNet-C's code, the rounding of numpy.arange decides whether ``end`` is a factor.
    factors = np.arange(1, end, step)[1:]
    missing = ((0, _ZOOM_FACTORS - len(factors)), (0, 0))

    def padded(side: int):
        places = zip(*(matrices.zoom_places(side, float(f)) for f in factors), strict=True)
        low, high, weight = (np.pad(np.stack(column), missing) for column in places)
        return low.astype(np.int32), high.astype(np.int32), weight.astype(np.float32)

    return padded(shape[0]), padded(shape[1]), np.int32(len(factors))


@matrices.image_by_image
def zoom(draws: Any, images: Images, arrays: tuple) -> Images:
    """Return the mean of the zooms and the image, which counts twice; draws nothing."""
    rows, columns, count = arrays

    def add(index: jax.Array, total: jax.Array):
        low, high, weight = (column[index] for column in rows)
        weight = weight[None, :, None, None]
        between = fast.stage(
            lambda images: (1 - weight) * _read(images, low, 1) + weight * _read(images, high, 1),
            images,
        )
        low, high, weight = (column[index] for column in columns)
        weight = weight[None, None, :, None]
        return total + (1 - weight) * _read(between, low, 2) + weight * _read(between, high, 2)

    total = fast.repeated(count, _ZOOM_FACTORS, add, 2 * images)
    return total / (count + 2).astype(images.dtype)


def _read(images: jax.Array, places: jax.Array, axis: int) -> jax.Array:
    index = (slice(None),) * axis + (places,)
    return images.at[index].get(mode="promise_in_bounds")


def prepare_motion(parameters: tuple[float, float], shape: Shape) -> tuple:
    """Return the weights of the taps, padded with zeros to (41,), and the number of taps.

    With a radius and a standard deviation in pixels, there are 2 radius + 1 taps
    exp(-i^2 / (2 deviation^2)), i = 0, 1, ..., scaled to a sum of 1.
    """
    radius, deviation = parameters
    count = 2 * int(radius) + 1
    weights = np.exp(-(np.arange(count) ** 2) / (2.0 * deviation**2))
    weights /= weights.sum()
    return np.pad(weights, (0, _MOTION_TAPS - count)).astype(np.float32), np.int32(count)


def draw_angles(keys: Keys, shape: Shape, arrays: tuple) -> Float[Array, " n"]:
    """Draw angles in degrees, uniform from -45 to 45."""
    return jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32, -45.0, 45.0))(keys)


def motion(angles: Float[Array, " n"], images: Images, arrays: tuple) -> Images:
    """Blur along a line at angles in degrees, on eight-bit levels, truncated as by ImageMagick."""
    return motion_levels(angles, levels.from_images(images), arrays) / 255


@matrices.image_by_image
def motion_levels(angles: Float[Array, " n"], values: Images, arrays: tuple) -> Images:
    """Return sum_i w_i values(y + ceil(i sin - 1/2), x + ceil(i cos - 1/2)), truncated.

    The blur is one-sided. Border values are repeated.
    """
    weights, count = arrays
    reach = _MOTION_TAPS - 1
    angles = jnp.deg2rad(angles)[:, None]
    rounds = -(-count // _TAPS_AT_ONCE)
    missing = -_MOTION_TAPS % _TAPS_AT_ONCE
    weights = jnp.pad(weights, (0, missing))
    # Taps with a weight of 0 read the position of the first tap.
    steps = jnp.pad(jnp.arange(_MOTION_TAPS, dtype=jnp.float32), (0, missing))[None]
    down = jnp.ceil(steps * jnp.sin(angles) - 0.5).astype(jnp.int32) + reach
    right = jnp.ceil(steps * jnp.cos(angles) - 0.5).astype(jnp.int32) + reach
    count_images, height, width, channels = values.shape
    padded = matrices.padded(values, reach, reach, "edge")
    start = jnp.zeros((count_images, height, width * channels), values.dtype)

    def window(image: jax.Array, top: jax.Array, left: jax.Array):
        return jax.lax.dynamic_slice(image, (top, left), start.shape[1:])

    def add(number: jax.Array, total: jax.Array):
        for tap in range(_TAPS_AT_ONCE):
            tap += number * _TAPS_AT_ONCE
            parts = jax.vmap(window)(padded, down[:, tap], channels * right[:, tap])
            total = total + weights[tap] * parts
        return total

    # The rounds depend on the taps of the severity: one compilation, and little work on zeros.
    total = jax.lax.fori_loop(0, rounds, add, start)
    return levels.truncate(total.reshape(values.shape))


def prepare_glass(parameters: tuple[float, int, int], shape: Shape) -> tuple:
    """Return the taps of the Gaussian, the largest displacement in pixels, and the passes."""
    deviation, reach, passes = parameters
    radius = int(4 * deviation + 0.5)
    taps = np.pad(gaussian_taps(deviation, radius), _GLASS_RADIUS - radius)
    return taps.astype(np.float32), np.int32(reach), np.int32(passes)


def draw_moves(keys: Keys, shape: Shape, arrays: tuple) -> Int8[Array, "n 3 2 h w"]:
    """Draw displacements (down, right) from -reach to reach - 1.

    There are always three passes, the largest number; a severity may use fewer.
    """
    reach = arrays[1].astype(jnp.uint32)
    draw = jax.vmap(lambda key: fast.random_words(key, (2, *shape[:2])))
    words = jnp.concatenate(fast.stage(draw, keys), axis=1)[:, :_GLASS_PASSES, None]
    # Each displacement gets 16 bits: the probabilities of its values differ by less than 2^-13.
    shifts = jnp.asarray([16, 0], jnp.uint32)[None, None, :, None, None]
    moves = (((words >> shifts) & 0xFFFF) * (2 * reach)) >> 16
    return (moves.astype(jnp.int32) - arrays[1]).astype(jnp.int8)


@matrices.image_by_image
def glass(moves: Int8[Array, "n passes 2 h w"], images: Images, arrays: tuple) -> Images:
    """Blur, copy pixels from near ones, and blur again; for ``moves`` see ``draw_moves``."""
    taps, reach, passes = arrays
    smooth = levels.truncate(255 * matrices.filtered(images, taps)).astype(jnp.int32)
    # The channels of a pixel are packed as the bytes of one integer, so that they move together.
    places = 8 * jnp.arange(images.shape[-1], dtype=jnp.int32)[None, None, None]
    pixels = jnp.sum(smooth << places, axis=-1, dtype=jnp.int32)
    pixels = shuffled(pixels, moves, reach, passes)
    copied = (pixels[..., None] >> places) & 255
    return matrices.filtered(copied.astype(jnp.float32) / 255, taps)


def shuffled(
    pixels: Int[Array, "n h w"],
    moves: Int8[Array, "n passes 2 h w"],
    reach: Int[Array, ""],
    passes: Int[Array, ""],
) -> Int[Array, "n h w"]:
    """Copy pixels from near ones, as the loop over the pixels in ImageNet-C's code does.

    That loop goes from the last pixel to the first and overwrites each with a random neighbour: a
    copy, although the code looks like a swap. If the loop visited the neighbour before, the pixel
    gets what the neighbour had copied. Chains of such copies are followed to their ends for all
    pixels at once, by pointer doubling.

    For ``moves`` see ``draw_moves``. The largest displacement is ``reach``.
    """
    count, height, width = pixels.shape
    y = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    x = jnp.arange(width, dtype=jnp.int32)[None, None]
    place = y * width + x

    def visited(y: jax.Array, x: jax.Array):
        return (y > reach) & (y <= height - reach) & (x > reach) & (x <= width - reach)

    def walk(index: jax.Array, pixels: jax.Array):
        move = jax.lax.dynamic_index_in_dim(moves, index, axis=1, keepdims=False)
        down, right = jnp.moveaxis(move.astype(jnp.int32), 1, 0)
        there = place + jnp.where(visited(y, x), down * width + right, 0)
        # A pixel that is later in raster order was visited earlier.
        overwritten = (there > place) & visited(y + down, x + right)
        return _take(pixels, _chain_ends(jnp.where(overwritten, ~there, there)))

    return jax.lax.fori_loop(0, passes, walk, pixels)


def _chain_ends(links: jax.Array) -> jax.Array:
    """Return the places (N, H, W) where chains of links end.

    A link is the place that a pixel copies. The complement of a place (a negative number) means
    that the pixel there was overwritten before, so that its own link is to be followed. In each
    round, such a link is replaced by the link at its place, which doubles the length followed.
    """

    def advance(links: jax.Array):
        return jnp.where(links < 0, _take(links, jnp.where(links < 0, ~links, links)), links)

    return jax.lax.while_loop(lambda links: jnp.any(links < 0), advance, links)


def _take(values: jax.Array, index: jax.Array) -> jax.Array:
    flat, index = (array.reshape(len(array), -1) for array in (values, index))
    taken = jnp.take_along_axis(flat, index, axis=1, mode="promise_in_bounds")
    return taken.reshape(values.shape)
