"""The ideal observer of noisy responses, against quadrature and closed forms."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from vone_jax import certification, v1
from vone_jax.certification import observer


def log_density(x, mean, variance):
    return -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))


CHANGES = [(0.07, 0.05, 1.0), (1.0, 0.4, 1.0), (1.0, -0.9, 0.5), (2.0, -0.3, 2.0), (2.0, 1e-2, 1.0)]


@pytest.mark.parametrize("order", [1.02, 1.35, 2.0])
@pytest.mark.parametrize(("mean", "change", "strength"), CHANGES)
def test_the_divergence_is_that_of_quadrature(order, mean, change, strength):
    """The changed population is the first argument of the divergence."""
    clean, changed = strength**2 * mean, strength**2 * (mean + change)
    between = order * clean + (1 - order) * changed
    centre, spread = order * change * clean / between, (clean * changed / between) ** 0.5

    def integrand(x):
        ours, theirs = log_density(x, change, changed), log_density(x, 0.0, clean)
        return np.exp(order * ours + (1 - order) * theirs)

    ends = centre - 12 * spread, centre + 12 * spread
    moment = scipy.integrate.quad(integrand, *ends, limit=300)[0]
    expected = np.log(moment) / (order - 1)
    found = observer.renyi_rate(mean, change, order, strength) * change**2
    assert found == pytest.approx(expected, rel=1e-7)


def test_small_changes_have_half_the_order_times_the_information():
    noise = v1.NeuronalNoise(scale=1.0, level=0.5, strength=0.7)
    information = certification.information(noise, jnp.array([2.0]))
    assert float(information[0]) == pytest.approx(1 / (0.49 * 2.5001) + 0.5 / 2.5001**2, rel=1e-5)
    for change in (1e-6, -1e-6):
        rate = observer.renyi_rate(2.5001, change, 1.4, 0.7)
        assert rate == pytest.approx(0.7 * float(information[0]), rel=1e-4)


@pytest.mark.parametrize("order", [1.1, 1.35, 2.5])
def test_factors_hold_for_all_responses_and_changes_within_their_reach(order):
    """Also for those of a silent cell, which are used for all images."""
    noise = v1.NeuronalNoise(scale=0.4, level=0.6, strength=0.8)
    for response, reach in itertools.product((0.0, 0.2, 1.0, 8.0), (0.01, 0.3, 1.0)):
        changes = np.linspace(-min(response, reach), reach, 41)
        m = 0.4 * response + 0.6 + 1e-4
        rates = observer.renyi_rate(np.full(41, m), 0.4 * changes, order, 0.8)
        limit = observer.weights(noise, response, reach, order) ** 2
        assert np.all(0.16 * rates <= limit * (1 + 1e-9))
        assert limit <= observer.weights(noise, 0.0, reach, order) ** 2 * (1 + 1e-9)


def test_factors_of_stabilised_noise_bound_the_change_of_the_root():
    noise, rng = v1.StabilisedNoise(0.35, 0.2), np.random.default_rng(0)
    responses, others = rng.exponential(2.0, (2, 500))
    reach = np.abs(others - responses)
    root = lambda r: np.sqrt(0.35 * r + 0.2)  # noqa: E731
    moved = 2 * np.abs(root(others) - root(responses))
    limit = observer.weights(noise, responses, reach, 2.0) * reach
    assert np.all(moved <= limit * (1 + 1e-9))
    falling = others < responses
    np.testing.assert_allclose(limit[falling], moved[falling], rtol=1e-9)


@pytest.mark.parametrize(("probability", "expected"), [(0.99, 1.906), (0.999, 2.576)])
def test_thresholds_in_units_of_the_observer(probability, expected):
    """A Renyi certificate of order 1.35 needs 15 to 20 % more than a Gaussian one."""
    limit = observer.certified_distance(v1.NeuronalNoise(), probability, 1.35)
    assert limit / (1.35 / 2) ** 0.5 == pytest.approx(expected, abs=2e-3)
    gaussian = observer.certified_distance(v1.GaussianNoise(1.0), probability, 2.0)
    assert gaussian == pytest.approx(scipy.stats.norm.ppf(probability))


@pytest.fixture(scope="module")
def block():
    return v1.VOneBlockConfig(4, 4, image_size=12, visual_degrees=0.4, kernel_size=5, stride=2)


def test_detectability_is_the_distance_of_responses_in_deviations(block):
    images, others = jax.random.uniform(jax.random.key(0), (2, 3, 12, 12, 3))
    near, far = (np.asarray(v1.noise_free_responses(block, each)) for each in (images, others))
    total = lambda values: np.sqrt(np.sum(values**2, axis=(1, 2, 3)))  # noqa: E731
    found = certification.detectability(block, images, others, v1.GaussianNoise(4.0))
    np.testing.assert_allclose(found, total(far - near) / 4, rtol=1e-5)
    found = certification.detectability(block, images, others, v1.StabilisedNoise(0.35, 2.0))
    roots = np.sqrt(0.35 * far + 2) - np.sqrt(0.35 * near + 2)
    np.testing.assert_allclose(found, 2 * total(roots), rtol=1e-5)


def test_small_perturbations_have_the_detectability_of_the_information(block):
    noise = v1.NeuronalNoise(level=1.0)
    image = jax.random.uniform(jax.random.key(0), (1, 12, 12, 3))
    change = 1e-3 * jax.random.normal(jax.random.key(1), image.shape)
    responses = v1.noise_free_responses(block, image)
    moved = v1.noise_free_responses(block, image + change) - responses
    expected = jnp.sqrt(jnp.sum(certification.information(noise, responses) * moved**2))
    found = certification.detectability(
        dataclasses.replace(block, noise=noise), image, image + change
    )
    assert float(found[0]) == pytest.approx(float(expected), rel=1e-2)


@pytest.mark.parametrize(
    "noise",
    [None, v1.FanoNoise(), v1.GaussianNoise(0.0), v1.NeuronalNoise(level=0.0)]
    + [v1.NeuronalNoise(strength=0.0)],
)
def test_noise_without_a_certificate_is_refused(noise):
    with pytest.raises(ValueError, match="a certificate needs"):
        observer.check_noise(noise)
