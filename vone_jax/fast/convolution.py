"""A convolution that is a matrix product where XLA's convolution is slow on CPUs."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vone_jax.fast import switch
from vone_jax.fast.depthwise import convolve_depthwise

_LAYOUT = ("NHWC", "HWIO", "NHWC")

# An image of at most this many channels has more channels if the columns of a window are added.
_FEW_CHANNELS = 4
# A kernel that sums over at most this many numbers is applied to explicit patches.
_FEW_TERMS = 64
# A kernel of more terms is applied to whole rows of images that are at most this much wider.
_WIDER = 1.5

Padding = tuple[tuple[int, int], ...]


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    precision: Any = None,
    dimension_numbers: Any = _LAYOUT,
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """Convolve NHWC images with an HWIO kernel.

    The plain form is ``lax.conv_general_dilated``. Four kinds of convolution are matrix products
    here, because XLA's convolution is slower on CPUs:

    - 1x1 kernels: 2 to 3 times slower, and 3 to 8 times in the gradient of the kernel;
    - images smaller than the kernel, such as 2x2 maps in the last stages of networks for small
      images: 12 times slower for 3x3 kernels and 64 channels;
    - small kernels on images of few channels, as in the stems of these networks: 1.4 to 3 times
      slower, and 2 to 7 times in the gradient of the images;
    - kernels nearly as wide as images of few channels, as in V1 at 28 and 32 pixels: 1.2 to 2 times
      slower, and 4 to 14 times with the gradient of the images.

    Args:
      images: (N, H, W, C).
      kernel: (rows, columns, C, features), of the type of ``images``.
      strides: along rows and columns.
      padding: zeros before and after, for rows and columns; or "SAME" or "VALID".
      precision: of the products, as in ``lax.dot_general``.
      dimension_numbers: as in ``lax.conv_general_dilated``.
      feature_group_count: 1; or C for C features, which is ``convolve_depthwise``.
      **options: the other arguments of ``lax.conv_general_dilated``, which ``flax.linen.Conv``
        passes. Convolutions with dilation, groups or other layouts have the plain form alone.

    Returns:
      (N, H', W', features), H' = (H + padding - rows) // stride + 1.
    """
    layout, usual = (
        lax.conv_dimension_numbers(images.shape, kernel.shape, numbers)
        for numbers in (dimension_numbers, _LAYOUT)
    )
    # A dilation has one number for each axis; the number of groups is a single number.
    ones = all(value is None or np.all(np.atleast_1d(value) == 1) for value in options.values())
    depthwise = 1 < feature_group_count == images.shape[3] == kernel.shape[3]
    ordinary = ones and layout == usual and (depthwise or feature_group_count == 1)
    if not (switch.enabled() and ordinary):
        return lax.conv_general_dilated(
            images,
            kernel,
            strides,
            padding,
            dimension_numbers=dimension_numbers,
            precision=precision,
            feature_group_count=feature_group_count,
            **options,
        )
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(images.shape[1:3], kernel.shape[:2], strides, padding)
    pads = tuple((before, after) for before, after in padding)
    if depthwise:
        return convolve_depthwise(images, kernel, strides, pads, precision=precision)

    def plain(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            images, kernel, strides, pads, dimension_numbers=_LAYOUT, precision=precision
        )

    def by_position(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return _by_position(images[:, :: strides[0], :: strides[1]], kernel[0, 0], precision)

    def by_patches(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return _by_patches(images, kernel, strides, pads, precision, together=2 if few else 1)

    def by_band(images: jax.Array, kernel: jax.Array) -> jax.Array:
        banded = functools.partial(_by_band, strides=strides, padding=pads, precision=precision)
        return switch.by_platform(images, kernel, cpu=banded, default=plain)

    (_, height, width, channels), (rows, columns, _, _) = images.shape, kernel.shape
    small = height < rows or width < columns
    few = not small and channels <= _FEW_CHANNELS and rows * columns * channels <= _FEW_TERMS
    if (rows, columns) == (1, 1) and pads == ((0, 0), (0, 0)):
        form = by_position
    elif small or few:
        form = by_patches
    elif channels <= _FEW_CHANNELS and width <= _WIDER * columns:
        form = by_band
    else:
        form = plain
    return switch.split_by_examples(form, images, kernel)


def _by_position(images: jax.Array, matrix: jax.Array, precision: Any) -> jax.Array:
    """Multiply the channels of each position by a matrix (C, features): (N, H, W, features).

    On TPUs the axes stay apart, because the responses of V1 have another order in memory, and would
    be copied.
    """

    def matrices(images: jax.Array, matrix: jax.Array) -> jax.Array:
        return _product(images, matrix, precision)

    def four_axes(images: jax.Array, matrix: jax.Array) -> jax.Array:
        return jnp.matmul(images, matrix, precision=precision)

    return switch.by_platform(images, matrix, cpu=matrices, default=four_axes)


def _by_patches(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Padding,
    precision: Any,
    together: int,
) -> jax.Array:
    """Convolve by one product of patches and the kernel: (N, H', W', features).

    One patch covers ``together`` neighbouring columns of the result. So there are fewer patches and
    the product is wider. For small kernels this outweighs the zeros that widen the kernels.
    """
    rows, columns, _, features = kernel.shape
    height, width = (
        (images.shape[axis + 1] + sum(padding[axis]) - kernel.shape[axis]) // strides[axis] + 1
        for axis in range(2)
    )
    groups = -(-width // together)
    step = together * strides[1]
    wide = columns + step - strides[1]
    before = padding[1][0]
    beyond = (groups - 1) * step + wide - images.shape[2] - before
    padded = lax.pad(
        images,
        jnp.zeros((), images.dtype),
        [(0, 0, 0), (*padding[0], 0), (before, beyond, 0), (0, 0, 0)],
    )
    strips = [padded[:, :, start : start + (groups - 1) * step + 1 : step] for start in range(wide)]
    strip, last = jnp.concatenate(strips, axis=-1), (height - 1) * strides[0] + 1
    windows = [strip[:, row : row + last : strides[0]] for row in range(rows)]
    beside = [(start, wide - columns - start) for start in range(0, step, strides[1])]
    kernels = [jnp.pad(kernel, ((0, 0), pair, (0, 0), (0, 0))) for pair in beside]
    product = _product(
        jnp.concatenate(windows, axis=-1), jnp.concatenate(kernels, axis=-1), precision
    )
    return product.reshape(images.shape[0], height, groups * together, features)[:, :, :width]


def _by_band(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Padding,
    precision: Any,
) -> jax.Array:
    """Convolve by one product of rows of the images and a banded matrix: (N, H', W', features).

    The matrix has the kernel at each column of the result. Its zeros are products that patches
    spare, but patches repeat each pixel ``columns`` times more, and do not stay in the cache.
    """
    rows, columns, channels, features = kernel.shape
    number, _, across, _ = images.shape
    before, after = padding[1]
    padded = jnp.pad(images, ((0, 0), padding[0], (0, 0), (0, 0)))
    height = (padded.shape[1] - rows) // strides[0] + 1
    starts = range(0, before + across + after - columns + 1, strides[1])
    last = (height - 1) * strides[0] + 1
    # (N, H', rows, W, C)
    windows = jnp.stack([padded[:, row : row + last : strides[0]] for row in range(rows)], axis=2)
    right = before + across + after - columns
    placed = [jnp.pad(kernel, ((0, 0), (at, right - at), (0, 0), (0, 0))) for at in starts]
    # (rows, W, C, W', features). What lies on the padding meets zeros.
    matrix = jnp.stack(placed, axis=3)[:, before : before + across]
    product = _product(
        windows.reshape(number, height, 1, rows * across * channels),
        matrix.reshape(rows * across * channels, len(starts) * features),
        precision,
    )
    return product.reshape(number, height, len(starts), features)


def _product(patches: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    """Multiply patches (N, H', W', rows * columns * C) by the kernel: (N, H', W', features)."""
    features = kernel.shape[-1]
    # Matrices, because a product of 4-dimensional arrays has a slow gradient of the kernel: XLA
    # transposes the outputs' gradient first, with strides and on one core.
    product = jnp.matmul(
        patches.reshape(-1, patches.shape[-1]),
        # A part of V1 may have no features, from which ``reshape`` cannot infer a size of -1.
        kernel.reshape(patches.shape[-1], features),
        precision=precision,
    )
    return product.reshape(*patches.shape[:3], features)
