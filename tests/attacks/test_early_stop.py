"""PGD that stops an image once it is misclassified: for each image alone, and to save time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import prng
from vone_jax.attacks import PGD, norms

KEYS = prng.example_keys(problem.KEY, 16)
ATTACK = PGD("l2", 1.0, steps=400, step_size=0.01, early_stop=True)


def test_an_image_stays_at_its_first_misclassified_iterate():
    """On a linear classifier of two classes that is one step beyond the boundary at most."""
    images, labels = problem.IMAGES, problem.labels(problem.TWO_CLASSES)
    labels = labels.at[0].set(1 - labels[0])  # misclassified as it is
    adversarial = ATTACK(KEYS, problem.TWO_CLASSES, images, labels)
    wrong = jnp.argmax(problem.TWO_CLASSES(problem.KEY, adversarial), axis=-1) != labels
    assert np.all(wrong)
    distance = problem.distances("l2", problem.TWO_CLASSES)
    length = np.asarray(norms.size(adversarial - images, "l2"))
    np.testing.assert_array_equal(adversarial[0], images[0])
    assert np.all(length[1:] > distance[1:] - 1e-5) and np.all(length[1:] < distance[1:] + 0.0101)
    parts = [ATTACK(KEYS[part], problem.TWO_CLASSES, images[part], labels[part])
             for part in (slice(0, 8), slice(8, 16))]  # fmt: skip
    np.testing.assert_allclose(adversarial, jnp.concatenate(parts), atol=1e-6)


def test_a_target_has_to_be_reached():
    """Not any other class will do: with three, the way to the least likely leads through one."""
    targets = jnp.argmin(problem.LOGITS_FN(problem.KEY, problem.IMAGES), axis=-1)
    attack = dataclasses.replace(ATTACK, targeted=True, loss="margin")
    adversarial = attack(KEYS, problem.LOGITS_FN, problem.IMAGES, targets)
    reached = jnp.argmax(problem.LOGITS_FN(problem.KEY, adversarial), axis=-1)
    np.testing.assert_array_equal(reached, targets)
    assert np.all(norms.size(adversarial - problem.IMAGES, "l2") < 0.9)


def test_a_run_ends_when_all_images_have_stopped():
    calls = []

    def counted(key, images):
        jax.debug.callback(lambda: calls.append(1))
        return problem.TWO_CLASSES(key, images)

    labels = problem.labels(problem.TWO_CLASSES)
    ATTACK(KEYS, counted, problem.IMAGES, labels)
    jax.effects_barrier()
    longest = problem.distances("l2", problem.TWO_CLASSES).max() / ATTACK.step_size
    # One pass to look at the input, and one more step to see that the last image has fallen.
    assert longest < len(calls) <= longest + 4 < ATTACK.steps


def test_a_lucky_draw_among_several_stops_nothing():
    images = jax.random.uniform(jax.random.key(1), (50, 4, 4, 1))
    labels = jnp.zeros(50, jnp.int32)
    coin = Partial(toy.coin, jnp.float32(0.5))
    attack = PGD("linf", 0.1, steps=3, step_size=0.05, early_stop=True, eot_samples=20)
    moved = norms.size(attack(problem.KEY, coin, images, labels) - images, "linf")
    np.testing.assert_allclose(moved, 0.1, rtol=1e-5)
