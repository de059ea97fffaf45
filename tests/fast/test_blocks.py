"""Correlation by blocks agrees with a convolution for each set, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vone_jax import fast


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize(("channels", "size"), [(1, 9), (3, 5), (5, 9)])
def test_values_and_gradients_are_those_of_convolutions(stride, channels, size):
    """The reference is JAX's convolution with its own gradient. Sides divide by no stride."""
    random = np.random.default_rng(0)
    images = jnp.asarray(random.normal(size=(2, 13, 11, channels)), jnp.float32)
    kernels = [
        jnp.asarray(random.normal(size=(size, size, channels, count)), jnp.float32)
        for count in (4, 0, 3)
    ]

    def convolved(images):
        kernel = jnp.concatenate(kernels, axis=-1)
        padding = [(size // 2, size // 2)] * 2
        return lax.conv_general_dilated(
            images, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def by_blocks(images):
        return jnp.concatenate(fast.correlate_blocks(images, kernels, stride), axis=-1)

    expected, of_convolution = jax.vjp(convolved, images)
    values, of_blocks = jax.vjp(by_blocks, images)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)
    slope = jnp.asarray(random.normal(size=expected.shape), jnp.float32)
    np.testing.assert_allclose(of_blocks(slope)[0], of_convolution(slope)[0], rtol=1e-4, atol=1e-4)
