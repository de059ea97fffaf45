"""Attacks inside of functions that the user transforms, with arrays from outside of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from vone_jax import prng
from vone_jax.attacks import APGD, FGSM, FMN, PGD, Strongest

KEY, IMAGES, LABELS = problem.KEY, problem.IMAGES, problem.labels()


def pgd(eps, logits_fn, key=KEY):
    return PGD("linf", eps, steps=2)(key, logits_fn, IMAGES, LABELS)


def fmn(eps, logits_fn, key=KEY):
    return FMN("linf", eps, steps=3).minimal(key, logits_fn, IMAGES, LABELS).images


def strongest(eps, logits_fn, key=KEY):
    members = (FGSM("linf", eps), PGD("linf", eps, steps=2))
    return Strongest(members)(key, logits_fn, IMAGES, LABELS, batch_size=8)


SLOW = pytest.param(strongest, marks=pytest.mark.slow)


@pytest.mark.parametrize("attack", [pgd, fmn, SLOW])
def test_under_jit_and_scan_with_images_from_outside(attack):
    """There, arrays from outside are traced too, so that no check can read a value."""
    alone = attack(0.02, problem.LOGITS_FN)
    together = jax.jit(lambda eps: attack(eps, problem.LOGITS_FN))(0.02)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    _, scanned = jax.lax.scan(
        lambda carry, key: (carry, attack(0.02, problem.LOGITS_FN, key)), None, KEY[None]
    )
    np.testing.assert_allclose(scanned[0], alone, atol=1e-6)


@pytest.mark.parametrize("attack", [fmn, SLOW])
def test_over_networks_that_a_function_closes_over(attack):
    """Only the weights are traced, where no argument of the attack shows it."""
    weights = jnp.stack([problem.WEIGHTS, 2 * problem.WEIGHTS[:, ::-1]])
    together = jax.vmap(
        lambda weights: attack(0.02, lambda key, x: problem.centred(weights, key, x))
    )(weights)
    for one, result in zip(weights, together, strict=True):
        alone = attack(0.02, Partial(problem.centred, one))
        np.testing.assert_allclose(result, alone, atol=1e-6)


@pytest.mark.parametrize("attack", [pgd, fmn])
def test_radii_of_64_bits_on_images_of_32(attack):
    """Where 64 bits are enabled, NumPy and ``vmap`` give the search a radius of 64 bits."""
    alone = attack(0.02, problem.LOGITS_FN)
    with jax.enable_x64(True):
        number = attack(np.float64(0.02), problem.LOGITS_FN)
        (mapped,) = jax.vmap(lambda eps: attack(eps, problem.LOGITS_FN))(np.array([0.02]))
    for result in (number, mapped):
        assert result.dtype == alone.dtype
        np.testing.assert_allclose(result, alone, atol=1e-6)


def test_an_outer_gradient_stops_at_the_images_and_not_at_the_search():
    labels = problem.labels(problem.TWO_CLASSES)
    keys = prng.example_keys(KEY, len(IMAGES))

    def called(eps):
        adversarial = PGD("l2", eps, steps=2)(KEY, problem.TWO_CLASSES, IMAGES, labels)
        return jnp.sum((adversarial - IMAGES) ** 2)

    def searched(eps):
        adversarial = PGD("l2", eps, steps=2).perturb(keys, problem.TWO_CLASSES, IMAGES, labels)
        return jnp.sum((adversarial - IMAGES) ** 2)

    radius = jnp.float32(0.05)
    assert jax.grad(called)(radius) == 0
    value, slope = jax.jvp(searched, (radius,), (jnp.float32(1.0),))
    # All images move by the radius, along the gradient of a linear model and within the box.
    np.testing.assert_allclose(value, len(IMAGES) * radius**2, rtol=1e-5)
    np.testing.assert_allclose(slope, 2 * len(IMAGES) * radius, rtol=1e-5)


@pytest.mark.parametrize("attack", [
    PGD("linf", 0.02, steps=2, early_stop=True), FMN("linf", 0.02, steps=2),
    pytest.param(APGD("linf", 0.02, steps=2), marks=pytest.mark.slow),
], ids=lambda attack: type(attack).__name__)  # fmt: skip
def test_within_the_loss_of_adversarial_training(attack):
    """The adversarial images are constants for the gradient with respect to the weights."""

    def loss(weights, adversarial=None):
        if adversarial is None:
            adversarial = attack(KEY, Partial(problem.centred, weights), IMAGES, LABELS)
        return jnp.sum(problem.centred(weights, KEY, adversarial) ** 2)

    slope = jax.jit(jax.grad(loss))(problem.WEIGHTS)
    adversarial = attack(KEY, problem.LOGITS_FN, IMAGES, LABELS)
    np.testing.assert_allclose(slope, jax.grad(loss)(problem.WEIGHTS, adversarial), rtol=1e-4)
