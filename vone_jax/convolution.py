"""The convolution of the filter bank and of the back ends, with gradients that are fast anywhere.

XLA's CPU compiler has a fast convolution for NHWC images and HWIO kernels only. What comes in
another order it rewrites, but not in the body of a loop: there a plain loop nest is left, four
times slower, and an attack is such a loop. JAX's gradients come in another order. So the
derivatives are said here in a way whose transposes are in the order of the fast one; the values
are those of JAX's own rules up to rounding, in forward and reverse mode and under ``vmap``.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

_FAST = ("NHWC", "HWIO", "NHWC")


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    precision: Any = None,
    dimension_numbers: Any = _FAST,
    **options: Any,
) -> jax.Array:
    """``lax.conv_general_dilated`` for NHWC images, HWIO kernels and explicit padding.

    Two kinds of convolution are matrix products, since XLA's is slower on CPUs: those of 1x1
    kernels (2 to 3 times, and 3 to 8 times in the gradient of the kernel), and those of images
    smaller than the kernel, as 2x2 maps are in the last stages of small-image networks (12 times
    for 3x3 kernels and 64 channels).

    Args:
      images: (N, H, W, C).
      kernel: (rows, columns, C, features), of the type of ``images``.
      strides: rows and columns.
      padding: before and after, of rows and columns.
      precision: of the products, as ``lax.dot_general`` takes it.
      dimension_numbers: must say NHWC, HWIO and NHWC, in any way that JAX takes.
      **options: what ``flax.linen.Conv`` passes on beside; must mean no dilation and no groups.

    Returns:
      (N, H', W', features).

    Raises:
      ValueError: for options that ask for another convolution.
    """
    _check(images, kernel, dimension_numbers, options)
    strides, padding = tuple(strides), tuple((before, after) for before, after in padding)
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        return _product(images[:, :: strides[0], :: strides[1]], kernel, precision)
    if images.shape[1] >= kernel.shape[0] and images.shape[2] >= kernel.shape[1]:
        return _convolve(images, kernel, strides, padding, precision)
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    height, width = padded.shape[1:3]
    k_rows, k_columns = kernel.shape[:2]
    patches = [
        padded[
            :,
            row : height - k_rows + row + 1 : strides[0],
            column : width - k_columns + column + 1 : strides[1],
        ]
        for row in range(k_rows)
        for column in range(k_columns)
    ]
    return _product(jnp.concatenate(patches, axis=-1), kernel, precision)


def _product(patches, kernel, precision):
    """Patches (N, H', W', rows * columns * C) times the kernel: (N, H', W', features)."""
    features = kernel.shape[-1]
    # Of matrices: with the axes of images apart, the gradient of the kernel would be taken from
    # a transposed copy of the outputs' gradient, computed with strides and on one core.
    product = jnp.matmul(
        patches.reshape(-1, patches.shape[-1]), kernel.reshape(-1, features), precision=precision
    )
    return product.reshape(*patches.shape[:3], features)


def _check(images, kernel, dimension_numbers, options) -> None:
    numbers = [
        lax.conv_dimension_numbers(images.shape, kernel.shape, given)
        for given in (dimension_numbers, _FAST)
    ]
    if numbers[0] != numbers[1]:
        raise ValueError(f"dimension_numbers must say {_FAST}, got {dimension_numbers}")
    for name, value in options.items():
        # A dilation is a number for each axis, the number of groups is one.
        if value is not None and any(one != 1 for one in np.atleast_1d(value)):
            raise ValueError(f"{name} must be 1 or left out, got {value!r}")


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _convolve(images, kernel, strides, padding, precision):
    return lax.conv_general_dilated(
        images, kernel, strides, padding, dimension_numbers=_FAST, precision=precision
    )


@functools.partial(_convolve.defjvp, symbolic_zeros=True)
def _derivative(strides, padding, precision, primals, tangents):
    images, kernel = primals
    of_images, of_kernel = tangents
    tangent = None
    convolution = functools.partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, precision=precision
    )
    # The transpose of a convolution exchanges inputs and outputs: those of the kernel for the
    # gradient of the images, examples and channels for the gradient of the kernel. Where they
    # stand exchanged here, they come out in order.
    if not isinstance(of_images, SymbolicZero):
        tangent = convolution(
            of_images, kernel.swapaxes(2, 3), dimension_numbers=("NHWC", "HWOI", "NHWC")
        )
    if not isinstance(of_kernel, SymbolicZero):
        by_kernel = convolution(
            images.transpose(3, 1, 2, 0),
            of_kernel.transpose(2, 0, 1, 3),
            dimension_numbers=("CHWN", "IHWO", "HWNC"),
        ).transpose(2, 0, 1, 3)
        tangent = by_kernel if tangent is None else tangent + by_kernel
    return _convolve(images, kernel, strides, padding, precision), tangent
