"""Poisson numbers for bounded rates, one per value, from two random words each.

A rate is split into its whole part and the rest, and a number is drawn for either: the sum of two
independent Poisson numbers is a Poisson number. For whole rates there are tables (Walker's
alias method, exact up to the 32 bits of a word). A rest is below 1, so that comparing one
uniform number with a few tail probabilities finds its count. There are no loops that wait for the
slowest value, as in ``jax.random.poisson``.

Reference: Walker, An efficient method for generating discrete random variables with general
distributions, ACM Trans. Math. Softw. 1977.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import fast

LARGEST_RATE = 500

# Counts that a table holds. For the largest rate they reach 11 standard deviations to either
# side of it, for others further.
_COUNTS = 512
_COUNT_BITS = 9
# A number of rate 1 exceeds this one with a chance of 7e-11, below the smallest word.
_MOST_OF_REST = 12


@functools.lru_cache(maxsize=1)
def alias_tables() -> np.ndarray:
    """Tables of the rates 0 to 500, uint32 (501, 512).

    The upper 23 bits of an entry are the chance, in units of 2^-23, that its place is the count;
    else the lower 9 bits are. Counts are relative to ``_first_count``.
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


def poisson(key: jax.Array, rates: jax.Array, tables: jax.Array) -> jax.Array:
    """Poisson numbers.

    Args:
      key: scalar typed key.
      rates: float32 of any shape, from 0 to 500; larger ones count as 500 and NaN stays NaN.
      tables: see ``alias_tables``.

    Returns:
      float32 whole numbers, same shape.
    """
    bounded = jnp.where(rates > 0, jnp.minimum(rates, float(LARGEST_RATE)), 0.0)
    whole = jnp.floor(bounded)
    words, others = fast.random_words(key, rates.shape)
    row = whole.astype(jnp.int32)
    place = words >> (32 - _COUNT_BITS)
    index = row * _COUNTS + place.astype(jnp.int32)
    entry = tables.reshape(-1).at[index].get(mode="promise_in_bounds")
    stays = (words & (2 ** (32 - _COUNT_BITS) - 1)) < (entry >> _COUNT_BITS)
    count = jnp.where(stays, place, entry & (_COUNTS - 1)).astype(jnp.int32) + _first_count(row)
    count = count.astype(jnp.float32) + _small(others, bounded - whole)
    return jnp.where(jnp.isnan(rates), rates, count)


def _small(words: jax.Array, rates: jax.Array) -> jax.Array:
    """Numbers of rates from 0 to 1: how many k have a chance of reaching k above the uniform.

    Chances are summed from the smallest, and the uniform is finest near 0, so the tail is exact.
    """
    uniform = (words >> 1).astype(jnp.int32).astype(jnp.float32) + 0.5
    uniform = uniform * jnp.float32(2.0**-31)
    shares = [jnp.exp(-rates)]
    for k in range(1, _MOST_OF_REST + 1):
        shares.append(shares[-1] * rates * (1 / k))
    count, reach = jnp.zeros_like(rates), jnp.zeros_like(rates)
    for share in shares[:0:-1]:
        reach = reach + share
        count = count + (uniform < reach).astype(jnp.float32)
    return count


def _first_count(rate):
    """The smallest count in the table of a rate."""
    return (rate - _COUNTS // 2).clip(0)
