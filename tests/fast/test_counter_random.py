"""The counter-based random numbers: the cipher against its published answers, then the statistics.

Every statistic has a known distribution for independent normals, uniforms or bits, so
each bound is a number of standard errors. The seeds are fixed: a test that passes always passes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import stats

from vone_jax import prng, v1
from vone_jax.fast import counter_random

# Tested in what XLA makes of them, with its optimisations.
pytestmark = pytest.mark.usefixtures("optimised")

SEEDS = (0, 1)
SHAPE = (16, 16, 64)
EXAMPLES = 64

# About 1 chance in 150 000, on either side, for each comparison.
BOUND = 4.5


@pytest.fixture(scope="module")
def draw():
    return jax.jit(lambda keys: v1.standard_normal(keys, SHAPE))


@pytest.fixture(scope="module", params=SEEDS)
def batch(request, draw):
    """A million draws, (examples, rows, columns, channels)."""
    return np.asarray(draw(prng.example_keys(jax.random.key(request.param), EXAMPLES)), np.float64)


@pytest.fixture(scope="module")
def cipher():
    return jax.jit(counter_random.threefry_2x32)


@pytest.mark.parametrize(
    ("key", "counter", "answer"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_cipher_gives_the_known_answers(cipher, key, counter, answer):
    """Known answers of Threefry-2x32-20, published with its reference implementation."""
    words = cipher(*(tuple(jnp.uint32(word) for word in pair) for pair in (key, counter)))
    assert tuple(int(word) for word in words) == answer


def test_words_are_those_of_jax_random_bits():
    words = counter_random.random_words(jax.random.key(7), (5, 3, 11))
    reference = jax.random.bits(jax.random.key(7), (5, 3, 11), "uint32")
    np.testing.assert_array_equal(words[0] ^ words[1], reference)


def test_normals_are_the_box_muller_transform_of_the_words():
    """Against the formula in float64, from the uniform that float32 can hold."""
    radius_word, angle_word = (
        np.asarray(word) for word in counter_random.random_words(jax.random.key(3), (2**16,))
    )
    uniform = np.float64((radius_word >> 1).astype(np.float32) + np.float32(0.5)) * 2.0**-31
    expected = np.sqrt(-2 * np.log(uniform)) * np.sin(np.pi * angle_word.view(np.int32) * 2.0**-32)
    draws = counter_random.standard_normal(jax.random.key(3), (2**16,))
    np.testing.assert_allclose(draws, expected, rtol=1e-6, atol=1e-6)


def test_moments(batch):
    """Mean, variance, skewness and excess kurtosis of a normal, and their standard errors."""
    z, n = batch.ravel(), batch.size
    assert abs(z.mean()) < BOUND * n**-0.5
    assert abs(z.var() - 1) < BOUND * (2 / n) ** 0.5
    assert abs(stats.skew(z)) < BOUND * (6 / n) ** 0.5
    assert abs(stats.kurtosis(z)) < BOUND * (24 / n) ** 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_symmetric_uniform(seed):
    """Kolmogorov and Smirnov's distance; the numbers are odd multiples of 2^-24, never 1 or -1."""
    draws = counter_random.symmetric_uniform(jax.random.key(seed), (64, 64, 64))
    assert draws.dtype == jnp.float32 and draws.shape == (64, 64, 64)
    draws = np.asarray(draws, np.float64).ravel()
    assert stats.kstest(draws, "uniform", (-1, 2)).pvalue > 1e-3
    assert np.all((draws * 2**24) % 2 == 1) and np.abs(draws).max() < 1
    alone = counter_random.symmetric_uniform(jax.random.key(seed), (7,))
    np.testing.assert_array_equal(alone, draws[:7])


def test_an_element_does_not_depend_on_the_batch_or_the_compilation(draw):
    key = jax.random.key(4)
    whole = np.asarray(draw(prng.example_keys(key, EXAMPLES)))
    for members in ([0], [63], [5, 6, 7], list(range(1, 32))):
        part = draw(prng.index_keys(key, jnp.array(members)))
        np.testing.assert_array_equal(part, whole[members])
    alone = counter_random.standard_normal(jax.random.fold_in(key, 9), SHAPE)
    np.testing.assert_array_equal(alone, whole[9])


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5, 13), (2, 0)])
def test_ragged_shapes_are_the_beginning_of_longer_ones(shape):
    """The end of an array is computed by other instructions than its middle."""
    key, size = jax.random.key(5), int(np.prod(shape))
    longer = counter_random.standard_normal(key, (1024,))
    draws = counter_random.standard_normal(key, shape)
    assert draws.shape == shape
    np.testing.assert_array_equal(draws.ravel(), longer[:size])


def test_four_devices_draw_what_one_draws(draw):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    index = jax.device_put(jnp.arange(8), NamedSharding(mesh, PartitionSpec("data")))
    key = jax.random.key(6)
    sharded = jax.jit(lambda i: v1.standard_normal(prng.index_keys(key, i), SHAPE))(index)
    assert len(sharded.sharding.device_set) == 4
    np.testing.assert_array_equal(sharded, draw(prng.example_keys(key, 8)))


def test_draws_under_vmap_are_those_of_their_keys(draw):
    keys = jax.vmap(lambda n: prng.fold(prng.example_keys(jax.random.key(7), 3), n))(jnp.arange(2))
    both = jax.jit(jax.vmap(lambda keys: v1.standard_normal(keys, SHAPE)))(keys)
    for number in range(2):
        one = draw(prng.fold(prng.example_keys(jax.random.key(7), 3), number))
        np.testing.assert_array_equal(both[number], one)
