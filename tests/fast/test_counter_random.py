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


@pytest.fixture(scope="module", params=SEEDS)
def bits(request):
    """Bits of 2^15 successive elements, (elements, 64), lowest bit of the first word first."""
    words = jax.jit(counter_random.random_words, static_argnums=1)(
        jax.random.key(request.param), (2**15,)
    )
    return unpack(np.stack(words, axis=-1))


def unpack(words):
    return ((words[..., None] >> np.arange(32, dtype=np.uint32)) & 1).reshape(len(words), -1)


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


def test_extreme_words_give_the_ends_of_the_range():
    smallest, largest = np.uint32(0), np.uint32(2**32 - 1)
    radius = jnp.array([smallest, smallest, largest, largest])
    angle = jnp.array([2**31, 2**31 - 1, 2**31, 2**31 - 1], jnp.uint32)
    z = counter_random._box_muller(radius, angle)
    farthest = np.sqrt(64 * np.log(2))
    np.testing.assert_allclose(z, [-farthest, farthest, 0, 0], rtol=1e-6, atol=1e-6)


def test_moments(batch):
    """Mean, variance, skewness and excess kurtosis of a normal, and their standard errors."""
    z, n = batch.ravel(), batch.size
    assert abs(z.mean()) < BOUND * n**-0.5
    assert abs(z.var() - 1) < BOUND * (2 / n) ** 0.5
    assert abs(stats.skew(z)) < BOUND * (6 / n) ** 0.5
    assert abs(stats.kurtosis(z)) < BOUND * (24 / n) ** 0.5


def test_distribution(batch):
    """Kolmogorov and Smirnov's distance from the normal distribution."""
    assert stats.kstest(batch.ravel(), "norm").pvalue > 1e-3


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


@pytest.mark.parametrize("sign", [-1, 1])
def test_tails(batch, sign):
    for distance in (1, 2, 3, 4, 5):
        share = stats.norm.sf(distance)
        count = np.sum(sign * batch > distance)
        assert stats.binomtest(int(count), batch.size, share).pvalue > 1e-4, (distance, count)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("power", [1, 2])
def test_neighbours_are_uncorrelated(batch, axis, power):
    """Draws and their squares, along examples, rows, columns and channels."""
    moved = np.moveaxis(batch**power, axis, 0)
    for lag in (1, 2, 3, 4, 8):
        one, other = moved[:-lag].ravel(), moved[lag:].ravel()
        assert abs(np.corrcoef(one, other)[0, 1]) < BOUND * one.size**-0.5, lag


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "family", ["low word", "high word", "single bits", "fold_in", "stream of fold_in"]
)
def test_related_keys_give_unrelated_draws(draw, family, seed):
    """Every pair of 64 keys that differ as little as keys can: raw neighbours, or folded."""
    number = np.arange(EXAMPLES, dtype=np.uint32)
    start = np.full(EXAMPLES, seed, np.uint32)
    if family == "low word":
        keys = jax.random.wrap_key_data(jnp.stack([start, number], axis=-1))
    elif family == "high word":
        keys = jax.random.wrap_key_data(jnp.stack([number, start], axis=-1))
    elif family == "single bits":
        bit = np.left_shift(np.uint64(1), number.astype(np.uint64))
        words = np.stack([bit >> np.uint64(32), bit & np.uint64(0xFFFFFFFF)], axis=-1)
        keys = jax.random.wrap_key_data(jnp.asarray(words.astype(np.uint32) ^ np.uint32(seed)))
    else:
        keys = prng.index_keys(jax.random.key(seed), number)
        keys = prng.stream(keys, "v1 noise") if family.startswith("stream") else keys
    z = np.asarray(draw(keys), np.float64).reshape(EXAMPLES, -1)
    pairs = np.corrcoef(z)[np.triu_indices(EXAMPLES, 1)] * z.shape[1] ** 0.5
    assert np.abs(pairs).max() < 5.5
    assert np.std(pairs) == pytest.approx(1, abs=BOUND / (2 * len(pairs)) ** 0.5)


def test_bits_are_balanced(bits):
    n = len(bits)
    assert abs(bits.mean() - 0.5) < BOUND * 0.5 / bits.size**0.5
    assert np.abs(bits.mean(0) - 0.5).max() < BOUND * 0.5 / n**0.5


