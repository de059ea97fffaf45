"""The subcortical stage against the original (tests/golden), its tuning, and its derivatives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import v1
from vone_jax.v1 import subcortical

CONFIG = v1.SubcorticalConfig(noise=None)
SMALL = v1.SubcorticalConfig(image_size=24, visual_degrees=0.75)
QUIET = dataclasses.replace(SMALL, noise=None)


def image(name):
    row, col = np.meshgrid(np.arange(224), np.arange(224), indexing="ij")
    if name == "grey":
        channels = [np.full((224, 224), 0.5)] * 3
    elif name == "ramp":
        channels = [(row + col) / 446] * 3
    else:
        inside = (row - 112) ** 2 + (col - 112) ** 2 <= 3600
        wave = 0.5 + 0.4 * np.sin(2 * np.pi * (row + 2 * col) / 32)
        channels = [row / 223, col / 223, np.where(inside, wave, 0.25)]
    return np.stack(channels, axis=-1)[None].astype(np.float32)


@pytest.fixture(scope="module")
def noise_pair():
    return np.random.Generator(np.random.PCG64(0)).random((2, 224, 224, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def respond():
    return jax.jit(lambda images: v1.subcortical_responses(CONFIG, images))


def assert_golden(maps, golden, name, share):
    """NCHW maps equal the golden ones up to a share of the largest value."""
    maps, expected = np.asarray(maps), golden[f"{name}_sub"]
    tolerance = share * np.abs(expected).max()
    np.testing.assert_allclose(maps[:, :, ::7, ::7], expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(maps.mean((2, 3)), golden[f"{name}_mean"], rtol=0, atol=tolerance)


def test_each_step_equals_the_original(evnet_golden, noise_pair):
    adapted = subcortical.light_adaptation(jnp.asarray(noise_pair.transpose(0, 3, 1, 2)))
    assert_golden(adapted, evnet_golden, "light_adaptation", 1e-5)
    linear, normalised = [], []
    for _, cells, colours in CONFIG.populations:
        linear.append(subcortical.opponent_responses(CONFIG, cells, colours, adapted))
        normalised.append(subcortical.contrast_normalisation(CONFIG, cells, linear[-1]))
    assert_golden(jnp.concatenate(linear, axis=1), evnet_golden, "dog", 1e-5)
    assert_golden(jnp.concatenate(normalised, axis=1), evnet_golden, "contrast_normalisation", 1e-5)


@pytest.mark.parametrize(("name", "share"), [("", 1e-5), ("_ramp", 2e-5), ("_colour", 2e-5)])
def test_responses_equal_the_original(evnet_golden, noise_pair, respond, name, share):
    images = image(name[1:]) if name else noise_pair
    assert_golden(respond(images).transpose(0, 3, 1, 2), evnet_golden, f"subcortical{name}", share)


def test_without_light_adaptation_uniform_images_have_the_response_of_their_brightness():
    """Receptive fields have the sum 1 or -1, pools the sum 1: k y / (|y| + c50)^n with y = 0.5."""
    config = dataclasses.replace(QUIET, light_adaptation=False)
    responses = v1.subcortical_responses(config, jnp.full((1, 24, 24, 3), 0.75))
    expected = [0.5 * c.k_exc / (0.5 + c.c50) ** c.exponent for c in (v1.P_CELLS, v1.M_CELLS)]
    expected = np.repeat(expected, (3, 1)) * np.ones((1, 24, 24, 1))
    np.testing.assert_allclose(jnp.abs(responses), expected, rtol=1e-5)


@pytest.mark.parametrize("number", [1, 3])
def test_small_uniform_images_of_any_level_give_no_response(number):
    levels = np.arange(1, number + 1, dtype=np.float32) / 10.0
    images = np.broadcast_to(levels[:, None, None, None], (number, 24, 24, 3))
    respond = jax.jit(lambda images: v1.subcortical_responses(QUIET, images))
    np.testing.assert_array_equal(respond(images), 0.0)


def test_noise_equals_the_original(evnet_golden, noise_pair, respond):
    z = np.random.Generator(np.random.PCG64(1)).standard_normal((2, 224, 224, 4))
    config = v1.SubcorticalConfig()
    quiet = v1.subcortical_responses(config, noise_pair)
    noisy = config.noise(quiet, jnp.asarray(z, jnp.float32))
    assert_golden(noisy.transpose(0, 3, 1, 2), evnet_golden, "subcortical_noisy", 2e-5)


@pytest.mark.parametrize(("name", "cells"), [("p", v1.P_CELLS), ("m", v1.M_CELLS)])
def test_kernels_equal_the_original(evnet_golden, name, cells):
    (colours,) = [c for n, _, c in CONFIG.populations if n == name]
    centre, surround = (np.outer(taps, taps) for taps in CONFIG.centre_and_surround(cells))
    kernels = [
        np.multiply.outer(plus, centre) - np.multiply.outer(minus, surround)
        for plus, minus in colours
    ]
    for ours, key in (
        (kernels, "dog_kernel"),
        (np.outer(*[CONFIG.pool(cells)] * 2), "pool_kernel"),
    ):
        expected = evnet_golden[f"{key}_{name}"]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_kernel_reaches_no_further_than_an_image_is_wide():
    """The image has 4 pixels for 0.1 degrees. All but the centre of P cells would reach further."""
    config = v1.SubcorticalConfig(image_size=4, visual_degrees=0.1)
    for cells in (v1.P_CELLS, v1.M_CELLS):
        assert [len(taps) for taps in config.centre_and_surround(cells)] == [7, 7]
        assert len(config.pool(cells)) == 7


def log_spaced(low, high, base):
    return np.logspace(np.log(low) / np.log(base), np.log(high) / np.log(base), 12, base=base)


# Responses of the published cells, and the spatial frequency in cycles per degree where they are
# largest.
TUNING = {
    "p": {
        "best": 1.8483633685,
        "contrast": 0.75,
        "sf": "4.56831 4.58924 4.64119 4.76480 5.02475 5.37813 5.46048 5.70785 5.51945 4.48832 "
        "2.50837 .46043",
        "size": "0 3.73979 6.85470 7.98343 7.36171 6.63359 5.97797 5.67727 5.67049 5.71421 "
        "5.67263 5.68829",
        "contrast response": ".12098 .18311 .27656 .41636 .62386 .92820 1.36693 1.98389 2.82186 "
        "3.90788 5.23290 6.73546",
    },
    "m": {
        "best": 1.1579475273,
        "contrast": 0.3,
        "sf": "3.30116 3.33378 3.41304 3.58309 3.80579 3.97379 3.98064 3.69293 3.07215 1.73990 "
        ".29633 .00361",
        "size": "0 1.42400 3.35479 5.48632 6.09588 5.57202 4.94207 4.33237 3.82085 3.78788 "
        "3.81585 3.74694",
        "contrast response": ".23456 .35052 .51957 .76127 1.09762 1.54914 2.12830 2.83248 "
        "3.64090 4.51940 5.43155 6.34947",
    },
}


def gratings(sf, radius, contrast):
    """A disc of a grating in 8 phases; lengths in degrees, drawn at 32 pixels per degree."""
    x = np.linspace(-112, 112, 224)
    rows, columns = np.meshgrid(x, x, indexing="ij")
    phases = 2 * np.pi * np.arange(8)[:, None, None] / 8
    wave = 0.5 + 0.5 * contrast * np.sin(2 * np.pi * (sf / 32) * rows + phases)
    disc = np.where(np.hypot(rows, columns) <= radius * 32, wave, 0.5)
    return np.repeat(disc[..., None], 3, axis=-1).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("curve", ["sf", "size", "contrast response"])
@pytest.mark.parametrize("cells", ["p", "m"])
def test_tuning_equals_the_published_cells(cells, curve, respond):
    """The response is the first harmonic over phases of the rectified response at the centre."""
    published = TUNING[cells]
    best, contrast = published["best"], published["contrast"]
    stimuli = {
        "sf": [(sf, 1.0, contrast) for sf in log_spaced(0.07, 12, 10)],
        "size": [(best, radius, contrast) for radius in log_spaced(0.02, 6, 2)],
        "contrast response": [(best, 3.5 * 2**0.5, c) for c in log_spaced(0.01, 1, 2)],
    }[curve]
    channel = {"p": 0, "m": 3}[cells]
    ours = []
    for stimulus in stimuli:
        rates = np.maximum(np.asarray(respond(gratings(*stimulus)))[:, 112, 112, channel], 0)
        ours.append(np.abs(np.fft.fft(rates.astype(np.float64))[1]))
    expected = np.array([float(number) for number in published[curve].split()])
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_disc_gives_the_published_responses(respond):
    row, col = np.meshgrid(np.arange(224), np.arange(224), indexing="ij")
    disc = np.where((row - 112) ** 2 + (col - 112) ** 2 <= 64, 0.75, 0.25)
    images = np.repeat(disc[None, :, :, None], 3, axis=-1).astype(np.float32)
    p, _, _, m = respond(images)[0, 112, 112].tolist()
    assert p == pytest.approx(5.048394, abs=1e-4)
    assert m == pytest.approx(7.999736, abs=1e-4)


@pytest.mark.slow
def test_gradient_is_finite_on_uniform_images():
    def total(x, config):
        block = v1.SubcorticalBlock(config)
        return block.apply({}, x, rngs={"noise": jax.random.key(0)}).sum()

    levels = jnp.asarray([0.0, 0.3, 0.5, 1.0])
    images = levels[:, None, None, None] * jnp.ones((1, 24, 24, 3))
    for config in (SMALL, QUIET):
        value, slope = jax.value_and_grad(total)(images, config)
        assert np.isfinite(value) and bool(jnp.isfinite(slope).all())


@pytest.mark.slow
def test_gradient_equals_finite_differences():
    x = jax.random.uniform(jax.random.key(0), (1, 24, 24, 3), minval=0.2, maxval=0.8)
    direction = jax.random.normal(jax.random.key(1), x.shape)

    def total(step):
        return jnp.sum(v1.subcortical_responses(QUIET, x + step * direction) ** 2)

    numeric = (total(1e-2) - total(-1e-2)) / 2e-2
    assert float(jax.grad(total)(0.0)) == pytest.approx(float(numeric), rel=5e-3)


def test_opponent_cells_prefer_the_colour_of_their_centre():
    spot = np.zeros((3, 24, 24, 3), np.float32)
    spot[:, 10:13, 10:13] = np.eye(3)[:, None, None]
    centre = np.asarray(v1.subcortical_responses(QUIET, spot + 0.2))[:, 11, 11]
    assert centre[:, :3].argmax(axis=0).tolist() == [0, 1, 2]
    np.testing.assert_allclose(centre[:, 3], centre[0, 3], rtol=1e-4)


@pytest.mark.slow
def test_grey_images_are_colour_images_of_equal_channels():
    grey = dataclasses.replace(QUIET, in_channels=1)
    assert (grey.num_channels, QUIET.num_channels) == (2, 4)
    images = np.random.default_rng(1).random((2, 24, 30, 1)).astype(np.float32)
    one = v1.subcortical_responses(grey, images)
    three = v1.subcortical_responses(QUIET, np.repeat(images, 3, axis=-1))
    np.testing.assert_allclose(three[..., 1:], one[..., [0, 0, 1]], atol=1e-5)
    np.testing.assert_allclose(three[..., :1], one[..., :1], atol=1e-5)


@pytest.mark.slow
def test_noise_depends_on_the_key_of_an_example_alone():
    responses = jax.random.normal(jax.random.key(1), (3, 8, 8, 4))

    def noisy(rows):
        keys = jax.random.split(jax.random.key(0), 3)[rows]
        block = v1.SubcorticalBlock(SMALL)
        return np.asarray(block.apply({}, responses[rows], noise_key=keys, method="add_noise"))

    together = noisy(np.arange(3))
    np.testing.assert_array_equal(together[2:], noisy(np.array([2])))
    assert not np.allclose(together[0] - responses[0], together[1] - responses[1])
    with pytest.raises(ValueError, match="FanoNoise.* needs a key"):
        v1.SubcorticalBlock(SMALL).apply({}, jnp.ones((1, 24, 24, 3)))


def test_noise_is_independent_of_that_of_v1():
    noise = v1.FanoNoise(1.0, 1.0)
    before = v1.SubcorticalBlock(dataclasses.replace(SMALL, noise=noise))
    behind = v1.VOneBlock(v1.VOneBlockConfig(2, 2, noise=noise))

    def draws(module):
        zeros, key = jnp.zeros((1, 8, 8, 4)), jax.random.key(0)
        return np.ravel(module.apply({}, zeros, noise_key=key, method="add_noise"))

    assert abs(np.corrcoef(draws(before), draws(behind))[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("named", "fields"),
    [
        ("in_channels", {"in_channels": 4}),
        ("must not both be None", {"p_cells": None, "m_cells": None}),
        ("they cancel", {"p_cells": v1.LGNCells(0.1, 0.1, 1.0, 0.4, 1.0, 1.0, 5.0)}),
    ],
)
def test_configurations_are_refused(named, fields):
    with pytest.raises(ValueError, match=named):
        v1.SubcorticalConfig(**fields)
    with pytest.raises(ValueError, match="surround_radius"):
        dataclasses.replace(v1.P_CELLS, surround_radius=0.01)


def test_the_amplitude_for_gratings_of_full_contrast_is_that_of_responses():
    """At the centre of large images, for all kinds of cells and several frequencies."""
    config, frequencies = v1.SubcorticalConfig(), np.array([1.0, 2.0, 4.0, 8.0])
    # Whole periods from pixel 64 to pixel 160, which are three degrees.
    phase = 2 * np.pi * frequencies[:, None] * np.arange(224) / config.pixels_per_degree
    rows = 0.5 + 0.5 * np.cos(phase)
    images = np.broadcast_to(rows[:, None, :, None], (4, 224, 224, 3)).astype(np.float32)
    row = np.asarray(v1.subcortical_responses(config, images))[:, 112, 64:160]
    waves = np.exp(1j * phase[:, 64:160])
    found = 2.0 * np.abs(np.mean(row * waves[..., None], axis=1))
    np.testing.assert_allclose(
        subcortical.grating_amplitudes(config, frequencies), found, rtol=0.05
    )
