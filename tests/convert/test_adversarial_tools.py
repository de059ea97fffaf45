"""Foolbox and ART run on our networks, and their PGD is our PGD."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vone_jax import attacks, v1
from vone_jax.convert.tools import CallKeys

EPS, STEPS = 8 / 255, 4
LABELS = np.array([0, 1, 2, 3])


CONFIG = v1.VOneBlockConfig(
    simple_channels=4,
    complex_channels=4,
    image_size=16,
    visual_degrees=0.5,
    kernel_size=7,
    stride=2,
)


def classify(config, weights, key, images):
    """V1 and a linear readout: a noisy classifier that compiles fast."""
    responses = v1.VOneBlock(config).apply({}, images, noise_key=key)
    return responses.reshape(len(images), -1) @ weights


def network(noise):
    weights = np.random.default_rng(1).normal(0, 0.1, (8 * 8 * 8, 4)).astype(np.float32)
    config = dataclasses.replace(CONFIG, noise=noise)
    return Partial(functools.partial(classify, config), jnp.asarray(weights))


@pytest.fixture(scope="module")
def quiet():
    return network(None)


@pytest.fixture(scope="module")
def noisy():
    return network(v1.NeuronalNoise())


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((4, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def ours(quiet, images):
    attack = attacks.PGD(norm="linf", eps=EPS, steps=STEPS, step_size=EPS / 3)
    return np.asarray(attack(jax.random.key(1), quiet, jnp.asarray(images), jnp.asarray(LABELS)))


def test_call_keys():
    fresh, frozen = (CallKeys(jax.random.key(0), noise) for noise in ("fresh", "frozen"))
    data = [jax.random.key_data(keys.next()).tolist() for keys in (fresh, fresh, frozen, frozen)]
    assert data[0] != data[1] and data[2] == data[3]
    fresh.calls = 0
    assert jax.random.key_data(fresh.next()).tolist() == data[0]
    with pytest.raises(ValueError, match="noise must be one of fresh, frozen; got 'off'"):
        CallKeys(jax.random.key(0), "off")
    with pytest.raises(TypeError, match="typed key"):
        CallKeys(jax.random.PRNGKey(0), "fresh")


@pytest.mark.extras
def test_foolbox_agrees(quiet, images, ours):
    foolbox = pytest.importorskip("foolbox", reason="foolbox is not installed")
    from vone_jax.convert.tools import foolbox_model

    model = foolbox_model(quiet, jax.random.key(0))
    attack = foolbox.attacks.LinfPGD(rel_stepsize=1 / 3, steps=STEPS, random_start=False)
    raw, clipped, success = attack(model, jnp.asarray(images), jnp.asarray(LABELS), epsilons=EPS)
    np.testing.assert_allclose(clipped, ours, atol=1e-6)
    wrong = np.asarray(quiet(jax.random.key(0), jnp.asarray(ours))).argmax(1) != LABELS
    np.testing.assert_array_equal(success, wrong)


@pytest.mark.extras
def test_foolbox_sees_noise(noisy, images):
    pytest.importorskip("foolbox", reason="foolbox is not installed")
    from vone_jax.convert.tools import foolbox_model

    fresh = foolbox_model(noisy, jax.random.key(0))
    frozen = foolbox_model(noisy, jax.random.key(0), noise="frozen")
    x = jnp.asarray(images)
    assert np.abs(fresh(x) - fresh(x)).max() > 1e-4
    np.testing.assert_array_equal(frozen(x), frozen(x))


@pytest.fixture(scope="module")
def art():
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed")
    from vone_jax.convert.art import ArtClassifier

    return ArtClassifier


@pytest.mark.extras
def test_art_agrees(art, quiet, images, ours):
    from art.attacks.evasion import ProjectedGradientDescentNumpy

    estimator = art(quiet, jax.random.key(0), (16, 16, 3), 4)
    attack = ProjectedGradientDescentNumpy(
        estimator, norm=np.inf, eps=EPS, eps_step=EPS / 3, max_iter=STEPS, verbose=False
    )
    np.testing.assert_allclose(attack.generate(images, LABELS), ours, atol=1e-6)


@pytest.mark.extras
def test_auto_pgd_of_art_uses_the_loss_of_the_estimator(art, quiet, images):
    from art.attacks.evasion import AutoProjectedGradientDescent

    estimator = art(quiet, jax.random.key(0), (16, 16, 3), 4)
    attack = AutoProjectedGradientDescent(
        estimator, eps=EPS, eps_step=EPS / 3, max_iter=5, nb_random_init=1, verbose=False
    )
    adversarial = attack.generate(images, np.eye(4)[LABELS])
    assert np.abs(adversarial - images).max() <= EPS + 1e-6
    raised = estimator.compute_loss(adversarial, LABELS) - estimator.compute_loss(images, LABELS)
    assert raised.min() >= 0 and raised.max() > 0


@pytest.mark.extras
def test_art_estimator(art, quiet, noisy, images):
    estimator = art(quiet, jax.random.key(0), (16, 16, 3), 4)
    logits = np.asarray(quiet(jax.random.key(0), jnp.asarray(images)))
    np.testing.assert_allclose(estimator.predict(images, batch_size=3), logits, atol=1e-5)
    assert estimator.predict(images[:0]).shape == (0, logits.shape[1])
    by_index = estimator.loss_gradient(images, LABELS)
    np.testing.assert_array_equal(by_index, estimator.loss_gradient(images, np.eye(4)[LABELS]))
    np.testing.assert_array_equal(by_index, estimator.loss_gradient(images, LABELS[:, None]))
    alone = estimator.loss_gradient(images[:1], LABELS[:1])  # No mean over the batch.
    np.testing.assert_allclose(by_index[:1], alone, atol=1e-6)
    losses = estimator.compute_loss(images, LABELS)
    expected = -jax.nn.log_softmax(logits)[np.arange(4), LABELS]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    mean = estimator.compute_loss(images, np.eye(4)[LABELS], reduction="mean")
    assert mean == pytest.approx(losses.mean())
    with pytest.raises(ValueError, match="reduction must be one of none, mean, sum; got 'max'"):
        estimator.compute_loss(images, LABELS, reduction="max")
    every = estimator.class_gradient(images)
    assert every.shape == (4, 4, 16, 16, 3)
    one = estimator.class_gradient(images, LABELS)
    np.testing.assert_array_equal(one[:, 0], every[np.arange(4), LABELS])
    assert not estimator.channels_first  # Some attacks ask.
    with pytest.raises(NotImplementedError):
        estimator.fit(images, LABELS)
    with pytest.raises(ValueError, match="eot_samples must be an integer >= 1"):
        art(quiet, jax.random.key(0), (16, 16, 3), 4, eot_samples=0)

    averaged = art(noisy, jax.random.key(0), (16, 16, 3), 4, eot_samples=3)
    first = averaged.loss_gradient(images, LABELS)
    assert np.abs(first - averaged.loss_gradient(images, LABELS)).max() > 0
    # Each draw of a call has a key of its own.
    one, several = (
        art(noisy, jax.random.key(0), (16, 16, 3), 4, noise="frozen", eot_samples=draws)
        for draws in (1, 3)
    )
    difference = one.compute_loss(images, LABELS) - several.compute_loss(images, LABELS)
    assert np.abs(difference).min() > 1e-4


@pytest.mark.extras
def test_art_loss_keeps_its_gradient_where_the_label_leads_by_far(art):
    """The gradient of logsumexp(z) - z[label] is 0 in float32 there."""

    def leading(key, images):
        value = images.sum((1, 2, 3))
        return jnp.stack([30 - value, 0 * value], axis=1)

    estimator = art(leading, jax.random.key(0), (2, 2, 1), 2)
    images = np.full((1, 2, 2, 1), 0.25, np.float32)
    # softplus(-29) and its slope.
    np.testing.assert_allclose(estimator.compute_loss(images, [0]), np.exp(-29), rtol=1e-5)
    gradient = estimator.loss_gradient(images, np.array([0]))
    np.testing.assert_allclose(gradient, np.full_like(images, np.exp(-29)), rtol=1e-5)


@pytest.mark.extras
def test_art_attack_on_a_noisy_network(art, noisy, images):
    from art.attacks.evasion import FastGradientMethod

    estimator = art(noisy, jax.random.key(0), (16, 16, 3), 4, eot_samples=2)
    adversarial = FastGradientMethod(estimator, eps=EPS).generate(images, LABELS)
    assert np.abs(adversarial - images).max() <= EPS + 1e-6
    assert 0 <= adversarial.min() and adversarial.max() <= 1
