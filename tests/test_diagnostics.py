"""Calibration, Fourier maps and eigendistortions of classifiers and layers that are known."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.certification.test_bounds import block
from vone_jax import certification, diagnostics, prng, v1


def logits(probabilities):
    return np.log(np.asarray(probabilities, np.float64))


def test_scores_of_two_answers():
    """One draw: p = (.8, .2), once right and once wrong, in one bin."""
    one = logits([[[0.8, 0.2]], [[0.8, 0.2]]])
    found = diagnostics.measure_calibration(one, np.array([0, 1]))
    assert found.draws.tolist() == [1] and found.accuracy[0] == 0.5
    assert found.calibration_error[0] == pytest.approx(0.3)
    assert found.negative_log_likelihood[0] == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2)
    assert found.brier[0] == pytest.approx((2 * 0.04 + 2 * 0.64) / 2)
    assert found.entropy[0] == pytest.approx(-0.8 * np.log(0.8) - 0.2 * np.log(0.2))
    assert found.noise_entropy[0] == pytest.approx(0.0, abs=1e-12)


def test_draws_that_disagree_have_all_their_entropy_from_noise():
    sure = np.array([[[40.0, 0.0], [0.0, 40.0]]])
    found = diagnostics.measure_calibration(sure, np.array([0]), draws=(1, 2))
    np.testing.assert_allclose(found.entropy, [0.0, np.log(2)], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.noise_entropy, [0.0, np.log(2)], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.brier, [0.0, 0.5], rtol=1e-6, atol=1e-12)


def test_averages_of_draws_have_the_scores_of_the_draws_themselves():
    rng = np.random.default_rng(0)
    drawn, labels = 3 * rng.standard_normal((7, 12, 4)), rng.integers(4, size=7)
    expected = diagnostics.measure_calibration(drawn, labels, draws=(2, 6, 12))
    pairs = drawn.reshape(7, 6, 2, 4).transpose(1, 2, 0, 3)
    averages = jax.vmap(lambda two: diagnostics.average_draws(two, jnp.asarray(labels)))(
        jnp.float32(pairs)
    )
    scores = diagnostics.score_averages(averages, jnp.asarray(labels), (1, 3, 6, 10), each=2)
    found = diagnostics.summarise_scores(scores)
    for each in dataclasses.fields(expected):
        ours, theirs = (getattr(given, each.name) for given in (found, expected))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def calibration_error(right, confidence):
    """From the scores of each image, of which the others do not matter."""
    scores = np.zeros((len(right), 1, 7))
    scores[:, 0, 1], scores[:, 0, 2] = right, confidence
    return diagnostics.summarise_scores(scores).calibration_error[0]


def test_labels_drawn_from_the_probabilities_are_calibrated():
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.5, 1.0, 20_000)
    right = rng.random(20_000) < probability
    assert calibration_error(right, probability) < 0.02
    overconfident = probability**3 / (probability**3 + (1 - probability) ** 3)
    assert calibration_error(right, overconfident) > 0.08


def test_bins_are_weighted_by_their_counts():
    """Confidence .95 (three right of four) and .55 (none right of one)."""
    found = calibration_error([1, 1, 1, 0, 0], [0.95] * 4 + [0.55])
    assert found == pytest.approx((4 * 0.2 + 0.55) / 5)


def test_a_confidence_on_an_edge_is_in_the_lower_bin():
    """Bins ((m - 1) / M, m / M], as Guo et al. define them: 1/2 of 4 bins is with .4, not .6."""
    one = np.array([[0.0, 0.0, -200.0], logits([0.4, 0.3, 0.3]), logits([0.6, 0.2, 0.2])])
    found = diagnostics.measure_calibration(one[:, None], np.array([0, 1, 0]), draws=(1,), bins=4)
    assert found.calibration_error[0] == pytest.approx((abs(0.5 - 1 + 0.4) + abs(0.6 - 1)) / 3)
    sure = diagnostics.measure_calibration(200 * np.eye(3)[:, None], np.array([0, 1, 1]), bins=4)
    assert sure.calibration_error[0] == pytest.approx(1 / 3)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        diagnostics.measure_calibration(np.full((1, 1, 2), np.nan), np.array([0]))


def test_gratings_have_one_frequency_and_norm_one():
    basis = diagnostics.fourier_basis(12, 9, 5)
    np.testing.assert_allclose(np.linalg.norm(basis, axis=(2, 3)), 1.0, rtol=1e-5)
    for i, j in [(0, 1), (2, 2), (4, 3)]:
        spectrum = np.abs(np.fft.fft2(basis[i, j]))
        found = {tuple(each) for each in np.argwhere(spectrum > 1e-3 * spectrum.max()).tolist()}
        down, across = i - 2, j - 2
        assert found == {(down % 12, across % 9), (-down % 12, -across % 9)}


def test_only_the_frequency_that_a_classifier_reads_makes_errors():
    """The class changes if the amplitude of one frequency is above a threshold."""
    basis = diagnostics.fourier_basis(8, 8, 7)
    read = jnp.asarray(basis[1, 4])

    def logits_fn(keys, images):
        amplitude = jnp.abs(jnp.einsum("nhwc,hw->n", images, read))
        return jnp.stack([amplitude, jnp.full_like(amplitude, 1.0)], axis=-1)

    images = jnp.full((5, 8, 8, 1), 0.5)
    labels = np.ones(5, np.int64)
    wrong = diagnostics.fourier_map(jax.random.key(0), logits_fn, images, labels, 1.5, size=7)
    expected = np.zeros((7, 7))
    expected[1, 4] = expected[5, 2] = 1.0
    np.testing.assert_array_equal(wrong, np.broadcast_to(expected, (5, 7, 7)))
    weak = diagnostics.fourier_map(jax.random.key(0), logits_fn, images, labels, 0.9, size=7)
    assert not weak.any()


def test_signs_are_random_for_each_channel_and_follow_from_the_key_of_an_image():
    def logits_fn(keys, images):
        channels = images.sum(axis=(1, 2)) - 32.0
        return jnp.stack([channels[:, 0] * channels[:, 1], jnp.zeros(len(images))], axis=-1)

    images, labels = jnp.full((40, 8, 8, 2), 0.5), np.zeros(40, np.int64)
    key = jax.random.key(0)
    centre = diagnostics.fourier_map(key, logits_fn, images, labels, 1.0, size=1)
    assert 0.2 < centre.mean() < 0.8
    keys = prng.example_keys(key, 40)
    parts = [
        diagnostics.fourier_map(keys[part], logits_fn, images[part], labels[part], 1.0, size=1)
        for part in (slice(0, 10), slice(10, 40))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), centre)


def test_sizes_without_a_centre_are_refused():
    with pytest.raises(ValueError, match="odd"):
        diagnostics.fourier_basis(8, 8, 4)


def test_the_eigendistortions_of_a_linear_layer_are_its_singular_vectors():
    weights = np.random.default_rng(0).standard_normal((20, 12))
    layer = lambda keys, images: images.reshape(1, 12) @ jnp.float32(weights.T)  # noqa: E731
    image = np.zeros((2, 2, 3), np.float32)
    found = diagnostics.eigendistortions(jax.random.key(0), layer, image, count=2)
    _, values, vectors = np.linalg.svd(weights)
    np.testing.assert_allclose(found.most_information, values[:2] ** 2, rtol=1e-3)
    np.testing.assert_allclose(found.least_information, values[:-3:-1] ** 2, rtol=1e-3)
    for ours, theirs in [(found.most[0], vectors[0]), (found.least[0], vectors[-1])]:
        assert abs(float(ours.ravel() @ theirs)) == pytest.approx(1.0, abs=1e-3)


def test_the_least_distortions_beside_nearly_silent_cells_have_the_least_information():
    """By the formula for Fano noise in float64: 60 silent cells have 1e9 times the information."""
    rng, noise = np.random.default_rng(0), v1.FanoNoise()
    image = rng.uniform(0.2, 0.8, 144).astype(np.float32)
    others = np.linalg.qr(np.concatenate([image[:, None], rng.normal(size=(144, 60))], axis=1))[0]
    weights = np.concatenate([others[:, 1:].T, np.abs(rng.normal(size=(400, 144)))])
    weights, rest = np.float32(weights), np.float32(1e-5) * (np.arange(460) < 60)
    layer = lambda keys, images: images.reshape(1, 144) @ weights.T + rest[None]  # noqa: E731
    rates = weights.astype(np.float64) @ image + rest
    variance = noise.fano_factor * rates + noise.floor
    known = 1 / variance + noise.fano_factor**2 / (2 * variance**2)
    matrix = (weights.T * known) @ weights.astype(np.float64)
    for seed in range(2):
        key = jax.random.key(seed)
        found = diagnostics.eigendistortions(key, layer, image.reshape(12, 12, 1), noise, count=3)
        least = found.least.reshape(3, 144)
        np.testing.assert_allclose(
            np.sum(least @ matrix * least, axis=1), np.linalg.eigvalsh(matrix)[:3], rtol=1e-3
        )
        np.testing.assert_allclose(
            found.least_information, np.linalg.eigvalsh(matrix)[:3], rtol=1e-3
        )


@pytest.mark.parametrize(("lowest", "told"), [(0.1, False), (1e-4, True), (0.0, True)])
def test_the_distortions_of_a_large_image_say_where_smaller_ones_may_exist(lowest, told):
    """A layer that scales each value of 72 x 72 pixels; three of them least, by a known number."""
    gains = np.random.default_rng(0).uniform(0.5, 1.0, 72 * 72)
    gains[[5, 80, 4000]] = lowest
    gains[[7, 1000]] = 1.5, 1.3
    layer = lambda keys, images: images * jnp.float32(gains.reshape(1, 72, 72, 1))  # noqa: E731
    image = np.full((72, 72, 1), 0.5, np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = diagnostics.eigendistortions(jax.random.key(0), layer, image, count=2)
    np.testing.assert_allclose(found.most_information, [1.5**2, 1.3**2], rtol=1e-4)
    np.testing.assert_allclose(found.least_information, lowest**2, rtol=1e-3, atol=1e-4 * 1.5**2)
    assert bool(caught) == told and all("5184 values" in str(each.message) for each in caught)


@pytest.mark.parametrize("count", [3, 5])
def test_least_distortions_of_a_layer_that_ignores_many_directions_have_no_information(count):
    """Lanczos finds one vector of each repeated eigenvalue, here one of a null space of 44."""
    weights = np.random.default_rng(0).standard_normal((100, 144))
    layer = lambda keys, images: images.reshape(1, 144) @ jnp.float32(weights.T)  # noqa: E731
    image = np.full((12, 12, 1), 0.5, np.float32)
    values = np.linalg.eigvalsh(weights @ weights.T)[::-1]
    for seed in range(5):
        found = diagnostics.eigendistortions(jax.random.key(seed), layer, image, count=count)
        np.testing.assert_allclose(found.most_information, values[:count], rtol=1e-3)
        assert np.all(found.least_information < 1e-4 * values[0])
        for vectors in (found.most.reshape(count, -1), found.least.reshape(count, -1)):
            np.testing.assert_allclose(vectors @ vectors.T, np.eye(count), atol=1e-4)
        unseen = np.sum((found.least.reshape(count, -1) @ weights.T) ** 2, axis=1)
        assert np.all(unseen < 1e-4 * values[0])


def test_distortions_of_a_layer_that_is_not_finite_are_an_error():
    layer = lambda keys, images: jnp.log(images - 0.5)  # noqa: E731
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        diagnostics.eigendistortions(jax.random.key(0), layer, np.full((3, 3, 1), 0.5, np.float32))


def test_poisson_like_noise_weights_the_layer_by_the_rate():
    """Identity layer: the information of a pixel is scale^2 / u for stabilised noise."""
    image = np.linspace(0.1, 1.0, 9, dtype=np.float32).reshape(3, 3, 1)
    noise = v1.StabilisedNoise(2.0, 0.3)
    identity = lambda keys, images: images  # noqa: E731
    found = diagnostics.eigendistortions(jax.random.key(0), identity, image, noise)
    expected = 4.0 / (2.0 * image + 0.3)
    assert found.most_information[0] == pytest.approx(expected.max(), rel=1e-4)
    assert found.least_information[0] == pytest.approx(expected.min(), rel=1e-4)
    assert abs(found.most[0, 0, 0, 0]) == pytest.approx(1.0, abs=1e-3)
    assert abs(found.least[0, 2, 2, 0]) == pytest.approx(1.0, abs=1e-3)


def test_an_observer_sees_the_best_distortion_of_v1_as_well_as_the_eigenvalue_says():
    config = block(in_channels=1, k_exc=20.0, noise=v1.StabilisedNoise(level=1.0))
    image = jax.random.uniform(jax.random.key(1), (12, 12, 1))
    layer = lambda keys, images: v1.noise_free_responses(config, images)  # noqa: E731
    found = diagnostics.eigendistortions(jax.random.key(0), layer, image, config.noise)
    seen = [
        float(certification.detectability(config, image[None], image[None] + 0.01 * each)[0]) / 0.01
        for each in (found.most, found.least)
    ]
    assert seen[0] == pytest.approx(found.most_information[0] ** 0.5, rel=0.03)
    assert seen[1] < 0.1 * seen[0]
    # The exact sensitivity near the image is a bound.
    bound = certification.local_sensitivity(jax.random.key(0), config, image[None], 0.0)
    assert found.most_information[0] ** 0.5 <= bound[0] * (1 + 1e-4)
