"""Correlation of images of few channels with large kernels and strides, for TPUs and GPUs.

A matrix unit sums over the channels of a position. With one to four channels most of it is unused,
and memory holds such arrays padded to its width. Here each block of stride x stride pixels first
becomes the channels of one position, so that the kernel moves by one position at a time. The
published bank of V1 then reads 48 channels in windows of 7 x 7, not 3 channels in 25 x 25.

The gradient of the images has 48 channels, and a matrix unit has 128 columns. So one transposed
convolution with all sets of kernels computes two neighbouring positions at once, 96 channels.
A stride of 1 or 2 leaves 3 or 12 channels and wide windows, for which the compiler for TPUs takes
many minutes. For these strides the gradient uses larger blocks, as if the stride were 4.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vone_jax.fast import switch
from vone_jax.fast.convolution import convolve

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# The largest number of channels of a block in the gradient of the images: three colours at a stride
# of 4. A pair of blocks has twice as many.
_BLOCK_CHANNELS = 48

# Of the products, as in ``lax.dot_general``; None is JAX's setting.
Precision = str | None


def correlate_blocks(
    images: jax.Array, kernels: Sequence[jax.Array], stride: int, precision: Precision = None
) -> list[jax.Array]:
    """Cross-correlate images with several sets of kernels, with zero padding k // 2 on all sides.

    The plain form is a convolution for each set. Gradients of the kernels are not defined, because
    banks are constants.

    Args:
      images: float (N, H, W, C).
      kernels: float (k, k, C, n) for each set, k odd.
      stride: in pixels.
      precision: of the products, as in ``lax.conv_general_dilated``, gradients included.

    Returns:
      (N, ceil(H/stride), ceil(W/stride), n) for each set.
    """
    size = kernels[0].shape[0]
    if not switch.enabled():
        padding = [(size // 2, size // 2)] * 2
        return [
            convolve(images, kernel, (stride, stride), padding, precision=precision)
            for kernel in kernels
        ]

    def by_blocks(images: jax.Array, *kernels: jax.Array) -> list[jax.Array]:
        blocks = _blocks_of_images(images, stride)
        before = -(-(size // 2) // stride)
        # JAX refuses a convolution without kernels.
        by_block = tuple(
            _blocks_of_kernel(kernel, stride) for kernel in kernels if kernel.shape[-1]
        )
        results = iter(_correlate(blocks, by_block, before, precision))
        nothing = jnp.zeros((*blocks.shape[:3], 0), images.dtype)
        return [next(results) if kernel.shape[-1] else nothing for kernel in kernels]

    return switch.split_by_examples(by_blocks, images, *kernels)


def _blocks_of_images(images: jax.Array, stride: int) -> jax.Array:
    """Turn blocks of pixels into channels: (N, ceil(H/stride), ceil(W/stride), stride^2 C)."""
    number, height, width, channels = images.shape
    rows, columns = -(-height // stride), -(-width // stride)
    beyond = [(0, 0), (0, rows * stride - height), (0, columns * stride - width), (0, 0)]
    blocks = jnp.pad(images, beyond).reshape(number, rows, stride, columns, stride, channels)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(number, rows, columns, stride * stride * channels)


def _blocks_of_kernel(kernel: jax.Array, stride: int) -> jax.Array:
    """Turn blocks of a zero-padded kernel into the same channels: (rows, rows, stride^2 C, n)."""
    size = kernel.shape[0]
    # A window begins in the middle of a block unless the stride divides k // 2.
    front = -(size // 2) % stride
    rows = -(-(front + size) // stride)
    around = front, rows * stride - front - size
    return _fold(jnp.pad(kernel, (around, around, (0, 0), (0, 0))), stride)


def _fold(kernel: jax.Array, side: int) -> jax.Array:
    """Turn each block of ``side`` x ``side`` positions of a kernel into channels."""
    rows, columns, channels, count = kernel.shape
    rows, columns = rows // side, columns // side
    blocks = kernel.reshape(rows, side, columns, side, channels, count)
    return blocks.transpose(0, 2, 1, 3, 4, 5).reshape(rows, columns, side * side * channels, count)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _correlate(
    images: jax.Array, kernels: tuple[jax.Array, ...], before: int, precision: Precision
) -> tuple[jax.Array, ...]:
    """Correlate blocks with kernels whose windows begin ``before`` blocks before the response."""
    padding = [(before, kernels[0].shape[0] - 1 - before)] * 2
    return tuple(_convolve(images, kernel, padding, precision) for kernel in kernels)


@_correlate.defjvp
def _(before, precision, primals, tangents):
    images, kernels = primals
    group = max(int(math.sqrt(_BLOCK_CHANNELS / images.shape[3])), 1)
    tangent = _by_groups(tangents[0], kernels, before, precision, group)
    return _correlate(images, kernels, before, precision), tangent


def _by_groups(
    images: jax.Array,
    kernels: tuple[jax.Array, ...],
    before: int,
    precision: Precision,
    group: int,
) -> tuple[jax.Array, ...]:
    """Compute ``_correlate`` on groups of ``group`` x ``group`` blocks; its transpose is fast.

    Each set of kernels is repeated, with a shift, for each position in a group of results.
    """
    if group == 1:
        return _by_pairs(images, kernels, before, precision)
    height, width = images.shape[1:3]
    rows = kernels[0].shape[0]
    groups_before = -(-before // group)
    front = groups_before * group - before
    windows = -(-(front + group - 1 + rows) // group)
    beyond = windows * group - front - rows

    def shifted(kernel: jax.Array, down: int, across: int) -> jax.Array:
        around = [(front + shift, beyond - shift) for shift in (down, across)]
        return _fold(jnp.pad(kernel, (*around, (0, 0), (0, 0))), group)

    places = [(down, across) for down in range(group) for across in range(group)]
    sets = [
        jnp.concatenate([shifted(kernel, *place) for place in places], axis=-1)
        for kernel in kernels
    ]
    blocks = _blocks_of_images(images, group)
    results = _by_pairs(blocks, tuple(sets), groups_before, precision)

    def apart(result: jax.Array) -> jax.Array:
        number, down, across, features = result.shape
        count = features // group**2
        result = result.reshape(number, down, across, group, group, count)
        result = result.transpose(0, 1, 3, 2, 4, 5)
        result = result.reshape(number, down * group, across * group, count)
        return result[:, :height, :width]

    return tuple(apart(result) for result in results)


def _by_pairs(
    images: jax.Array, kernels: tuple[jax.Array, ...], before: int, precision: Precision
) -> tuple[jax.Array, ...]:
    """Compute ``_correlate`` with two neighbouring columns as channels; its transpose is fast.

    Zeros separate the pairs of columns, and the kernel has both columns of a pair as channels. The
    transpose has a stride of two columns, and needs no zeros between the responses.
    """
    number, height, width, channels = images.shape
    rows, pairs = kernels[0].shape[0], -(-width // 2)
    images = jnp.pad(images, ((0, 0), (0, 0), (0, pairs * 2 - width), (0, 0)))
    images = images.reshape(number, height, pairs, 2 * channels)
    kernel = jnp.concatenate(kernels, axis=-1)
    shifted = [jnp.pad(kernel, ((0, 0), (1 - i, i), (0, 0), (0, 0))) for i in range(2)]
    after = rows - 1 - before
    result = _convolve(
        images,
        jnp.concatenate(shifted, axis=2),
        [(before, after), (before + 1, after + 1 + width - 2 * pairs)],
        precision,
        dilation=(1, 2),
    )
    return tuple(jnp.split(result, np.cumsum([k.shape[-1] for k in kernels[:-1]]), axis=-1))


def _convolve(
    images: jax.Array,
    kernel: jax.Array,
    padding: Sequence[tuple[int, int]],
    precision: Precision,
    dilation: tuple[int, int] = (1, 1),
) -> jax.Array:
    return lax.conv_general_dilated(
        images,
        kernel,
        (1, 1),
        padding,
        lhs_dilation=dilation,
        dimension_numbers=_LAYOUT,
        precision=precision,
    )
