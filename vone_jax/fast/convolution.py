"""A convolution whose values and gradients are fast on CPUs too, also inside compiled loops.

XLA's CPU compiler has one fast convolution: NHWC images with HWIO kernels. It rewrites other
layouts to that one, but not inside the body of a loop, where a plain loop nest remains that is four
times slower. Attacks are such loops, and JAX's gradients come in other layouts. The derivatives
here are written so that their transposes have the fast layout. Their values equal those of JAX's
own rules up to rounding, in forward and reverse mode and under ``vmap``.

Images of few channels, as in stems and small Gabor banks, have another problem: a processor sums
over the channels of a position, and there are only one to three. Here the rows of the kernel's
window, or its rows and columns, become channels first.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from vone_jax.fast import switch
from vone_jax.fast.depthwise import convolve_depthwise

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_TRANSPOSED = ("NHWC", "HWOI", "NHWC")

# Images of at most this many channels get more channels from the window of the kernel.
_FEW_CHANNELS = 4
# A kernel that sums over at most this many numbers is applied to explicit patches.
_FEW_TERMS = 64


class _Settings(NamedTuple):
    """The strides and the padding of rows and columns, and the precision of the products."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    precision: Any


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

    The plain form is ``lax.conv_general_dilated``. Three kinds of convolution are matrix products
    here, because XLA's convolution is slower on CPUs:

    - 1x1 kernels: 2 to 3 times slower, and 3 to 8 times in the gradient of the kernel;
    - images smaller than the kernel, such as 2x2 maps in the last stages of networks for small
      images: 12 times slower for 3x3 kernels and 64 channels;
    - small kernels on images of few channels, as in the stems of these networks: 1.4 to 3 times
      slower, and 2 to 7 times in the gradient of the images.

    Args:
      images: (N, H, W, C).
      kernel: (rows, columns, C, features), of the type of ``images``.
      strides: along rows and columns.
      padding: zeros before and after, for rows and columns; or "SAME" or "VALID".
      precision: of the products, as in ``lax.dot_general``.
      dimension_numbers: must mean NHWC, HWIO and NHWC, in any form that JAX accepts.
      feature_group_count: 1; or C for C features, which is ``convolve_depthwise``.
      **options: other arguments that ``flax.linen.Conv`` passes; they must ask for no dilation
        and no groups of examples.

    Returns:
      (N, H', W', features), H' = (H + padding - rows) // stride + 1.

    Raises:
      ValueError: if an option asks for another convolution.
    """
    depthwise = 1 < feature_group_count == images.shape[3] == kernel.shape[3]
    options["feature_group_count"] = 1 if depthwise else feature_group_count
    _check(images, kernel, dimension_numbers, options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(images.shape[1:3], kernel.shape[:2], strides, padding)
    if depthwise:
        return convolve_depthwise(images, kernel, strides, padding, precision=precision)
    pads = tuple((before, after) for before, after in padding)
    settings = _Settings(tuple(strides), pads, precision)
    if not switch.enabled():
        return _plain(images, kernel, settings)
    if kernel.shape[:2] == (1, 1) and pads == ((0, 0), (0, 0)):
        return _product(images[:, :: strides[0], :: strides[1]], kernel, precision)
    if images.shape[1] < kernel.shape[0] or images.shape[2] < kernel.shape[1]:
        return _by_patches(images, kernel, settings, together=1)
    if images.shape[3] <= _FEW_CHANNELS and np.prod(kernel.shape[:3]) <= _FEW_TERMS:
        return _by_patches(images, kernel, settings, together=2)
    return _convolve(images, kernel, settings)


def _plain(
    images: jax.Array, kernel: jax.Array, settings: _Settings, layout: Any = _LAYOUT
) -> jax.Array:
    return lax.conv_general_dilated(
        images,
        kernel,
        settings.strides,
        settings.padding,
        dimension_numbers=layout,
        precision=settings.precision,
    )


def _by_patches(
    images: jax.Array, kernel: jax.Array, settings: _Settings, together: int
) -> jax.Array:
    """Convolve by one product of patches and the kernel: (N, H', W', features).

    One patch covers ``together`` neighbouring columns of the result. So there are fewer patches and
    the product is wider. For small kernels this outweighs the zeros that widen the kernels.
    """
    rows, columns, _, features = kernel.shape
    height, width = _extent(images, kernel, settings)
    strides = settings.strides
    groups = -(-width // together)
    step = together * strides[1]
    wide = columns + step - strides[1]
    padded = _padded(images, settings, (groups - 1) * step + wide)
    strips = [padded[:, :, start : start + (groups - 1) * step + 1 : step] for start in range(wide)]
    patches = _windows(jnp.concatenate(strips, axis=-1), rows, height, strides[0])
    offsets = range(0, step, strides[1])
    beside = [(start, wide - columns - start) for start in offsets]
    kernels = [jnp.pad(kernel, ((0, 0), pair, (0, 0), (0, 0))) for pair in beside]
    product = _product(patches, jnp.concatenate(kernels, axis=-1), settings.precision)
    return product.reshape(images.shape[0], height, groups * together, features)[:, :, :width]


def _by_rows(images: jax.Array, kernel: jax.Array, settings: _Settings) -> jax.Array:
    """Convolve along columns, with the rows of a window as channels: (N, H', W', features).

    The images become (N, H', columns, stride * rows * C), because the columns within a stride are
    channels as well. The gradient of the images uses the transpose, which has the fast layout: it
    applies the kernel to the responses alone. JAX's own gradient would first spread the responses
    with zeros by the stride.
    """
    rows, columns, channels, features = kernel.shape
    height, width = _extent(images, kernel, settings)
    strides = settings.strides
    steps = -(-columns // strides[1])
    folded = width - 1 + steps
    padded = _padded(images, settings, folded * strides[1])
    windows = _windows(padded, rows, height, strides[0])
    kernel = jnp.pad(kernel, ((0, 0), (0, steps * strides[1] - columns), (0, 0), (0, 0)))
    kernel = kernel.reshape(rows, steps, strides[1], channels, features).transpose(1, 4, 2, 0, 3)
    return _plain(
        windows.reshape(images.shape[0], height, folded, -1),
        kernel.reshape(1, steps, features, -1),
        _Settings((1, 1), ((0, 0), (0, 0)), settings.precision),
        _TRANSPOSED,
    )


def _extent(images: jax.Array, kernel: jax.Array, settings: _Settings) -> list[int]:
    """Return the numbers of rows and columns of the result."""
    strides, padding, _ = settings
    return [
        (images.shape[axis + 1] + sum(padding[axis]) - kernel.shape[axis]) // strides[axis] + 1
        for axis in range(2)
    ]


def _padded(images: jax.Array, settings: _Settings, width: int) -> jax.Array:
    """Pad the images with zeros, at the right up to ``width`` columns."""
    rows, (before, _) = settings.padding
    columns = (before, width - images.shape[2] - before, 0)
    return lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), (*rows, 0), columns, (0, 0, 0)])


def _windows(images: jax.Array, rows: int, height: int, stride: int) -> jax.Array:
    """Stack the ``rows`` rows of each window as channels: (N, height, W, rows * C)."""
    last = (height - 1) * stride + 1
    return jnp.concatenate([images[:, row : row + last : stride] for row in range(rows)], axis=-1)


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


def _check(
    images: jax.Array, kernel: jax.Array, dimension_numbers: Any, options: dict[str, Any]
) -> None:
    asked, accepted = (
        lax.conv_dimension_numbers(images.shape, kernel.shape, numbers)
        for numbers in (dimension_numbers, _LAYOUT)
    )
    if asked != accepted:
        raise ValueError(
            f"dimension_numbers must be {_LAYOUT}, got {dimension_numbers}; for another layout "
            "use jax.lax.conv_general_dilated"
        )
    for name, value in options.items():
        # A dilation has one number for each axis; the number of groups is a single number.
        if value is not None and np.any(np.atleast_1d(value) != 1):
            raise ValueError(
                f"{name} must be 1 or left out, got {value!r}; for another convolution use "
                "jax.lax.conv_general_dilated"
            )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _convolve(images: jax.Array, kernel: jax.Array, settings: _Settings) -> jax.Array:
    return _plain(images, kernel, settings)


@functools.partial(_convolve.defjvp, symbolic_zeros=True)
def _derivative(
    settings: _Settings, primals: tuple[jax.Array, jax.Array], tangents: tuple[Any, Any]
) -> tuple[jax.Array, jax.Array | None]:
    images, kernel = primals
    of_images, of_kernel = tangents
    tangent = None
    # The transpose of a convolution exchanges two axes: inputs and outputs of the kernel in the
    # gradient of the images, examples and channels in the gradient of the kernel. They are
    # exchanged here already, so that the transposes have the fast layout.
    if not isinstance(of_images, SymbolicZero):
        if images.shape[3] <= _FEW_CHANNELS:
            tangent = _by_rows(of_images, kernel, settings)
        else:
            tangent = _plain(of_images, kernel.swapaxes(2, 3), settings, _TRANSPOSED)
    if not isinstance(of_kernel, SymbolicZero):
        by_channel, transposed = images.transpose(3, 1, 2, 0), of_kernel.transpose(2, 0, 1, 3)
        by_kernel = _plain(by_channel, transposed, settings, ("CHWN", "IHWO", "HWNC"))
        by_kernel = by_kernel.transpose(2, 0, 1, 3)
        tangent = by_kernel if tangent is None else tangent + by_kernel
    return _convolve(images, kernel, settings), tangent
