"""Recordings of layers with a tuning that is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.neurophysiology.conftest import BLOCK, SMALL_DISPLAY, block_responses, small_layer
from vone_jax.neurophysiology import Display, find_units, record, stimuli, tuning
from vone_jax.neurophysiology.selection import locate
from vone_jax.neurophysiology.tuning import orientation_properties, peak_frequency

KEY = jax.random.key(0)
# (cycles per degree, degrees) at 28 pixels per degree.
WAVES = [(1.5, 20.0), (3.0, 0.0), (5.0, 110.0)]
NUMBERS = ("NHWC", "HWIO", "NHWC")


def waves(sf, orientation, size=33):
    """Return full-field gratings of 8 phases, float32 (8, size, size), and the sine's argument.

    The argument is in radians and 0 at the middle pixel.
    """
    offset = np.arange(size) - size // 2
    o = np.deg2rad(orientation)
    argument = 2 * np.pi * sf / 28 * (offset * np.cos(o) + (offset * np.sin(o))[:, None])
    phases = np.deg2rad(stimuli.PHASES)[:, None, None]
    return np.sin(argument + phases).astype(np.float32), argument


@pytest.mark.parametrize(("sf", "orientation"), WAVES)
def test_a_block_has_the_amplitudes_of_its_kernels_spectra(sf, orientation):
    images, argument = waves(sf, orientation)
    responses = np.asarray(block_responses(KEY, jnp.asarray(0.5 + 0.5 * images[..., None])))
    middle = argument[4:29, 4:29]
    kernels = BLOCK.gabor_kernels()
    spectra = [
        np.abs(np.einsum("kyx,yx->k", np.asarray(k, float), np.exp(1j * middle)))
        for k in (kernels.in_phase, kernels.quadrature)
    ]
    # The middle pixel is location 4 of the map. Half a period later a linear response has the
    # other sign, so that rectified responses hold it whole.
    found, simple = responses[:, 4, 4], BLOCK.simple_channels
    linear = (found - np.roll(found, 4, axis=0))[:, :simple]
    expected = BLOCK.k_exc * spectra[0][:simple]
    np.testing.assert_allclose(tuning.f1(linear), expected, rtol=1e-4, atol=1e-3)
    energy = np.square(found[:, simple:]).mean(axis=0)
    expected = BLOCK.k_exc**2 * (spectra[0] ** 2 + spectra[1] ** 2)[simple:] / 4
    np.testing.assert_allclose(energy, expected, rtol=1e-4, atol=1e-3)


F0 = 2.0
PERIODS = np.array([0.1, 0.15, 0.2, 0.3])  # nx
# Peak over carrier frequency: tanh(a u) = 1 / u, u = tanh(a u), u = tanh(2 a u) with
# a = 4 pi^2 nx^2; 0 is a low-pass filter.
EXPECTED = {
    "odd": (1.70, 1.25, 1.07, 1.0),
    "even": (0.0, 0.0, 0.885, 1.0),
    "energy": (0.0, 0.93, 0.996, 1.0),
}


def gabor_pairs(size=35):
    """Even and odd Gabors, float32 (size, size, 1, 8)."""
    offset = (np.arange(size) - size // 2) / 28
    sigma = PERIODS / F0
    envelope = np.exp(-np.add.outer(offset**2, offset**2)[..., None] / (2 * sigma**2)) / sigma**2
    carrier = 2 * np.pi * F0 * offset[None, :, None]
    kernels = np.concatenate([envelope * np.cos(carrier), envelope * np.sin(carrier)], axis=-1)
    return jnp.asarray(kernels[:, :, None], jnp.float32)


def gabor_layer(key, images):
    """Units with the sign of their responses in one of two channels: odd and even, and energy."""
    linear = jax.lax.conv_general_dilated(
        images - 128 / 255, gabor_pairs(), (4, 4), [(17, 17)] * 2, dimension_numbers=NUMBERS
    )
    even, odd = jnp.split(linear, 2, axis=-1)
    return jnp.concatenate([jax.nn.relu(odd), jax.nn.relu(even), odd**2 + even**2], axis=-1)


def test_peak_frequencies_of_gabors_are_those_of_the_closed_forms():
    gratings = stimuli.grating_set(
        "frequencies", spatial_frequency=stimuli.SPATIAL_FREQUENCIES, phase=stimuli.PHASES,
        radius=2.25, orientation=0.0,
    )  # fmt: skip
    site = locate(gabor_layer, KEY, Display(8.0, 224, 1))
    site = site.keep((site.row == 31) & (site.col == 31))
    responses = record(gabor_layer, KEY, gratings, site).reshape(*gratings.shape, -1)
    curve = np.concatenate(
        [tuning.f1(responses)[:, :8], tuning.f0(responses)[:, 8:]], axis=1
    ).astype(float)  # fmt: skip
    found = peak_frequency(curve).reshape(3, len(PERIODS)) / F0
    expected = np.array(list(EXPECTED.values()))
    low_pass = expected == 0
    assert found[low_pass].max() < 0.3
    # Half a step of the grid is 0.03 octaves; the resize blurs the higher ones away.
    octaves = np.log2(found[~low_pass] / expected[~low_pass])
    assert np.abs(octaves).max() < 0.12


def test_the_tuning_of_a_synthetic_layer_is_recovered():
    # Filters at 0, 22.5, ... degrees of 1 cycle per degree, on images of 64 pixels.
    site, _ = find_units(small_layer, KEY, SMALL_DISPLAY)
    gratings = stimuli.orientation_set()
    rates = record(small_layer, KEY, gratings, site).reshape(*gratings.shape, -1)
    found = orientation_properties(rates, np.zeros(len(site)))
    error = (found["pref_or"] - 22.5 * site.channel + 90) % 180 - 90
    # Half a step of the orientations that are shown, which lie beside those of the filters.
    assert np.abs(error).max() < 7.5 and np.median(np.abs(error)) < 4.0
    # nx = ny = 0.25, between those of 28 and 40 degrees in test_tuning. Pixels are coarse for
    # oblique gratings.
    straight = site.channel % 4 == 0
    np.testing.assert_allclose(found["or_bandwidth"][straight], 33.0, atol=1.5)
    assert (found["modulation_ratio"] > 1.2).all() and found["or_selective"].all()
