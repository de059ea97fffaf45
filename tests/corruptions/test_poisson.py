"""The Poisson numbers of shot noise against SciPy's distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vone_jax.corruptions import noise

COUNT = 2**19
# Tiny rates, whole ones and their neighbours, and where the tables stop to start at a count of 0.
RATES = (1e-5, 1e-3, 0.1, 0.999, 1.0, 1.5, 3.0, 7.3, 12.0, 59.99, 60.0, 255.5, 257.0, 499.7, 500.0)


@pytest.fixture(scope="module")
def tables():
    return jnp.asarray(noise.alias_tables())


@pytest.fixture(scope="module")
def draw(tables):
    """Draws of one rate, a scalar."""
    return jax.jit(
        lambda key, rate: noise.poisson(key, jnp.broadcast_to(rate[None], (COUNT,)), tables)
    )


@pytest.mark.parametrize("number", range(len(RATES)))
def test_distribution(draw, number):
    """Chi-square over counts that are expected five times or more, the others in one bin; then mean
    and variance, both equal to the rate: their standard errors are those of Poisson numbers."""
    rate = np.float32(RATES[number]).item()
    key = jax.random.fold_in(jax.random.key(0), number)
    counts = np.asarray(draw(key, jnp.float32(rate)), np.float64)
    np.testing.assert_array_equal(counts, np.round(counts))
    assert counts.min() >= 0
    expected = COUNT * stats.poisson.pmf(np.arange(1024), rate)
    found = np.bincount(counts.astype(int), minlength=1024)
    common = expected >= 5
    rare = COUNT - expected[common].sum()
    statistic = np.sum((found - expected)[common] ** 2 / expected[common])
    # A rare bin of very few would not be chi-square.
    bins = common.sum()
    if rare >= 5:
        statistic += (found[~common].sum() - rare) ** 2 / rare
        bins += 1
    else:
        assert found[~common].sum() < 20
    assert bins == 1 or stats.chi2.sf(statistic, bins - 1) > 1e-4
    assert abs(counts.mean() - rate) < 4.5 * np.sqrt(rate / COUNT)
    error = np.sqrt((rate + 2 * rate**2) / COUNT)
    assert abs(np.mean((counts - rate) ** 2) - rate) < 4.5 * error


def test_tables_hold_the_distribution():
    """The shares that an entry gives to its place and to the other count, summed: SciPy's pmf."""
    for rate in (0, 1, 2, 12, 60, 100, 255, 256, 257, 400, 500):
        entries = noise.alias_tables()[rate]
        stays = (entries >> 9) / 2**23
        shares = np.zeros(512)
        np.add.at(shares, np.arange(512), stays / 512)
        np.add.at(shares, entries & 511, (1 - stays) / 512)
        first = max(rate - 256, 0)
        expected = stats.poisson.pmf(first + np.arange(512), rate)
        # Half a unit of the chance, 2^-24 / 512, from each of the few that share a count.
        np.testing.assert_allclose(shares, expected, atol=1e-9)


@pytest.mark.parametrize("rate", [1e-6, 0.02, 0.5, 0.97])
def test_tails_of_small_rates(rate):
    """The uniform numbers at which the count steps up are the tail probabilities, relatively."""
    steps = stats.poisson.sf(np.arange(6), rate)
    steps = steps[steps > 2.0**-30]
    for number, share in enumerate(steps, 1):
        words = np.asarray([share * (1 - 1e-5), share * (1 + 1e-5)]) * 2**32
        # Between words only whole numbers of 2^-31 can be told apart.
        words = jnp.asarray([words[0] - 4, words[1] + 4], jnp.uint32)
        counts = noise._small(words, jnp.full(2, rate, jnp.float32))
        np.testing.assert_array_equal(counts, [number, number - 1])


@pytest.mark.slow
def test_no_rate_no_photons_and_nothing_hides(tables):
    rates = jnp.array([0.0, -1e-7, jnp.nan, 500.0001])
    counts = np.asarray(noise.poisson(jax.random.key(0), rates, tables))
    np.testing.assert_array_equal(counts[:3], [0, 0, np.nan])
    assert 300 < counts[3] < 700


@pytest.mark.parametrize("rate", [0.0, -1e-7, -0.5, -3.0])
def test_a_rate_that_is_not_above_zero_has_no_photons(draw, rate):
    np.testing.assert_array_equal(draw(jax.random.key(0), jnp.float32(rate)), 0)


@pytest.mark.parametrize("rate", [500.5, 501.0, 1300.0, np.inf])
def test_larger_rates_count_as_500(draw, rate):
    """As those of the rate 500, whose mean they have within 4.5 of its standard errors."""
    counts = np.asarray(draw(jax.random.key(0), jnp.float32(rate)))
    np.testing.assert_array_equal(counts, draw(jax.random.key(0), jnp.float32(500.0)))
    assert abs(counts.mean() - 500) < 4.5 * np.sqrt(500 / COUNT)


@pytest.mark.slow
def test_values_are_drawn_independently(tables):
    """Neighbours in both axes and two examples; 4.5 standard errors of a correlation."""
    rates = jnp.full((2, 128, 128), 7.5)
    keys = jax.random.split(jax.random.key(1), 2)
    counts = np.asarray(jax.vmap(noise.poisson, (0, 0, None))(keys, rates, tables), np.float64)
    pairs = (counts[:, 1:], counts[:, :-1]), (counts[..., 1:], counts[..., :-1]), tuple(counts)
    for one, other in pairs:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4.5 * one.size**-0.5
