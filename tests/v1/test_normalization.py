"""The normalising surround: closed forms, weights, gradients, refused settings."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage

from vone_jax import fast, prng, v1
from vone_jax.filters import gaussian_taps
from vone_jax.v1 import block, normalization
from vone_jax.v1.images import normalise

SETTINGS = v1.SurroundNormalization(largest_extent=0.5, position_pooling=0.1)
SMALL = v1.VOneBlockConfig(
    simple_channels=12,
    complex_channels=12,
    image_size=56,
    visual_degrees=2.0,
    kernel_size=13,
    stride=2,
    noise=None,
    normalization=SETTINGS,
)
PLAIN = dataclasses.replace(SMALL, normalization=None)
PUBLISHED = v1.VOneBlockConfig(noise=None, normalization=v1.SurroundNormalization())
IS_COMPLEX = np.arange(24) >= 12


def with_settings(**fields):
    return dataclasses.replace(SMALL, normalization=dataclasses.replace(SETTINGS, **fields))


def blurred(maps, deviation):
    """Blur maps (N, H, W, C) by another library."""
    taps = gaussian_taps(deviation, int(np.ceil(3.0 * deviation)))
    along_rows = ndimage.correlate1d(maps, taps, axis=1, mode="mirror")
    return ndimage.correlate1d(along_rows, taps, axis=2, mode="mirror")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, 56, 56, 3)).astype(np.float32)


def test_without_normalisation_the_block_is_the_published_one(images):
    bank = block.filter_bank(PLAIN)
    expected = 25.0 * bank(normalise(images, 0.5, 0.5), 2)
    np.testing.assert_array_equal(v1.noise_free_responses(PLAIN, images), expected)
    assert v1.VOneBlockConfig().normalization is None


@pytest.mark.parametrize("kind", ["simple_channels", "complex_channels"])
def test_cells_of_one_kind_have_a_surround(images, kind):
    config = dataclasses.replace(SMALL, **{kind: 0})
    responses = jax.eval_shape(partial(v1.noise_free_responses, config), images)
    assert responses.shape == (2, 28, 28, 12)


@pytest.mark.parametrize("platform", [pytest.param("cpu", marks=pytest.mark.slow), "tpu"])
def test_responses_equal_a_direct_computation(images, platform):
    """Pools by another library, cell by cell, in the order of the bank."""
    pools = block.surround_pools(SMALL)
    squares = np.square(np.asarray(v1.noise_free_responses(PLAIN, images), np.float64))
    with fast.forms_of(platform):
        after = v1.noise_free_responses(SMALL, images)

    maps = squares @ pools.to_maps
    layers = np.stack([blurred(maps, deviation) for deviation in pools.deviations])
    around = np.einsum("dnhwm,dmc->nhwc", layers, pools.weights)
    assert around.min() >= 0.0
    own = squares.copy()
    own[..., 12:] = blurred(squares[..., 12:], 0.1 * 14.0)
    own /= np.square(pools.amplitude)
    divisor = SETTINGS.c50**2 + pools.own * own + around
    expected = SETTINGS.gain * pools.amplitude * own / divisor
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5 * expected.max())


@pytest.mark.parametrize("orientation_tuning", [0.0, 0.5, 1.0])
def test_weights_are_those_of_the_formula_and_never_negative(orientation_tuning):
    config = with_settings(orientation_tuning=orientation_tuning, frequency_tuning=0.7)
    bank = config.gabor_parameters()
    to_maps, weights, untuned = normalization._tuning(config.normalization, bank)
    np.testing.assert_allclose(untuned @ to_maps.T, 1.0)
    between = weights @ to_maps.T
    angle = np.deg2rad(bank.theta[:, None] - bank.theta)
    expected = 1.0 + orientation_tuning * np.cos(2.0 * angle)
    # A Gaussian between nodes an octave apart: smaller for frequencies that are farther apart.
    octaves = np.abs(np.log2(bank.sf[:, None] / bank.sf))
    share = between / np.maximum(expected, 1e-9)
    clear = expected > 0.1
    assert share[clear & (octaves > 2.5)].max() < 0.1 < 0.6 < share[clear & (octaves < 0.2)].min()
    assert between.min() >= -1e-12


def test_the_shares_of_pools_sum_to_1_and_keep_the_width():
    octaves = np.random.default_rng(0).uniform(-1.0, 3.0, 100)
    nodes, shares = normalization._between(octaves)
    assert np.diff(nodes).max() <= 0.8 and shares.min() >= 0.0
    np.testing.assert_allclose(shares.sum(axis=0), 1.0)
    np.testing.assert_allclose(nodes @ shares, octaves)
    assert normalization._between(np.array([2.0, 2.0]))[1].tolist() == [[1.0, 1.0]]


def test_no_image_makes_the_surround_negative():
    pools = block.surround_pools(PUBLISHED)
    assert (pools.to_maps @ pools.weights.reshape(len(pools.deviations), -1, 512)).min() >= -1e-6


def test_what_scatters_is_evenly_spread_and_depends_on_the_seed_of_the_bank():
    bank = SMALL.gabor_parameters()
    one, other = (
        block.surround_pools(dataclasses.replace(SMALL, bank=bank, gabor_seed=seed))
        for seed in (0, 1)
    )
    np.testing.assert_allclose(np.sort(one.own), (np.arange(24) + 0.5) / 24 * 2 * SETTINGS.own)
    np.testing.assert_array_equal(np.sort(one.own), np.sort(other.own))
    assert not np.array_equal(one.own, other.own)
    for setting in (jax.default_prng_impl("rbg"), jax.threefry_partitionable(False)):
        with setting:
            again = block.surround_pools.__wrapped__(SMALL)
        np.testing.assert_array_equal(again.own, block.surround_pools(SMALL).own)


def gratings(config):
    """The published pools, and the squared response of each cell to each cell's own grating."""
    pools = block.surround_pools(config)
    bank, kernels = config.gabor_parameters(), config.gabor_kernels()
    is_complex = np.arange(len(bank)) >= config.simple_channels
    contrast = np.ones((len(bank), 3))
    _, squares = normalization._drive(bank, kernels, is_complex, config.pixels_per_degree, contrast)
    return pools, 25.0**2 * squares


