"""A convolution whose input gradient stays fast inside a compiled loop on a CPU."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from vone_jax.models.convolution import convolve

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """3x3 convolution of NHWC images with a HWIO kernel and a rim of one pixel.

    JAX's own input gradient is a convolution that reads the kernel as HWOI. XLA's compiler for
    CPUs brings that into the form of its fast convolution, but not in the body of a loop: there it
    falls back to a plain one and a gradient takes three times as long. So the kernel is turned
    here; the values are the same up to rounding.
    """
    return convolve(images, kernel, (stride,) * 2, [(1, 1)] * 2, dimension_numbers=_DIMENSIONS)


def _forward(images, kernel, stride):
    return convolution(images, kernel, stride), (images, kernel)


def _backward(stride, saved, slope):
    images, kernel = saved
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    padding = [
        (1, whole - (part - 1) * stride)
        for whole, part in zip(images.shape[1:3], slope.shape[1:3], strict=True)
    ]
    of_images = lax.conv_general_dilated(
        slope, turned, (1, 1), padding, lhs_dilation=(stride,) * 2, dimension_numbers=_DIMENSIONS
    )
    _, of_kernel = jax.vjp(
        lambda kernel: convolve(
            images, kernel, (stride,) * 2, [(1, 1)] * 2, dimension_numbers=_DIMENSIONS
        ),
        kernel,
    )
    return of_images, of_kernel(slope)[0]


convolution.defvjp(_forward, _backward)
