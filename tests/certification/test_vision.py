"""Certified contrast and eigendistortions, against matrices and observers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from tests.certification.test_bounds import block, matrix
from vone_jax import certification, v1


def test_the_eigendistortions_of_a_linear_layer_are_its_singular_vectors():
    weights = np.random.default_rng(0).standard_normal((20, 12))
    layer = lambda keys, images: images.reshape(1, 12) @ jnp.float32(weights.T)  # noqa: E731
    image = np.zeros((2, 2, 3), np.float32)
    found = certification.eigendistortions(jax.random.key(0), layer, image, count=2)
    _, values, vectors = np.linalg.svd(weights)
    np.testing.assert_allclose(found.most_information, values[:2] ** 2, rtol=1e-3)
    np.testing.assert_allclose(found.least_information, values[:-3:-1] ** 2, rtol=1e-3)
    for ours, theirs in [(found.most[0], vectors[0]), (found.least[0], vectors[-1])]:
        assert abs(float(ours.ravel() @ theirs)) == pytest.approx(1.0, abs=1e-3)


def test_poisson_like_noise_weights_the_layer_by_the_rate():
    """Identity layer: the information of a pixel is scale^2 / u for stabilised noise."""
    image = np.linspace(0.1, 1.0, 9, dtype=np.float32).reshape(3, 3, 1)
    noise = v1.StabilisedNoise(2.0, 0.3)
    identity = lambda keys, images: images  # noqa: E731
    found = certification.eigendistortions(jax.random.key(0), identity, image, noise)
    expected = 4.0 / (2.0 * image + 0.3)
    assert found.most_information[0] == pytest.approx(expected.max(), rel=1e-4)
    assert found.least_information[0] == pytest.approx(expected.min(), rel=1e-4)
    assert abs(found.most[0, 0, 0, 0]) == pytest.approx(1.0, abs=1e-3)
    assert abs(found.least[0, 2, 2, 0]) == pytest.approx(1.0, abs=1e-3)


def test_an_observer_sees_the_best_distortion_of_v1_as_well_as_the_eigenvalue_says():
    config = block(in_channels=1, k_exc=20.0, noise=v1.StabilisedNoise(level=1.0))
    image = jax.random.uniform(jax.random.key(1), (12, 12, 1))
    layer = lambda keys, images: v1.noise_free_responses(config, images)  # noqa: E731
    found = certification.eigendistortions(jax.random.key(0), layer, image, config.noise)
    seen = [
        float(certification.detectability(config, image[None], image[None] + 0.01 * each)[0]) / 0.01
        for each in (found.most, found.least)
    ]
    assert seen[0] == pytest.approx(found.most_information[0] ** 0.5, rel=0.03)
    assert seen[1] < 0.1 * seen[0]
    # The exact sensitivity near the image is a bound.
    bound = certification.local_sensitivity(jax.random.key(0), config, image[None], 0.0)
    assert found.most_information[0] ** 0.5 <= bound[0] * (1 + 1e-4)


def test_certified_contrast_is_the_threshold_over_the_gain():
    config = block(in_channels=1, size=16, noise=v1.GaussianNoise(2.0))
    frequencies = np.array([0.5, 4.0, 9.0])
    found = certification.certified_contrast(config, frequencies, 0.99)
    quantile = scipy.stats.norm.ppf(0.99)
    np.testing.assert_allclose(found.amplitude * found.gain, 2.0 * quantile, rtol=1e-6)
    place = (np.arange(16) - 7.5) / 28.0
    grating = np.sin(2 * np.pi * 4.0 * place)[:, None] + np.zeros((1, 16))
    gain = np.linalg.norm(matrix(config, 16, 16) @ grating.ravel())
    assert gain <= found.gain[1] * (1 + 1e-5)
    assert np.all(found.gain <= certification.sensitivity(config) * 16)


@pytest.mark.parametrize("noise", [v1.StabilisedNoise(level=2.0), v1.NeuronalNoise(level=2.0)])
def test_an_observer_cannot_see_a_grating_of_certified_contrast(noise):
    config = block(in_channels=1, size=16, k_exc=20.0)
    found = certification.certified_contrast(config, [3.0, 6.0], 0.99, noise)
    place = (np.arange(16) - 7.5) / 28.0
    images = jax.random.uniform(jax.random.key(0), (4, 16, 16, 1))
    for frequency, amplitude in zip(found.frequencies, found.amplitude, strict=True):
        wave = amplitude * np.sin(2 * np.pi * frequency * place)
        grating = jnp.float32(wave).reshape(1, 16, 1, 1)
        seen = certification.detectability(config, images, images + grating, noise)
        assert 0 < float(seen.max()) < scipy.stats.norm.ppf(0.99) * 1.05
