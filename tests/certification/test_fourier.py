"""The Fourier heat map of classifiers whose errors are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import certification, prng


def test_gratings_have_one_frequency_and_norm_one():
    basis = certification.fourier_basis(12, 9, 5)
    np.testing.assert_allclose(np.linalg.norm(basis, axis=(2, 3)), 1.0, rtol=1e-5)
    for i, j in [(0, 1), (2, 2), (4, 3)]:
        spectrum = np.abs(np.fft.fft2(basis[i, j]))
        found = {tuple(each) for each in np.argwhere(spectrum > 1e-3 * spectrum.max()).tolist()}
        down, across = i - 2, j - 2
        assert found == {(down % 12, across % 9), (-down % 12, -across % 9)}


def test_only_the_frequency_that_a_classifier_reads_makes_errors():
    """The class changes if the amplitude of one frequency is above a threshold."""
    basis = certification.fourier_basis(8, 8, 7)
    read = jnp.asarray(basis[1, 4])

    def logits_fn(keys, images):
        amplitude = jnp.abs(jnp.einsum("nhwc,hw->n", images, read))
        return jnp.stack([amplitude, jnp.full_like(amplitude, 1.0)], axis=-1)

    images = jnp.full((5, 8, 8, 1), 0.5)
    labels = np.ones(5, np.int64)
    wrong = certification.fourier_map(jax.random.key(0), logits_fn, images, labels, 1.5, size=7)
    expected = np.zeros((7, 7))
    expected[1, 4] = expected[5, 2] = 1.0
    np.testing.assert_array_equal(wrong, np.broadcast_to(expected, (5, 7, 7)))
    weak = certification.fourier_map(jax.random.key(0), logits_fn, images, labels, 0.9, size=7)
    assert not weak.any()


def test_signs_are_random_for_each_channel_and_follow_from_the_key_of_an_image():
    def logits_fn(keys, images):
        channels = images.sum(axis=(1, 2)) - 32.0
        return jnp.stack([channels[:, 0] * channels[:, 1], jnp.zeros(len(images))], axis=-1)

    images, labels = jnp.full((40, 8, 8, 2), 0.5), np.zeros(40, np.int64)
    key = jax.random.key(0)
    centre = certification.fourier_map(key, logits_fn, images, labels, 1.0, size=1)
    assert 0.2 < centre.mean() < 0.8
    keys = prng.example_keys(key, 40)
    parts = [
        certification.fourier_map(keys[part], logits_fn, images[part], labels[part], 1.0, size=1)
        for part in (slice(0, 10), slice(10, 40))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), centre)


def test_sizes_without_a_centre_are_refused():
    with pytest.raises(ValueError, match="odd"):
        certification.fourier_basis(8, 8, 4)
