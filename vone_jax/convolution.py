"""The convolution of the filter bank and of the back ends, with gradients that are fast anywhere.

XLA's CPU compiler has a fast convolution for NHWC images and HWIO kernels only. What comes in
another order it rewrites, but not in the body of a loop: there a plain loop nest is left, four
times slower, and an attack is such a loop. JAX's gradients come in another order. So the
derivatives are said here in a way whose transposes are in the order of the fast one; the values
are those of JAX's own rules up to rounding, in forward and reverse mode and under ``vmap``.

What reads images of few channels, as stems and small Gabor banks do, has other trouble. A
processor sums over the channels of a position, and there are one or three. So rows, or rows and
columns, of the kernel's window are laid beside each other as channels first.
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

# Images of at most so many channels are brought to more of them.
_FEW_CHANNELS = 4
# A kernel that sums over at most so many numbers is applied to explicit patches.
_FEW_TERMS = 64


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

    Three kinds of convolution are matrix products, since XLA's is slower on CPUs: those of 1x1
    kernels (2 to 3 times, and 3 to 8 times in the gradient of the kernel); those of images
    smaller than the kernel, as 2x2 maps are in the last stages of small-image networks (12 times
    for 3x3 kernels and 64 channels); and those of small kernels on images of few channels, as the
    stems of small-image networks are (1.4 to 3 times, and 2 to 7 times in the gradient of images).

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
    if images.shape[1] < kernel.shape[0] or images.shape[2] < kernel.shape[1]:
        return _by_patches(images, kernel, strides, padding, precision, together=1)
    if images.shape[3] <= _FEW_CHANNELS and np.prod(kernel.shape[:3]) <= _FEW_TERMS:
        return _by_patches(images, kernel, strides, padding, precision, together=2)
    return _convolve(images, kernel, strides, padding, precision)


def _by_patches(images, kernel, strides, padding, precision, together):
    """The convolution as a product of patches and the kernel: (N, H', W', features).

    ``together`` neighbouring columns of the result come from one patch that is wide enough for
    them. Patches are fewer then, and the product is less narrow; both outweigh the zeros in its
    kernels where kernels are small.
    """
    rows, columns, _, features = kernel.shape
    height, width = _extent(images, kernel, strides, padding)
    groups = -(-width // together)
    step = together * strides[1]
    wide = columns + step - strides[1]
    padded = _padded(images, padding, (groups - 1) * step + wide)
    strips = [padded[:, :, start : start + (groups - 1) * step + 1 : step] for start in range(wide)]
    patches = _windows(jnp.concatenate(strips, axis=-1), rows, height, strides[0])
    offsets = range(0, step, strides[1])
    beside = [(start, wide - columns - start) for start in offsets]
    kernels = [jnp.pad(kernel, ((0, 0), pair, (0, 0), (0, 0))) for pair in beside]
    product = _product(patches, jnp.concatenate(kernels, axis=-1), precision)
    return product.reshape(images.shape[0], height, groups * together, features)[:, :, :width]


def _by_rows(images, kernel, strides, padding, precision):
    """The convolution as one along columns: (N, H', W', features).

    Its images are windows of rows as channels, (N, H', columns, stride * rows * C):
    columns within a stride are channels as well. Its transpose, in the order of the fast
    convolution, is what the gradient of images takes: one application of the kernel to the
    responses alone, where JAX's would spread them with zeros by the stride.
    """
    rows, columns, channels, features = kernel.shape
    height, width = _extent(images, kernel, strides, padding)
    steps = -(-columns // strides[1])
    folded = width - 1 + steps
    padded = _padded(images, padding, folded * strides[1])
    windows = _windows(padded, rows, height, strides[0])
    kernel = jnp.pad(kernel, ((0, 0), (0, steps * strides[1] - columns), (0, 0), (0, 0)))
    kernel = kernel.reshape(rows, steps, strides[1], channels, features).transpose(1, 4, 2, 0, 3)
    return lax.conv_general_dilated(
        windows.reshape(images.shape[0], height, folded, -1),
        kernel.reshape(1, steps, features, -1),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
        precision=precision,
    )


def _extent(images, kernel, strides, padding) -> list[int]:
    """Rows and columns of the result."""
    return [
        (images.shape[axis + 1] + sum(padding[axis]) - kernel.shape[axis]) // strides[axis] + 1
        for axis in range(2)
    ]


def _padded(images, padding, width):
    """With zeros around, and brought to so many columns at the end of the rows."""
    before, after = padding[1]
    after = width - images.shape[2] - before
    rows = (*padding[0], 0)
    zero = jnp.zeros((), images.dtype)
    return lax.pad(images, zero, [(0, 0, 0), rows, (before, after, 0), (0, 0, 0)])


def _windows(images, rows, height, stride):
    """The ``rows`` rows from every ``stride``-th on as channels: (N, height, W, rows * C)."""
    last = (height - 1) * stride + 1
    return jnp.concatenate([images[:, row : row + last : stride] for row in range(rows)], axis=-1)


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
        if images.shape[3] <= _FEW_CHANNELS:
            tangent = _by_rows(of_images, kernel, strides, padding, precision)
        else:
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
