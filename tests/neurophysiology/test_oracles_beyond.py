"""Surrounds, contrast and variability against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.neurophysiology.conftest import (
    BLOCK,
    SMALL_DISPLAY,
    block_responses,
    small_layer,
    surrounded,
)
from vone_jax import neurophysiology, prng, v1
from vone_jax.neurophysiology import Site, contrast_response, stimuli, trial_statistics
from vone_jax.neurophysiology.experiments import TrialStatistics, fit_saturation
from vone_jax.neurophysiology.selection import locate
from vone_jax.neurophysiology.tuning import size_properties

KEY = jax.random.key(0)


def suppression(layer):
    gratings = stimuli.grating_set(
        "size", radius=stimuli.RADII, spatial_frequency=np.array([1.0]),
        orientation=np.array([0.0, 45.0, 90.0]), phase=stimuli.PHASES,
    )  # fmt: skip
    site = locate(layer, KEY, SMALL_DISPLAY)
    flat = neurophysiology.record(layer, KEY, gratings, site)
    return size_properties(flat.reshape(*gratings.shape, -1), np.zeros(len(site)))


@pytest.mark.slow
def test_divisive_normalisation_is_surround_suppression():
    plain = suppression(small_layer)["surround_suppression_index"]
    normalised = suppression(surrounded(tuned=False, strength=0.05))
    index = normalised["surround_suppression_index"]
    assert np.median(plain) < 0.05
    assert np.median(index) > 0.2
    assert np.isfinite(normalised["surround_diameter"][index > 0.1]).all()
    # The surround is larger than the centre.
    wide = normalised["surround_diameter"] > normalised["grating_summation_field"]
    assert wide[index > 0.1].all()


def test_a_block_is_linear_in_contrast(site):
    found = contrast_response(block_responses, KEY, site, np.array([0.125, 0.25, 0.5, 1.0]))
    relative = found.curves / found.curves[-1]
    # 8-bit gratings are half a grey level darker than their ground, whatever their contrast.
    np.testing.assert_allclose(np.median(relative, axis=1), found.contrasts, rtol=0.02)
    assert np.abs(relative - found.contrasts[:, None]).max() < 0.04
    # No saturation within the range of contrasts.
    assert (found.c50 > 2).all() and (found.explained > 0.99).all()


@pytest.mark.slow
def test_divisive_normalisation_saturates_with_contrast(site):
    complex_cells = site.keep(site.channel >= BLOCK.simple_channels)
    contrasts = 2.0 ** np.arange(-4.0, 0.5, 1.0)
    linear = contrast_response(block_responses, KEY, complex_cells, contrasts).curves[-1]
    half = float(np.median(linear)) / 4

    def normalised(key, images):
        squares = jnp.square(block_responses(key, images))
        return squares / (squares + half**2)

    # c^2 / (c^2 + c50^2) with c50 where the linear response passes ``half``.
    found = contrast_response(normalised, KEY, complex_cells, contrasts)
    assert np.median(np.abs(np.log2(found.c50 / (half / linear)))) < 0.1
    assert np.median(found.exponent) == pytest.approx(2.0, abs=0.1)
    assert np.median(found.r_max) == pytest.approx(1.0, abs=0.05)


def test_the_fit_recovers_known_functions():
    contrasts = 2.0 ** np.arange(-4.0, 0.5, 0.5)
    known = [(10.0, 0.25, 2.0), (3.0, 0.5, 1.0), (1.0, 0.1, 3.5)]
    curves = np.stack([r * contrasts**n / (contrasts**n + c**n) for r, c, n in known], axis=1)
    r_max, c50, exponent, explained = fit_saturation(contrasts, curves)
    np.testing.assert_allclose(np.stack([r_max, c50, exponent], axis=1), known, rtol=0.04)
    assert (explained > 0.9995).all()


def test_the_fit_of_a_silent_unit_is_undefined():
    """So is that of a unit whose responses all lie below that to grey."""
    curves = np.array([[0.0, -1.0], [0.0, -2.0], [0.0, -3.0]])
    fitted = fit_saturation(np.array([0.1, 0.5, 1.0]), curves)
    assert all(np.isnan(values).all() for values in fitted)


def constant_site(units):
    zeros = np.zeros(units, int)
    display = neurophysiology.Display(8.0, 16, 1)
    return Site(display, display.whole(), np.arange(units), zeros, zeros, np.arange(units))


def test_the_noise_of_a_block_is_a_rectified_normal():
    """Moments of a rectified normal of mean x and variance (s x + l + 1e-4) / s^2.

    The sample of each mean is 48 gratings of 100 trials of 120 units, so that 1 % is more than 5
    standard errors.
    """
    noise = v1.NeuronalNoise(scale=0.35, level=0.07)
    x = jnp.repeat(jnp.asarray([0.0, 1.0, 10.0]), 120)

    def layer(key, images):
        normal = v1.standard_normal(prng.example_keys(key, len(images)), x.shape)
        return noise(jnp.broadcast_to(x, normal.shape), normal)

    found = trial_statistics(layer, KEY, constant_site(len(x)), trials=100)
    mean, variance = (
        each.mean(axis=0).reshape(3, 120).mean(axis=1) for each in (found.mean, found.variance)
    )
    np.testing.assert_allclose(mean[:2], [0.3018, 1.344], rtol=0.01)
    np.testing.assert_allclose(variance[:2], [0.1950, 1.957], rtol=0.01)
    assert variance[2] / mean[2] == pytest.approx(2.735, rel=0.01)


def test_weak_responses_can_be_left_out():
    statistics = TrialStatistics(np.array([[1.0], [10.0]]), np.array([[0.1], [9.0]]), 5)
    assert statistics.fano_factor() == pytest.approx(9.1 / 11)
    assert statistics.fano_factor(least_mean=2.0) == pytest.approx(0.9)
    assert statistics.fano_factor(least_mean=10.0) == pytest.approx(0.9)
    assert np.isnan(statistics.fano_factor(least_mean=20.0))


def test_the_gratings_below_are_shown_in_every_trial():
    """They lie under the others, as in a surround, and are half of the image here."""
    table = stimuli.grating_set("t", radius=1.0, spatial_frequency=1.0, orientation=0.0, phase=0.0)
    around = stimuli.grating_set(
        "b", radius=3.0, spatial_frequency=1.0, orientation=90.0, phase=0.0
    )
    both = stimuli.GratingSet("both", table.shape, table.table, around.table)

    def mean(key, images):
        return jnp.mean(jnp.abs(images - 0.5), axis=(1, 2))

    site = constant_site(1)
    shown = stimuli.render(table.table, site.display, site.window, around.table)
    statistics = trial_statistics(mean, KEY, site, trials=2, gratings=both)
    np.testing.assert_allclose(
        statistics.mean[0], mean(None, shown.astype(jnp.float32) / 255)[0], rtol=1e-5
    )
