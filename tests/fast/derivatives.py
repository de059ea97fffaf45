"""Two forms of a function of images and kernels, and all their derivatives, compared."""

import jax
import jax.numpy as jnp
import numpy as np


def assert_close(found, expected, atol):
    chosen = {"rtol": 1e-5, "atol": atol}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **chosen), found, expected)


def compare(pair, x, k, atol):
    """Values, forward mode, reverse mode in both arguments, and both at once."""

    def everything(function):
        def run(x, k, dx, dk):
            value, tangent = jax.jvp(function, (x, k), (dx, dk))
            slope = jnp.sin(value)
            of_both = jax.vjp(function, x, k)[1](slope)
            of_images = jax.vjp(lambda x: function(x, k), x)[1](slope)
            of_kernel = jax.vjp(lambda k: function(x, k), k)[1](slope)
            return value, tangent, of_both, of_images, of_kernel

        return jax.jit(run)

    ours, theirs = map(everything, pair)
    inputs = (x, k, jnp.cos(x), jnp.cos(k))
    assert_close(ours(*inputs), theirs(*inputs), atol)


def gradients(function):
    """Those of a curved loss in both arguments."""
    return jax.grad(lambda x, k: jnp.sum(jnp.sin(function(x, k))), argnums=(0, 1))


def compare_second(pair, x, k, atol):
    """Products with the second derivatives of a loss."""

    def product(function):
        gradient = gradients(function)
        return jax.jit(lambda: jax.jvp(gradient, (x, k), (jnp.cos(x), jnp.cos(k)))[1])

    ours, theirs = map(product, pair)
    assert_close(ours(), theirs(), atol)


def compare_under_vmap(pair, x, k, axes, atol):
    """Gradients of several images, of several kernels, or of both."""
    x, k = (
        jnp.stack([a, 2 * a, jnp.cos(a)]) if axis == 0 else a
        for a, axis in zip((x, k), axes, strict=True)
    )
    ours, theirs = (jax.jit(jax.vmap(gradients(function), axes)) for function in pair)
    assert_close(ours(x, k), theirs(x, k), atol)
