"""The norm of an observer of V1: against dense matrices, against d', and within attacks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from tests.certification.test_bounds import block, matrix
from tests.certification.test_certificates import Head, certify
from vone_jax import attacks, certification, models, v1
from vone_jax.certification import discriminability

SIDE = 8
CONFIG = block((3, 4), size=SIDE, in_channels=1, noise=v1.GaussianNoise(0.7))
# As many dimensions as pixels: exact up to rounding.
EXACT = certification.Discriminability(CONFIG, iterations=64)


def normal(count=3, seed=0):
    return jax.random.normal(jax.random.key(seed), (count, SIDE, SIDE, 1))


@pytest.fixture(scope="module")
def dense():
    return matrix(CONFIG, SIDE, SIDE) / 0.7


def flat(images):
    return np.asarray(images, np.float64).reshape(len(images), -1)


def test_the_norm_is_that_of_the_dense_matrix(dense):
    expected = np.linalg.norm(flat(normal()) @ dense.T, axis=1)
    np.testing.assert_allclose(EXACT.size(normal()), expected, rtol=1e-5)


def test_the_gradient_of_the_norm_is_that_of_the_dense_matrix_and_zero_at_zero(dense):
    delta = normal().at[1].set(0.0)
    found = flat(jax.grad(lambda delta: jnp.sum(EXACT.size(delta)))(delta))
    gram = dense.T @ dense
    for ours, given in zip(found, flat(delta), strict=True):
        expected = gram @ given / np.sqrt(given @ gram @ given) if given.any() else 0.0
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4 * np.abs(found).max())
    assert np.isnan(EXACT.size(delta.at[0].set(jnp.nan))[0])


def test_a_change_of_whole_levels_is_refused():
    """The difference of two images of eight bits has no negative values, and N no fraction."""
    with pytest.raises(TypeError, match="uint8"):
        EXACT.size(jnp.ones((1, SIDE, SIDE, 1), jnp.uint8))


@pytest.mark.parametrize("noise", [v1.GaussianNoise(0.7), v1.StabilisedNoise(0.35, 0.4)])
def test_no_observer_has_a_larger_d_prime_than_the_norm(noise):
    norm = certification.Discriminability(block((3, 4), in_channels=1, noise=noise))
    images, others = jax.random.uniform(jax.random.key(0), (2, 6, 12, 12, 1))
    found = certification.detectability(norm.config, images, others)
    assert np.all(found <= norm.size(others - images) * (1 + 1e-5))
    # Small changes of an image without contrast come near it, but for rectified cells.
    grey = jnp.full_like(images, 0.5)
    change = 1e-3 * (others - images)
    found = certification.detectability(norm.config, grey, grey + change)
    assert np.all(found > 0.7 * norm.size(change))


@pytest.mark.parametrize("eps", [1.0, 20.0, 1e4])
def test_the_projection_is_that_of_the_dense_problem(dense, eps):
    """The nearest point in the metric of the step, by the eigenvectors of the dense matrix."""
    delta = normal()
    found = np.asarray(EXACT.project(delta, eps))
    values, vectors = np.linalg.eigh(dense.T @ dense)
    damping = 0.01 * (certification.sensitivity(CONFIG) / 0.7) ** 2
    for ours, given in zip(flat(found), flat(delta), strict=True):
        along = vectors.T @ given

        def nearest(multiplier, along=along):
            return along * (values + damping) / ((1 + multiplier) * values + damping)

        def length(multiplier, nearest=nearest):
            return np.sqrt(np.sum(values * nearest(multiplier) ** 2))

        if length(0.0) <= eps:
            expected = given
        else:
            multiplier = scipy.optimize.brentq(lambda m: length(m) - eps, 0.0, 1e9, xtol=1e-9)
            expected = vectors @ nearest(multiplier)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=5e-3, atol=5e-3 * scale)


def test_images_that_are_too_large_for_a_dense_matrix_have_the_same_steps(monkeypatch):
    delta, norm = normal(), certification.Discriminability(CONFIG)
    dense = norm.project(delta, 1.0), norm.direction(delta)
    monkeypatch.setattr(discriminability, "_DENSE", 0)
    for found, expected in zip(
        (norm.project(delta, 1.0), norm.direction(delta)), dense, strict=True
    ):
        scale = float(jnp.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize("iterations", [1, 3, 12])
def test_the_projection_stays_in_the_ball_and_leaves_what_is_inside(iterations, dense):
    norm = certification.Discriminability(CONFIG, iterations=iterations)
    delta = normal()
    radii = jnp.array([0.5, 2.0, 1e4])
    found = norm.project(delta, radii)
    assert np.all(norm.size(found) <= radii * (1 + 1e-5))
    np.testing.assert_array_equal(found[2], delta[2])
    # Nearer, in the metric of the step, than scaling, which is another point of the ball.
    scaled = delta * (radii / norm.size(delta))[:, None, None, None]
    metric = dense.T @ dense
    metric += 0.01 * (certification.sensitivity(CONFIG) / 0.7) ** 2 * np.eye(len(metric))

    def away(point):
        rest = flat(delta - point)[:2]
        return np.sum(rest @ metric * rest, axis=1)

    assert np.all(away(found) <= away(scaled) * (1 + 1e-4))


def test_the_direction_is_the_damped_step_of_the_dense_matrix(dense):
    gradient = 1e-30 * normal(seed=1)
    damped = dense.T @ dense
    damped += 0.01 * (certification.sensitivity(CONFIG) / 0.7) ** 2 * np.eye(len(damped))
    expected = np.linalg.solve(damped, flat(normal(seed=1)).T).T
    expected /= np.linalg.norm(expected @ dense.T, axis=1, keepdims=True)
    np.testing.assert_allclose(flat(EXACT.direction(gradient)), expected, rtol=1e-2, atol=1e-4)
    np.testing.assert_array_equal(EXACT.direction(jnp.zeros_like(gradient)), 0.0)
    assert bool(jnp.isnan(EXACT.direction(gradient.at[0].set(jnp.nan))[0]).all())


def test_random_perturbations_are_of_norm_one_and_of_one_s_own_key():
    keys = lambda: jax.random.split(jax.random.key(0), 4)  # noqa: E731
    drawn = EXACT.sample(keys(), (SIDE, SIDE, 1), 1.0, jnp.float32)
    np.testing.assert_allclose(EXACT.size(drawn), 1.0, rtol=1e-4)
    alone = EXACT.sample(keys()[2:3], (SIDE, SIDE, 1), 1.0, jnp.float32)
    np.testing.assert_allclose(alone, drawn[2:3], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    "attack",
    [
        lambda norm, eps: attacks.PGD(norm, eps, steps=12),
        lambda norm, eps: attacks.PGD(norm, eps, steps=4, random_start=True, restarts=2),
        lambda norm, eps: attacks.APGD(norm, eps, steps=12),
    ],
    ids=["PGD", "PGD from random starts", "APGD"],
)
def test_attacks_find_the_worst_perturbation_of_a_linear_classifier(attack, dense):
    """The largest w.d within the ellipsoid is eps ||A^-T w||, if it stays in [0, 1]."""
    norm = certification.Discriminability(CONFIG, damping=1e-4, iterations=64)
    # A gradient in the range of the matrix, that leads far along no direction.
    weight = np.float32(dense.T @ dense @ flat(normal(1, seed=2))[0])
    weight /= np.linalg.norm(weight)

    def logits_fn(keys, images):
        score = images.reshape(len(images), -1) @ weight
        return jnp.stack([-score, score], axis=1)

    images, eps = jnp.full((2, SIDE, SIDE, 1), 0.5), 0.5
    labels = jnp.zeros(2, jnp.int32)
    found = attack(norm, eps)(jax.random.key(0), logits_fn, images, labels)
    assert np.all(norm.size(found - images) <= eps * (1 + 1e-4))
    reached = flat(found - images) @ weight
    best = eps * np.sqrt(weight @ np.linalg.solve(dense.T @ dense, weight))
    assert np.all(reached <= best * (1 + 1e-3)) and np.all(reached > 0.9 * best)


def test_images_at_the_edge_of_the_box_stay_within_box_and_ball():
    norm = certification.Discriminability(CONFIG, iterations=4)
    images = jnp.round(jax.random.uniform(jax.random.key(0), (3, SIDE, SIDE, 1)))
    weights = jax.random.normal(jax.random.key(1), (SIDE * SIDE, 3))
    logits_fn = lambda keys, images: images.reshape(len(images), -1) @ weights  # noqa: E731
    radii = jnp.array([0.5, 3.0, 10.0])
    attack = attacks.PGD(norm, radii, steps=5)
    found = attack(jax.random.key(0), logits_fn, images, jnp.array([0, 1, 2]))
    assert 0 <= found.min() and found.max() <= 1
    size = norm.size(found - images)
    assert np.all(size <= radii * (1 + 1e-4)) and np.all(size > 0.05 * radii)


def test_no_attack_within_the_certified_d_prime_changes_the_answer():
    """The certificate of Gaussian noise is the ball of this norm."""
    model = models.create("vone_resnet18", 3, v1=CONFIG, back_end=Head(), width=8)
    variables = models.init(model, jax.random.key(3))
    classifier = certification.from_model(model, variables)
    images = jax.random.uniform(jax.random.key(5), (6, SIDE, SIDE, 1))
    found = certify(classifier, images, draws=1000)
    stands = ~found.abstained
    assert stands.sum() >= 2
    radius = np.where(stands, 0.999 * scipy.stats.norm.ppf(np.maximum(found.lower, 0.5)), 0.0)
    norm = certification.Discriminability(CONFIG)
    attack = attacks.PGD(norm, jnp.float32(radius), steps=10, eot_samples=8)
    labels = jnp.asarray(found.prediction)
    changed = attack(jax.random.key(1), models.logits_fn(model, variables), images, labels)
    assert np.all(found.covers(images, changed - images)[stands])
    assert np.all(certify(classifier, changed, draws=1000).prediction[stands] == labels[stands])


@pytest.mark.parametrize("noise", [None, v1.NeuronalNoise(), v1.FanoNoise()])
def test_an_observer_without_a_d_prime_of_its_own_is_refused(noise):
    with pytest.raises(ValueError, match="discriminability needs"):
        certification.Discriminability(block(noise=noise))


def test_unknown_norms_are_refused():
    with pytest.raises(ValueError, match="norm"):
        attacks.PGD("l3", 1.0)