@pytest.mark.slow
def test_bits_are_independent_of_each_other_and_of_those_before(bits):
    n = len(bits)
    signs = bits * 2.0 - 1
    within = signs.T @ signs / n
    np.fill_diagonal(within, 0)
    # 2016 pairs, and 4096 below: 5.5 standard errors leave 1 chance in 6000.
    assert np.abs(within).max() < 5.5 / n**0.5
    for lag in (1, 2, 64):
        before = signs[:-lag].T @ signs[lag:] / (n - lag)
        assert np.abs(before).max() < 5.5 / (n - lag) ** 0.5


def test_runs_of_bits_have_the_lengths_of_fair_coins(bits):
    """Number of runs in each bit's series: mean (n + 1) / 2, variance (n - 1) / 4."""
    n = len(bits)
    runs = 1 + np.sum(bits[1:] != bits[:-1], axis=0)
    assert np.abs(runs - (n + 1) / 2).max() < BOUND * (n - 1) ** 0.5 / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_flipping_any_input_bit_flips_half_of_the_output_bits(cipher, seed):
    """Avalanche over the 64 key bits and the 64 counter bits, each output bit by itself."""
    n = 2**11
    rng = np.random.default_rng(seed)
    given = rng.integers(0, 2**32, (4, n), dtype=np.uint32)
    # Counters as they occur: successive, below 2^32.
    given[2], given[3] = 0, np.arange(n)
    before = np.stack(cipher((given[0], given[1]), (given[2], given[3])), axis=-1)
    for place in range(4):
        for bit in range(32):
            flipped = given.copy()
            flipped[place] ^= np.uint32(1 << bit)
            after = np.stack(cipher((flipped[0], flipped[1]), (flipped[2], flipped[3])), axis=-1)
            changed = unpack(before ^ after)
            assert abs(changed.mean() - 0.5) < BOUND * 0.5 / changed.size**0.5
            # 8192 output bits in all.
            assert np.abs(changed.mean(0) - 0.5).max() < 5.5 * 0.5 / n**0.5


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


def test_the_same_key_draws_the_same_again():
    """Frozen noise; the checker of key reuse is on and must not object."""
    key = jax.random.key(8)
    first, again = (counter_random.standard_normal(key, (9,)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_draws_are_constants_to_a_gradient():
    slope = jax.grad(lambda x: jnp.sum(x * counter_random.standard_normal(jax.random.key(9), (5,))))
    draws = counter_random.standard_normal(jax.random.key(9), (5,))
    assert float(slope(2.0)) == pytest.approx(float(draws.sum()), rel=1e-5)


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_keys_of_other_generators_draw_as_the_threefry_key_of_their_seed(implementation):
    def drawn(**kind):
        keys = [jax.random.key(seed, **kind) for seed in range(4)]
        return np.stack([counter_random.standard_normal(key, (5,)) for key in keys])

    np.testing.assert_array_equal(drawn(impl=implementation), drawn())
    assert len(np.unique(drawn())) == 20


def test_shapes_beyond_the_counter_are_refused():
    with pytest.raises(ValueError, match=r"at most 2\*\*32 elements, got \(65536, 65537\)"):
        counter_random.standard_normal(jax.random.key(0), (65536, 65537))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_hundred_million_draws(seed):
    """Moments up to the sixth, a thousand bins, tails to 5 on each side, and lags."""
    draw = jax.jit(lambda key: counter_random.standard_normal(key, (2**22,)))
    edges = stats.norm.ppf(np.linspace(0, 1, 1001)[1:-1])
    powers, bins, products = np.zeros(6), np.zeros(1000), np.zeros(3)
    tails, chunks = np.zeros((2, 5)), 24
    for chunk in range(chunks):
        z = np.asarray(draw(jax.random.fold_in(jax.random.key(seed), chunk)), np.float64)
        powers += [np.sum(z**p) for p in range(1, 7)]
        bins += np.bincount(np.searchsorted(edges, z), minlength=1000)
        products += [z[:-lag] @ z[lag:] for lag in (1, 2, 512)]
        for side, sign in enumerate((-1, 1)):
            tails[side] += [np.sum(sign * z > distance) for distance in range(1, 6)]
    n = chunks * 2**22
    # Moments 1 to 6 of a standard normal, and E[z^2p] - E[z^p]^2, the variance of z^p.
    expected = np.array([0, 1, 0, 3, 0, 15])
    variance = np.array([1, 2, 15, 96, 945, 10170])
    assert np.all(np.abs(powers / n - expected) < 4 * np.sqrt(variance / n))
    assert stats.chisquare(bins).pvalue > 1e-3
    assert np.all(np.abs(products) < 4 * np.sqrt(n))
    for distance in range(1, 6):
        for side in range(2):
            share = stats.norm.sf(distance)
            assert stats.binomtest(int(tails[side, distance - 1]), n, share).pvalue > 1e-3
