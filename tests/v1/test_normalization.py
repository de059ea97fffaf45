"""The normalising surround: closed forms, draws from physiology, gradients, refused settings."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage, stats

from vone_jax import fast, v1
from vone_jax.filters import gaussian_taps
from vone_jax.v1 import block, surround
from vone_jax.v1.distributions import SUPPRESSION_INDEX, SURROUND_DIAMETER
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


@pytest.fixture(scope="module")
def published():
    return block.surround_pools(PUBLISHED)


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
    before = np.asarray(v1.noise_free_responses(PLAIN, images), np.float64)
    with fast.forms_of(platform):
        after = v1.noise_free_responses(SMALL, images)

    maps = before @ pools.to_maps
    layers = np.stack([blurred(maps, deviation) for deviation in pools.deviations])
    ring = np.einsum("dnhwm,dmc->nhwc", layers, pools.ring)
    centre = np.einsum("dnhw,dc->nhwc", layers @ pools.total, pools.centre)
    assert min(centre.min(), ring.min()) >= 0.0
    expected = before.copy()
    expected[..., 12:] = blurred(before[..., 12:], 0.1 * 14.0)
    expected *= SETTINGS.gain * pools.factors * centre / (1.0 + centre**2 + ring**2)
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6 * expected.max())


@pytest.mark.parametrize("depth", [0.5, 1.0])
def test_weights_are_those_of_the_formula_and_never_negative(depth):
    angles = 2.0 * np.deg2rad(SMALL.gabor_parameters().theta)
    weights = surround._circular(angles, depth)
    ring = weights.ring @ weights.to_maps.T
    expected = 1.0 + depth * np.cos(angles[:, None] - angles)
    np.testing.assert_allclose(ring, expected, atol=1e-12)
    assert ring.min() >= -1e-12
    np.testing.assert_allclose(weights.centre @ weights.to_maps.T, 1.0, atol=1e-12)


def test_no_stimulus_makes_the_ring_negative(published):
    """The hole of a ring takes no more away than the ring has there."""
    impulse = np.zeros((1, 56, 56, 512))
    impulse[0, 20, 30] = np.random.default_rng(0).random(512)
    maps = impulse @ published.to_maps
    layers = np.stack([blurred(maps, deviation) for deviation in published.deviations])
    ring = np.einsum("dnhwm,dmc->nhwc", layers, published.ring)
    # Gaussians are cut off, so they do not cancel exactly; the ring is squared.
    assert ring.min() >= -1e-4 * ring.max()


def test_contrast_responses_are_those_of_albrecht_and_hamilton():
    """Large optimal gratings drive both pools fully, in proportion to their contrast."""
    config = with_settings(position_pooling=0.0)
    pools = block.surround_pools(config)
    bank, kernels = config.gabor_parameters(), config.gabor_kernels()
    cells = np.arange(24)
    amplitude = 25.0 * surround._drive(bank, kernels, cells >= 12, 28.0)
    # No grating of another cell drives a cell more than its own.
    np.testing.assert_allclose(np.diag(amplitude), amplitude.max(axis=0), rtol=0.01)
    maps = np.broadcast_to(amplitude[:, None, None], (24, 28, 28, 24)).astype(np.float32)

    def response(contrast):
        return np.asarray(pools(jnp.asarray(contrast * maps)))[cells, 14, 14, cells]

    # What is linear in contrast before the normalisation grows with its square at little contrast.
    growth = pools.factors * maps[cells, 14, 14, cells] / SETTINGS.c50
    np.testing.assert_allclose(response(1e-4), 1e-8 * growth, rtol=1e-3)
    # r_max c^2 / (c^2 + s^2), at full contrast growth / (1 + 1 / s^2), and s <= c50.
    inverse = growth / response(1.0) - 1.0
    for contrast in (0.03, 0.1, 0.3):
        expected = growth * contrast**2 / (1.0 + inverse * contrast**2)
        np.testing.assert_allclose(response(contrast), expected, rtol=1e-4)
    strength = np.sqrt(inverse - 1.0 / SETTINGS.c50**2)
    order = np.argsort(pools.suppression_index)
    assert strength[order][-6:].min() > strength[order][:6].max() > 0.0


@pytest.mark.slow
def test_the_largest_response_to_a_best_grating_is_about_that_without_a_surround():
    """The model of size tuning is one of Gaussians, so complex cells are right on average."""
    bank, cells = SMALL.gabor_parameters(), np.arange(12, 24)
    down, across = (np.mgrid[:56, :56] - 28) / 28.0
    angle, sf = (values[cells, None, None] for values in (np.deg2rad(bank.theta), bank.sf))
    gratings = np.cos(2.0 * np.pi * sf * (across * np.cos(angle) + down * np.sin(angle)))
    within = np.hypot(down, across) <= np.geomspace(0.1, 1.4, 9)[:, None, None]
    images = 0.5 + 0.5 * np.where(within, gratings[:, None], 0.0)
    images = images.reshape(-1, 56, 56, 1).repeat(3, axis=-1).astype(np.float32)

    def largest(config):
        respond = jax.jit(lambda images: v1.noise_free_responses(config, images)[:, 14, 14])
        responses = np.asarray(respond(images)).reshape(12, 9, -1)
        return np.max(responses[np.arange(12), :, cells], axis=1)

    ratio = largest(SMALL) / largest(PLAIN)
    assert SETTINGS.gain == 1.0
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
    assert 0.5 < ratio.min() and ratio.max() < 3.0


def test_draws_have_the_published_distributions(published):
    index = published.suppression_index
    counts = np.histogram(index, SUPPRESSION_INDEX.edges)[0] / len(index)
    weights = np.array(SUPPRESSION_INDEX.weights) / sum(SUPPRESSION_INDEX.weights)
    # The last bin, beyond 1, counts in the bin before.
    weights = np.array([*weights[:4], weights[4:].sum()])
    np.testing.assert_allclose(counts[:5], weights, atol=2 / 512)
    suppressed = published.surround_diameter[index > 0.1]
    counts = np.histogram(suppressed, SURROUND_DIAMETER.edges)[0] / len(suppressed)
    weights = np.array(SURROUND_DIAMETER.weights) / sum(SURROUND_DIAMETER.weights)
    np.testing.assert_allclose(counts, weights, atol=2 / len(suppressed))


@pytest.mark.parametrize("correlation", [-0.8, 0.0, 0.8])
def test_draws_are_correlated_with_receptive_fields(correlation):
    field = np.random.default_rng(0).gamma(2.0, size=512)
    strengths = v1.SurroundNormalization(strength_correlation=correlation)
    extents = v1.SurroundNormalization(strength_correlation=0.0, extent_correlation=correlation)
    index, _ = surround._draws(strengths, field, seed=0)
    _, diameter = surround._draws(extents, field, seed=0)
    # Spearman's rank correlation of a Gaussian copula.
    expected = 6 / math.pi * math.asin(correlation / 2)
    for drawn in (index, diameter):
        assert stats.spearmanr(field, drawn).statistic == pytest.approx(expected, abs=0.1)


def test_draws_depend_on_the_seed_of_the_bank_or_their_own():
    def index(**fields):
        settings = dataclasses.replace(SETTINGS, seed=fields.pop("seed", None))
        config = dataclasses.replace(SMALL, normalization=settings, **fields)
        return block.surround_pools(config).suppression_index

    bank = SMALL.gabor_parameters()
    np.testing.assert_array_equal(index(), index(seed=0))
    np.testing.assert_array_equal(index(bank=bank), index(bank=bank, seed=0))
    assert not np.array_equal(index(), index(seed=1))
    assert not np.array_equal(index(bank=bank), index(bank=bank, gabor_seed=1))
    np.testing.assert_array_equal(index(bank=bank, gabor_seed=1), index(bank=bank, seed=1))


@pytest.mark.parametrize(
    "setting", [jax.default_prng_impl("rbg"), jax.threefry_partitionable(False)], ids=["rbg", "old"]
)
def test_draws_do_not_depend_on_how_random_numbers_of_jax_are_set_up(published, setting):
    with setting:
        again = block.surround_pools.__wrapped__(PUBLISHED)
    np.testing.assert_array_equal(again.suppression_index, published.suppression_index)


@pytest.mark.slow
def test_gradients_are_finite_on_uniform_images():
    """All three in one program, which is compiled once."""
    energy = lambda image: jnp.sum(jnp.square(v1.noise_free_responses(SMALL, image[None])))  # noqa: E731
    images = jnp.stack([jnp.full((56, 56, 3), value) for value in (0.0, 0.5, 1.0)])
    gradients = jax.jit(lambda images: jax.lax.map(jax.grad(energy), images))(images)
    assert np.all(np.isfinite(gradients))


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
    z = jnp.zeros((2, 28, 28, 24))
    without = v1.VOneBlock(noisy).apply({}, images, standard_normal=z)
    np.testing.assert_allclose(
        without, v1.noise_free_responses(SMALL, images), rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_an_example_does_not_depend_on_its_batch(images):
    together = v1.noise_free_responses(SMALL, images)
    alone = v1.noise_free_responses(SMALL, images[1:])
    # Up to rounding in the bank, whose order of sums depends on the batch.
    np.testing.assert_allclose(alone[0], together[1], rtol=1e-4, atol=1e-5)


def test_a_surround_larger_than_the_image_is_refused_with_the_cure():
    small = {"image_size": 32, "visual_degrees": 1.0, "kernel_size": 9, "stride": 1}
    with pytest.raises(
        ValueError, match=r"normalization.largest_extent of 2.25 degrees.*1 degrees"
    ):
        v1.VOneBlockConfig(**small, normalization=v1.SurroundNormalization())
    with pytest.raises(ValueError, match=r"set normalization.largest_extent to 0.29 or less"):
        v1.VOneBlockConfig(**small, normalization=v1.SurroundNormalization(largest_extent=0.4))
    v1.VOneBlockConfig(**small, normalization=v1.SurroundNormalization(largest_extent=0.29))
    with pytest.raises(ValueError, match="too wide"):
        v1.VOneBlockConfig(**small, normalization=v1.SurroundNormalization(largest_extent=0.3))
    # Only rings are rounded: positions are pooled with a standard deviation of 13.3.
    large = {"image_size": 140, "visual_degrees": 5.0}
    pools = v1.SurroundNormalization(position_pooling=3.0, largest_extent=1.905)
    with pytest.raises(ValueError, match=r"reach 5.86 degrees.*set .*largest_extent to 1.61"):
        v1.VOneBlockConfig(**large, normalization=pools)
    # Without a Gaussian of a thousand million taps.
    with pytest.raises(ValueError, match="of 1e.13 degrees is too wide"):
        v1.VOneBlockConfig(**small, normalization=v1.SurroundNormalization(largest_extent=1e13))


@pytest.mark.slow
def test_a_bank_of_one_kind_of_cells_is_normalised():
    images = jax.random.uniform(jax.random.key(0), (1, 32, 32, 3))
    pools = v1.SurroundNormalization(largest_extent=0.1)
    for kind in ("simple", "complex"):
        cells = {"simple_channels": 0, "complex_channels": 0, f"{kind}_channels": 6}
        config = v1.VOneBlockConfig(
            **cells, image_size=32, visual_degrees=1.0, kernel_size=9, normalization=pools
        )
        responses = v1.noise_free_responses(config, images)
        assert responses.shape == (1, 8, 8, 6) and np.isfinite(responses).all()
        assert np.max(responses) > 0


def test_an_image_smaller_than_the_pools_is_refused():
    with pytest.raises(ValueError, match=r"largest_extent.*the image has 1 degrees"):
        jax.eval_shape(partial(v1.noise_free_responses, SMALL), jnp.zeros((1, 28, 56, 3)))


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"c50": 0.0}, "normalization.c50"),
        ({"gain": -1.0}, "normalization.gain"),
        ({"position_pooling": float("nan")}, "normalization.position_pooling"),
        ({"orientation_tuning": 1.5}, "normalization.orientation_tuning"),
        ({"strength_correlation": 2.0}, "normalization.strength_correlation"),
        ({"extent_correlation": float("nan")}, "normalization.extent_correlation"),
        ({"seed": -1}, "normalization.seed"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        v1.SurroundNormalization(**fields)


@pytest.mark.untyped
def test_another_normalisation_is_refused():
    with pytest.raises(ValueError, match=r"normalization must be SurroundNormalization\(...\)"):
        v1.VOneBlockConfig(normalization="surround")
