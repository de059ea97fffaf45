"""Noise corruptions: each example draws from its own key.

Every function takes keys (N,), images (N, H, W, C) in [0, 1] and arrays, and returns images
that may leave [0, 1]; ``corrupt`` clips.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import fast
from vone_jax.corruptions import poisson


def gaussian(keys: jax.Array, images: jax.Array, deviation: jax.Array) -> jax.Array:
    """x + N(0, deviation^2)."""
    return images + deviation * _normal(keys, images)


def shot_arrays(photons: float, shape: tuple[int, int, int]) -> tuple:
    """Photons for a value of 1, and the tables of ``poisson``."""
    return np.float32(photons), poisson.alias_tables()


def shot(keys: jax.Array, images: jax.Array, arrays: tuple) -> jax.Array:
    """Poisson(photons * x) / photons."""
    photons, tables = arrays
    counts = jax.vmap(poisson.poisson, in_axes=(0, 0, None))(keys, photons * images, tables)
    return counts / photons


def impulse(keys: jax.Array, images: jax.Array, share: jax.Array) -> jax.Array:
    """Each value is hit with probability ``share`` and becomes 0 or 1 with equal probability."""
    draw = lambda key: fast.random_words(key, images.shape[1:])  # noqa: E731
    words, others = jax.vmap(draw)(keys)
    hit = (words >> 8).astype(jnp.int32).astype(jnp.float32) < share * 2**24
    return jnp.where(hit, (others >> 31).astype(jnp.int32).astype(images.dtype), images)


def speckle(keys: jax.Array, images: jax.Array, deviation: jax.Array) -> jax.Array:
    """x + x N(0, deviation^2)."""
    return images + images * deviation * _normal(keys, images)


def _normal(keys: jax.Array, images: jax.Array) -> jax.Array:
    return jax.vmap(lambda key: fast.standard_normal(key, images.shape[1:]))(keys)
