"""Noise corruptions, and the Poisson numbers of shot noise.

Each example draws from its own key. A noise corruption draws value by value, so its ``apply``
takes the keys where other corruptions take random numbers. Results may leave [0, 1].

Poisson numbers: a rate is split into its whole part and the rest, and one number is drawn for
each. Their sum is a Poisson number. Whole rates have tables (Walker's alias method, exact up to
the 32 bits of a random word). The rest is below 1, where the count follows from comparing one
uniform number with a few tail probabilities. ``jax.random.poisson`` has loops instead, which run
until the slowest value is done.

Reference: Walker, An efficient method for generating discrete random variables with general
distributions, ACM Trans. Math. Softw. 1977.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt32

from vone_jax import fast
from vone_jax.corruptions.levels import Images, Keys, Shape

LARGEST_RATE = 500

# The number of counts that a table holds. The counts reach 11 standard deviations to either side of
# the largest rate, and further for other rates.
_COUNTS = 512
_COUNT_BITS = 9
# A Poisson number of rate 1 exceeds this with a probability of 7e-11, less than one word in 2^32.
_LARGEST_REST = 12


def normal(keys: Keys, shape: tuple[int, ...]) -> Float[Array, "n ..."]:
    """Draw standard normal numbers of a shape for each key."""
    return jax.vmap(lambda key: fast.standard_normal(key, shape))(keys)


def uniform(keys: Keys, shape: tuple[int, ...]) -> Float[Array, "n ..."]:
    """Draw numbers uniform in (-1, 1) of a shape for each key."""
    return jax.vmap(lambda key: fast.symmetric_uniform(key, shape))(keys)


def gaussian(keys: Keys, images: Images, deviation: Float[Array, ""]) -> Images:
    """Return x + N(0, deviation^2)."""
    return images + deviation * normal(keys, images.shape[1:])


def speckle(keys: Keys, images: Images, deviation: Float[Array, ""]) -> Images:
    """Return x + x N(0, deviation^2)."""
    return images + images * deviation * normal(keys, images.shape[1:])


def impulse(keys: Keys, images: Images, share: Float[Array, ""]) -> Images:
    """Replace each value with probability ``share``, by 0 or 1 with equal probability."""

    words, others = jax.vmap(lambda key: fast.random_words(key, images.shape[1:]))(keys)
    hit = (words >> 8).astype(jnp.int32).astype(jnp.float32) < share * 2**24
    return jnp.where(hit, (others >> 31).astype(jnp.int32).astype(images.dtype), images)


def prepare_shot(photons: float, shape: Shape) -> tuple:
    """Return the number of photons for a value of 1, and ``alias_tables()``."""
    return np.float32(photons), alias_tables()


def shot(keys: Keys, images: Images, arrays: tuple) -> Images:
    """Return Poisson(photons x) / photons; for ``arrays`` see ``prepare_shot``."""
    photons, tables = arrays
    return jax.vmap(poisson, in_axes=(0, 0, None))(keys, photons * images, tables) / photons


def poisson(
    key: Key[Array, ""], rates: Float[Array, "*shape"], tables: UInt32[Array, "rates counts"]
) -> Float[Array, "*shape"]:
    """Draw Poisson numbers, in float32, with the tables of ``alias_tables``.

    Rates are from 0 to 500. Larger rates count as 500, and NaN stays NaN.
    """
    bounded = jnp.where(rates > 0, jnp.minimum(rates, float(LARGEST_RATE)), 0.0)
    whole = jnp.floor(bounded)
    words, others = fast.random_words(key, rates.shape)
    row = whole.astype(jnp.int32)
    place = words >> (32 - _COUNT_BITS)
    index = row * _COUNTS + place.astype(jnp.int32)
    # Flattened to one axis: with channels as the last axis, a TPU moves 35 times as much memory.
    entry = tables.reshape(-1).at[index.reshape(-1)].get(mode="promise_in_bounds")
    entry = entry.reshape(rates.shape)
    stays = (words & (2 ** (32 - _COUNT_BITS) - 1)) < (entry >> _COUNT_BITS)
    count = jnp.where(stays, place, entry & (_COUNTS - 1)).astype(jnp.int32) + _first_count(row)
    count = count.astype(jnp.float32) + _small(others, bounded - whole)
    return jnp.where(jnp.isnan(rates), rates, count)


@functools.lru_cache(maxsize=1)
def alias_tables() -> np.ndarray:
    """Return the tables of the rates 0 to 500, uint32 (501, 512).

    An entry belongs to a place in its row. Its upper 23 bits are the probability, in units of
    2^-23, that the place itself is the count; otherwise the lower 9 bits are the count. Counts are
    relative to ``_first_count``.
    """
    rates = np.arange(LARGEST_RATE + 1)
    counts = _first_count(rates)[:, None] + np.arange(_COUNTS)
    log_factorials = np.array([math.lgamma(n + 1) for n in range(counts.max() + 1)])
    logs = np.log(np.maximum(rates, 1))[:, None]
    shares = np.exp(counts * logs - rates[:, None] - log_factorials[counts])
    shares[0] = np.arange(_COUNTS) == 0
    left = _COUNTS * shares / shares.sum(axis=1, keepdims=True)
    chance, other = np.ones(shares.shape), np.tile(np.arange(_COUNTS), (len(rates), 1))
    done = np.zeros(shares.shape, bool)
    rows = np.arange(len(rates))
    # Each round closes the smallest open place and fills it up from the largest one.
    for _ in range(_COUNTS - 1):
        small = np.argmin(np.where(done, np.inf, left), axis=1)
        large = np.argmax(np.where(done, -np.inf, left), axis=1)
        chance[rows, small], other[rows, small] = left[rows, small], large
        done[rows, small] = True
        left[rows, large] -= 1 - left[rows, small]
    units = np.clip(np.round(chance * 2**23), 0, 2**23 - 1).astype(np.uint32)
    return (units << _COUNT_BITS) | other.astype(np.uint32)


def _small(words: jax.Array, rates: jax.Array) -> jax.Array:
    """Draw Poisson numbers of rates from 0 to 1.

    The count is the number of k > 0 for which P(count >= k) exceeds the uniform number.
    Probabilities are summed from the smallest, and the uniform numbers are finest near 0, so the
    tail is exact.
    """
    uniform = (words >> 1).astype(jnp.int32).astype(jnp.float32) + 0.5
    uniform = uniform * jnp.float32(2.0**-31)
    shares = [jnp.exp(-rates)]
    for k in range(1, _LARGEST_REST + 1):
        shares.append(shares[-1] * rates * (1 / k))
    count, tail = jnp.zeros_like(rates), jnp.zeros_like(rates)
    for share in shares[:0:-1]:
        tail = tail + share
        count = count + (uniform < tail).astype(jnp.float32)
    return count


def _first_count(rate: jax.Array | np.ndarray) -> Any:
    """Return the smallest count in the table of a rate."""
    return (rate - _COUNTS // 2).clip(0)
