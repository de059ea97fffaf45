"""Noise corruptions: each example draws from its own key.

Every function takes keys (N,), images (N, H, W, C) in [0, 1] and a scalar, and returns images
that may leave [0, 1]; ``corrupt`` clips.
"""

import jax
import jax.numpy as jnp

from vone_jax import prng


def gaussian(keys: jax.Array, images: jax.Array, deviation: jax.Array) -> jax.Array:
    """x + N(0, deviation^2)."""
    return images + deviation * _normal(keys, images)


def shot(keys: jax.Array, images: jax.Array, photons: jax.Array) -> jax.Array:
    """Poisson(photons * x) / photons."""
    rates = jnp.maximum(photons * images, 0.0)
    counts = jax.vmap(lambda key, rate: jax.random.poisson(_threefry(key), rate))(keys, rates)
    return counts.astype(images.dtype) / photons


def impulse(keys: jax.Array, images: jax.Array, share: jax.Array) -> jax.Array:
    """Each value is hit with probability ``share`` and becomes 0 or 1 with equal probability."""
    hit = _uniform(prng.stream(keys, "hit"), images) < share
    salt = _uniform(prng.stream(keys, "salt"), images) < 0.5
    return jnp.where(hit, salt.astype(images.dtype), images)


def speckle(keys: jax.Array, images: jax.Array, deviation: jax.Array) -> jax.Array:
    """x + x N(0, deviation^2)."""
    return images + images * deviation * _normal(keys, images)


def _normal(keys: jax.Array, images: jax.Array) -> jax.Array:
    draw = lambda key: jax.random.normal(key, images.shape[1:], images.dtype)  # noqa: E731
    return jax.vmap(draw)(keys)


def _uniform(keys: jax.Array, images: jax.Array) -> jax.Array:
    draw = lambda key: jax.random.uniform(key, images.shape[1:], images.dtype)  # noqa: E731
    return jax.vmap(draw)(keys)


def _threefry(key: jax.Array) -> jax.Array:
    # jax.random.poisson knows no other generator, and "rbg" is common on TPUs.
    return jax.random.wrap_key_data(jax.random.bits(key, (2,)), impl="threefry2x32")
