"""The course of an attack against closed forms, and its queries by count."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import attacks

LABELS = problem.labels(problem.TWO_CLASSES)
NOISY = Partial(toy.with_noise, problem.TWO_CLASSES, jnp.float32(0.1))


def trace(attack, logits_fn=problem.TWO_CLASSES):
    return attack.trace(problem.KEY, logits_fn, problem.IMAGES, LABELS)


def test_each_step_raises_a_linear_margin_by_the_step_times_the_dual_norm():
    attack = attacks.PGD("linf", 0.05, steps=5, step_size=0.01, loss="margin")
    found = trace(attack)
    weights = problem.TWO_CLASSES.args[0]
    rise = 0.01 * float(jnp.abs(weights[:, 1] - weights[:, 0]).sum())
    assert found.losses.shape == (5, 16)
    np.testing.assert_allclose(np.diff(found.losses, axis=0), rise, rtol=1e-4)
    called = attack(problem.KEY, problem.TWO_CLASSES, problem.IMAGES, LABELS)
    np.testing.assert_array_equal(found.images, called)


def test_the_losses_are_those_that_the_attack_raises():
    """A function of the user's, on the images that are known: the start and one step."""

    def loss(logits, labels):
        return 3 * logits[:, 0]

    attack = attacks.PGD("linf", 0.05, steps=2, step_size=0.05, loss=loss)
    weights = problem.TWO_CLASSES.args[0]
    moved = problem.IMAGES + 0.05 * jnp.sign(weights[:, 0]).reshape(1, 5, 10, 1)
    expected = [loss(problem.TWO_CLASSES(None, x), LABELS) for x in (problem.IMAGES, moved)]
    np.testing.assert_allclose(trace(attack).losses, np.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("attack", "evaluations", "queries"),
    [
        (attacks.PGD("linf", 0.1, steps=3, eot_samples=4), 3, 12),
        (attacks.Transfer(attacks.PGD("linf", 0.1, steps=3, eot_samples=4), NOISY), 3, 12),
        # The clean image, and two passes for each query.
        (attacks.Square("linf", 0.1, queries=5, eot_samples=2), 1 + 2 * 5, 2 + 4 * 5),
        # Two runs of two steps, and 20 draws for the image of each.
        (attacks.PGD("linf", 0.01, 2, random_start=True, restarts=2), 2 * 3, 2 * (2 + 20)),
        # Both sides of each direction.
        (attacks.SPSA("linf", 0.1, steps=2, samples=3), 2 * 3, 2 * 3 * 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_pass_of_a_classifier_with_noise_is_counted(attack, evaluations, queries):
    found = trace(attack, NOISY)
    assert (len(found.losses), found.queries) == (evaluations, queries)
    assert np.all(np.isfinite(found.losses))


def test_the_images_are_those_of_the_call_with_noise():
    attack = attacks.PGD("linf", 0.1, steps=3, eot_samples=4)
    called = attack(problem.KEY, NOISY, problem.IMAGES, LABELS)
    np.testing.assert_allclose(trace(attack, NOISY).images, called, atol=1e-6)


def test_without_noise_the_draws_are_one_pass():
    assert trace(attacks.PGD("linf", 0.1, steps=3, eot_samples=4)).queries == 3
