"""Calibration of predictions whose scores are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import certification
from vone_jax.certification import calibration


def logits(probabilities):
    return np.log(np.asarray(probabilities, np.float64))


def test_scores_of_two_answers():
    """One draw: p = (.8, .2), once right and once wrong, in one bin."""
    one = logits([[[0.8, 0.2]], [[0.8, 0.2]]])
    found = certification.measure_calibration(one, np.array([0, 1]))
    assert found.draws.tolist() == [1] and found.accuracy[0] == 0.5
    assert found.calibration_error[0] == pytest.approx(0.3)
    assert found.negative_log_likelihood[0] == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2)
    assert found.brier[0] == pytest.approx((2 * 0.04 + 2 * 0.64) / 2)
    assert found.entropy[0] == pytest.approx(-0.8 * np.log(0.8) - 0.2 * np.log(0.2))
    assert found.noise_entropy[0] == pytest.approx(0.0, abs=1e-12)


def test_draws_that_disagree_have_all_their_entropy_from_noise():
    sure = np.array([[[40.0, 0.0], [0.0, 40.0]]])
    found = certification.measure_calibration(sure, np.array([0]), draws=(1, 2))
    np.testing.assert_allclose(found.entropy, [0.0, np.log(2)], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.noise_entropy, [0.0, np.log(2)], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.brier, [0.0, 0.5], rtol=1e-6, atol=1e-12)


def test_averages_of_draws_have_the_scores_of_the_draws_themselves():
    rng = np.random.default_rng(0)
    drawn, labels = 3 * rng.standard_normal((7, 12, 4)), rng.integers(4, size=7)
    expected = certification.measure_calibration(drawn, labels, draws=(2, 6, 12))
    pairs = drawn.reshape(7, 6, 2, 4).transpose(1, 2, 0, 3)
    averages = jax.vmap(lambda two: calibration.average(two, jnp.asarray(labels)))(
        jnp.float32(pairs)
    )
    scores = calibration.score(averages, jnp.asarray(labels), (1, 3, 6, 10), each=2)
    found = calibration.summarise(scores)
    for each in dataclasses.fields(expected):
        ours, theirs = (getattr(given, each.name) for given in (found, expected))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def calibration_error(right, confidence):
    """From the scores of each image, of which the others do not matter."""
    scores = np.zeros((len(right), 1, 7))
    scores[:, 0, 1], scores[:, 0, 2] = right, confidence
    return calibration.summarise(scores).calibration_error[0]


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


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        certification.measure_calibration(np.full((1, 1, 2), np.nan), np.array([0]))
