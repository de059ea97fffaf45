"""Correlation of images of few channels with large kernels and strides, for TPUs and GPUs.

A matrix unit sums over the channels of a position. With one to four channels it idles, and arrays
of few channels are padded to its width in memory. Here the pixels of a stride become channels
first, so that the kernel moves by one position at a time: the published bank of V1 reads 48
channels in windows of 7 x 7 in place of 3 channels in windows of 25 x 25.

The gradient of the images has those 48 channels as its result, and a matrix unit has 128 columns.
So one transposed convolution of all sets computes two neighbouring positions at once, 96 channels.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vone_jax.fast import switch
from vone_jax.fast.convolution import convolve

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def correlate_blocks(
    images: jax.Array, kernels: Sequence[jax.Array], stride: int
) -> list[jax.Array]:
    """Cross-correlate images with several sets of kernels, with zero padding k // 2 on all sides.

    The plain form is a convolution for each set. Gradients of the kernels are not defined, because
    banks are constants.

    Args:
      images: float (N, H, W, C).
      kernels: float (k, k, C, n) for each set, k odd.
      stride: in pixels.

    Returns:
      (N, ceil(H/stride), ceil(W/stride), n) for each set.
    """
    size = kernels[0].shape[0]
    if not switch.enabled():
        padding = [(size // 2, size // 2)] * 2
        return [convolve(images, kernel, (stride, stride), padding) for kernel in kernels]
    blocks = _blocks_of_images(images, stride)
    before = -(-(size // 2) // stride)
    # JAX refuses a convolution without kernels.
    used = tuple(_blocks_of_kernel(kernel, stride) for kernel in kernels if kernel.shape[-1])
    results = iter(_correlate(blocks, used, before))
    nothing = jnp.zeros((*blocks.shape[:3], 0), images.dtype)
    return [next(results) if kernel.shape[-1] else nothing for kernel in kernels]


def _blocks_of_images(images: jax.Array, stride: int) -> jax.Array:
    """Make the pixels of a stride channels: (N, ceil(H/stride), ceil(W/stride), stride^2 C)."""
    number, height, width, channels = images.shape
    rows, columns = -(-height // stride), -(-width // stride)
    beyond = [(0, 0), (0, rows * stride - height), (0, columns * stride - width), (0, 0)]
    blocks = jnp.pad(images, beyond).reshape(number, rows, stride, columns, stride, channels)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(number, rows, columns, -1)


def _blocks_of_kernel(kernel: jax.Array, stride: int) -> jax.Array:
    """Bring a kernel to the same channels, with zeros around it: (rows, rows, stride^2 C, n)."""
    size, _, channels, count = kernel.shape
    # A window begins in the middle of a block unless the stride divides k // 2.
    front = -(size // 2) % stride
    rows = -(-(front + size) // stride)
    around = front, rows * stride - front - size
    kernel = jnp.pad(kernel, (around, around, (0, 0), (0, 0)))
    blocks = kernel.reshape(rows, stride, rows, stride, channels, count)
    return blocks.transpose(0, 2, 1, 3, 4, 5).reshape(rows, rows, -1, count)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _correlate(
    images: jax.Array, kernels: tuple[jax.Array, ...], before: int
) -> tuple[jax.Array, ...]:
    """Correlate blocks with kernels that read ``before`` blocks before their own."""
    padding = [(before, kernels[0].shape[0] - 1 - before)] * 2
    return tuple(_convolve(images, kernel, padding) for kernel in kernels)


@_correlate.defjvp
def _(before, primals, tangents):
    images, kernels = primals
    return _correlate(images, kernels, before), _by_pairs(tangents[0], kernels, before)


def _by_pairs(
    images: jax.Array, kernels: tuple[jax.Array, ...], before: int
) -> tuple[jax.Array, ...]:
    """Return ``_correlate``, with two neighbouring columns as channels; only its transpose is used.

    The pairs stand at even columns with zeros between them, and the kernel has the two places of a
    pair beside each other. The transpose moves by two columns at a time and spreads nothing.
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
        dilation=(1, 2),
    )
    return tuple(jnp.split(result, np.cumsum([k.shape[-1] for k in kernels[:-1]]), axis=-1))


def _convolve(
    images: jax.Array,
    kernel: jax.Array,
    padding: Sequence[tuple[int, int]],
    dilation: tuple[int, int] = (1, 1),
) -> jax.Array:
    return lax.conv_general_dilated(
        images, kernel, (1, 1), padding, lhs_dilation=dilation, dimension_numbers=_LAYOUT
    )
