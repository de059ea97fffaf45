"""The convolution of the back ends."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    precision: Any = None,
    **options: Any,
) -> jax.Array:
    """``lax.conv_general_dilated`` for NHWC images, HWIO kernels and explicit padding.

    Where the image is smaller than the kernel, as 2x2 maps are in the last stages of small-image
    networks, XLA leaves its fast convolution on CPUs (12 times slower for 3x3 kernels on 2x2 maps
    of 64 channels). There the patches are multiplied as a matrix; the result is the same up to
    rounding.
    """
    if images.shape[1] >= kernel.shape[0] and images.shape[2] >= kernel.shape[1]:
        return lax.conv_general_dilated(
            images, kernel, strides, padding, precision=precision, **options
        )
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    height, width = padded.shape[1:3]
    k_rows, k_columns, _, features = kernel.shape
    patches = [
        padded[
            :,
            row : height - k_rows + row + 1 : strides[0],
            column : width - k_columns + column + 1 : strides[1],
        ]
        for row in range(k_rows)
        for column in range(k_columns)
    ]
    return jnp.matmul(
        jnp.concatenate(patches, axis=-1), kernel.reshape(-1, features), precision=precision
    )
