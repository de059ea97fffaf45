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


@pytest.mark.parametrize("contrasts", [[0.5, 0.2, 1.0], [0.0, 0.5, 1.0], [0.5, 1.0], [0.5, 1, 2]])
def test_contrasts_out_of_range_are_refused(contrasts, site):
    with pytest.raises(ValueError, match="contrasts"):
        contrast_response(block_responses, KEY, site, np.array(contrasts))


def test_no_trials_are_refused(site):
    for experiment in (contrast_response, neurophysiology.surround_tuning):
        with pytest.raises(ValueError, match="trials must be an integer >= 1, got 0"):
            experiment(block_responses, KEY, site, trials=0)


def constant_site(units):
    zeros = np.zeros(units, int)
    display = neurophysiology.Display(8.0, 16, 1)
    return Site(display, display.whole(), np.arange(units), zeros, zeros, np.arange(units))


def constant_layer(x, noise, units=400):
    """Make a layer of units with mean ``x``; ``noise`` is a function of (mean, normal)."""

    def layer(key, images):
        keys = prng.example_keys(key, images.shape[0])
        normal = v1.standard_normal(keys, (units,))
        return noise(jnp.full(normal.shape, x), normal)

    return layer


def moments(x, noise):
    statistics = trial_statistics(constant_layer(x, noise), KEY, constant_site(400), trials=100)
    return statistics.mean.mean(), statistics.variance.mean(), statistics


NEURONAL = v1.NeuronalNoise(scale=0.35, level=0.07)


@pytest.mark.parametrize(
    ("x", "mean", "variance"), [(0.0, 0.3018, 0.1950), (1.0, 1.344, 1.957), (10.0, None, None)]
)
def test_the_noise_of_a_block_is_a_rectified_normal(x, mean, variance):
    # Moments of a rectified normal of mean x and variance (s x + l + 1e-4) / s^2. The sample is
    # 48 gratings of 100 trials of 400 units, so that 1 % is more than 5 standard errors.
    found_mean, found_variance, _ = moments(x, NEURONAL)
    if mean is not None:
        assert found_mean == pytest.approx(mean, rel=0.01)
        assert found_variance == pytest.approx(variance, rel=0.01)
    else:
        assert found_variance / found_mean == pytest.approx(2.735, rel=0.01)


@pytest.mark.slow
def test_the_fano_factor_is_1_in_spikes_only():
    def counts(mean, normal):
        spikes = 0.35 * mean + 0.07
        return spikes + normal * jnp.sqrt(spikes + 1e-4)

    _, _, in_spikes = moments(10.0, counts)
    assert np.median(in_spikes.fano_factor()) == pytest.approx(1.0, abs=0.01)
    # The same noise in units of the output, and put back into spikes.
    in_output = lambda mean, z: (counts(mean, z) - 0.07) / 0.35  # noqa: E731
    _, _, in_units = moments(10.0, in_output)
    assert np.median(in_units.fano_factor()) == pytest.approx(2.91, rel=0.02)
    _, _, back = moments(10.0, lambda mean, z: 0.35 * in_output(mean, z) + 0.07)
    assert np.median(back.fano_factor()) == pytest.approx(1.0, abs=0.01)


def test_weak_responses_can_be_left_out():
    statistics = TrialStatistics(np.array([[1.0], [10.0]]), np.array([[0.1], [9.0]]), 5)
    assert statistics.fano_factor() == pytest.approx(9.1 / 11)
    assert statistics.fano_factor(least_mean=2.0) == pytest.approx(0.9)
    assert statistics.fano_factor(least_mean=10.0) == pytest.approx(0.9)
    assert np.isnan(statistics.fano_factor(least_mean=20.0))


def test_a_silent_unit_has_no_fano_factor():
    statistics = TrialStatistics(np.zeros((2, 1)), np.zeros((2, 1)), 5)
    assert np.isnan(statistics.fano_factor()).all()


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


def test_variability_needs_two_trials():
    with pytest.raises(ValueError, match="trials"):
        trial_statistics(block_responses, KEY, constant_site(1), trials=1)