def responses_to(pools, squares):
    """Normalised responses in the middle of large maps with these squared responses."""
    images, cells = squares.shape
    maps = np.sqrt(np.broadcast_to(squares[:, None, None], (images, 28, 28, cells)))
    return np.asarray(pools(jnp.asarray(maps, jnp.float32)))[:, 14, 14]


def test_the_exponent_is_2_and_half_saturation_that_of_the_formula():
    """A large optimal grating has L = S = 1 and e = 1/2, or 1/4 on average in simple cells."""
    pools, squares = gratings(SMALL)
    drive = pools.own * np.where(IS_COMPLEX, 0.5, 0.25) + 1.0 - pools.own
    half = SETTINGS.c50 / np.sqrt(drive)
    cells = np.arange(24)
    largest = SETTINGS.gain * pools.amplitude * np.where(IS_COMPLEX, 0.5, 0.25) / drive
    for contrast in (1e-3, 0.03, 0.1, 0.3, 1.0):
        expected = largest * contrast**2 / (contrast**2 + half**2)
        found = responses_to(pools, contrast**2 * squares)[cells, cells]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_contrast_is_relative_to_the_standard_deviation_of_each_channel():
    """A grating of full contrast is twice as large in a channel of half the deviation."""
    simple = dataclasses.replace(SMALL, simple_channels=24, complex_channels=0)
    std = np.array([0.2, 0.5, 0.8])
    config = dataclasses.replace(simple, image_std=tuple(std.tolist()))
    usual, squares = gratings(simple)
    pools = block.surround_pools(config)
    larger = (0.5 / std)[config.gabor_parameters().channel]
    np.testing.assert_allclose(pools.amplitude, larger * usual.amplitude, rtol=1e-6)
    # So each cell responds to its own grating as before, relative to its amplitude.
    expected, found = (
        np.diag(responses_to(each, squares * scale**2)) / each.amplitude
        for each, scale in ((usual, 1.0), (pools, larger))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("tuning", [0.0, 0.5])
def test_a_mask_of_the_orthogonal_orientation_suppresses_as_the_formula_says(tuning):
    """Two cells that do not see each other's grating; the squares of gratings add in S."""
    bank = v1.GaborParameters(
        **{name: np.full(2, value) for name, value in (("sf", 4.0), ("phase", 0.0))},
        **{name: np.full(2, 0.6) for name in ("nx", "ny")},
        theta=np.array([0.0, 90.0]),
        channel=np.zeros(2, np.int64),
    )
    config = dataclasses.replace(
        with_settings(orientation_tuning=tuning),
        simple_channels=0,
        complex_channels=2,
        bank=bank,
    )
    pools, squares = gratings(config)
    assert squares[0, 1] < 1e-3 * squares[0, 0]
    orthogonal = (1.0 - tuning) / (1.0 + tuning)
    for test, mask in ((0.25, 0.25), (0.25, 0.5), (0.06, 0.5)):
        alone = responses_to(pools, test**2 * squares[:1])[0, 0]
        both = responses_to(pools, test**2 * squares[:1] + mask**2 * squares[1:])[0, 0]
        divisor = SETTINGS.c50**2 + (1.0 - 0.5 * pools.own[0]) * test**2
        tuned = 1.0 - pools.own[0] - SETTINGS.local
        expected = divisor / (divisor + (SETTINGS.local + tuned * orthogonal) * mask**2)
        assert both / alone == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_gradients_are_finite_on_uniform_images():
    """All three in one program, which is compiled once."""
    energy = lambda image: jnp.sum(jnp.square(v1.noise_free_responses(SMALL, image[None])))  # noqa: E731
    images = jnp.stack([jnp.full((56, 56, 3), value) for value in (0.0, 0.5, 1.0)])
    gradients = jax.jit(lambda images: jax.lax.map(jax.grad(energy), images))(images)
    assert np.all(np.isfinite(gradients))


def test_gradients_are_finite_and_0_without_a_response():
    pools = block.surround_pools(SMALL)
    gradient = jax.grad(lambda responses: jnp.sum(pools(responses)))(jnp.zeros((1, 28, 28, 24)))
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.slow
def test_gradients_equal_finite_differences(images):
    pools = block.surround_pools(SMALL)
    responses = v1.noise_free_responses(PLAIN, images[:1]) + 0.1
    check_grads(
        lambda responses: pools(jnp.asarray(responses)),
        (responses,),
        order=1,
        modes=["fwd", "rev"],
        rtol=2e-2,
        atol=2e-2,
    )


@pytest.mark.slow
def test_normalisation_comes_before_noise(images):
    noisy = dataclasses.replace(SMALL, noise=v1.NeuronalNoise())
    key = jax.random.key(0)
    found = v1.VOneBlock(noisy).apply({}, images, noise_key=key)
    z = v1.standard_normal(prng.stream(prng.example_keys(key, 2), "v1 noise"), (28, 28, 24))
    expected = noisy.noise(v1.noise_free_responses(SMALL, images), z)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_an_example_does_not_depend_on_its_batch(images):
    together = v1.noise_free_responses(SMALL, images)
    alone = v1.noise_free_responses(SMALL, images[1:])
    # Up to rounding in the bank, whose order of sums depends on the batch.
    np.testing.assert_allclose(alone[0], together[1], rtol=1e-4, atol=1e-5)


def test_a_surround_larger_than_the_image_is_refused_with_the_cure():
    small = {"image_size": 32, "visual_degrees": 1.0, "kernel_size": 9, "stride": 1}
    with pytest.raises(ValueError, match=r"normalization.largest_extent of 1 degrees.*1 degrees"):
        v1.VOneBlockConfig(**small, normalization=v1.SurroundNormalization())
    with pytest.raises(ValueError, match=r"set normalization.largest_extent to 0.32 or less"):
        v1.VOneBlockConfig(**small, normalization=v1.SurroundNormalization(largest_extent=0.4))
    v1.VOneBlockConfig(**small, normalization=v1.SurroundNormalization(largest_extent=0.32))


def test_an_image_smaller_than_the_pools_is_refused():
    with pytest.raises(ValueError, match=r"largest_extent.*the image has 1 degrees"):
        jax.eval_shape(partial(v1.noise_free_responses, SMALL), jnp.zeros((1, 28, 56, 3)))


def test_parts_of_more_than_the_whole_are_refused():
    with pytest.raises(ValueError, match="normalization.local must be at most"):
        v1.SurroundNormalization(local=0.5)
