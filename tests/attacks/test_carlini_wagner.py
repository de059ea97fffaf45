import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from vone_jax.attacks import losses, norms
from vone_jax.attacks.carlini_wagner import CW, Adam


def test_confidence_is_reached_and_costs_its_distance():
    """A margin of k in a linear classifier is k / |w| farther away."""
    images, labels = problem.IMAGES, problem.labels(problem.TWO_CLASSES)
    attack = CW("l2", 1.0, steps=200, initial_const=1e-2, confidence=0.5)
    result = attack.minimal(problem.KEY, problem.TWO_CLASSES, images, labels)
    assert np.all(result.found)
    margin = losses.margin(problem.TWO_CLASSES(problem.KEY, result.images), labels)
    assert np.all(margin > 0.5 - 1e-5)
    assert np.mean(margin) < 0.52
    np.testing.assert_allclose(norms.size(result.images - images, "l2"), result.distance, rtol=1e-6)


def test_each_image_searches_its_own_constant():
    """A classifier with a hundredth of the logits needs a hundred times the constant."""
    images, labels = problem.IMAGES, problem.labels(problem.TWO_CLASSES)

    def scaled(key, images):
        factor = jnp.where(jnp.arange(16) % 2 == 0, 1.0, 0.01)[:, None]
        return factor * problem.TWO_CLASSES(key, images)

    def run(binary_search_steps):
        attack = CW("l2", 1.0, 100, binary_search_steps, learning_rate=1e-3)
        return attack.minimal(problem.KEY, scaled, images, labels)

    optimum = problem.distances("l2", problem.TWO_CLASSES)
    far = optimum > 0.02
    few, many = run(3), run(9)
    assert not np.any(few.found[far & (np.arange(16) % 2 == 1)])
    assert np.all(many.found[far])
    assert np.all(many.distance[far] < 1.15 * optimum[far])


class Threshold(CW):
    """A run succeeds above a constant that the first pixel says, and its distance is its constant.

    So the distance after a search is the constant of its last run.
    """

    def _descend(self, keys, logits_fn, images, labels, closest, const):
        return closest._replace(distance=const), const > images[:, 0, 0, 0]


def test_a_constant_grows_tenfold_until_success_and_is_bisected_then():
    images, keys = jnp.asarray([0.05, 2.0]).reshape(2, 1, 1, 1), jax.random.split(problem.KEY, 2)
    arguments = keys, problem.LOGITS_FN, images, jnp.zeros(2, jnp.int32)
    expected = [[0.001, 0.01, 0.1, 0.055, 0.0325, 0.04375], [0.001, 0.01, 0.1, 1.0, 10.0, 5.5]]
    found = [Threshold("l2", 1.0, 1, steps).search(*arguments).distance for steps in range(1, 7)]
    np.testing.assert_allclose(np.transpose(found), expected, rtol=1e-6)


def test_black_and_white_pixels_come_back():
    """The first steps drive them out of the box, where the square of a float32 tanh is 1.

    A linear classifier of pixels at 0 and 1: the constant is far too large at first, so that all
    pixels saturate, and the distance of the boundary is found by those that can return.
    """
    weights = problem.WEIGHTS[:, :2]
    images = jnp.round(problem.IMAGES)
    logits_fn = Partial(problem.centred, weights)
    labels = jnp.argmax(logits_fn(problem.KEY, images), axis=-1)
    attack = CW("l2", 1.0, 400, 8, learning_rate=0.3, initial_const=10.0, abort_early=False)
    result = attack.minimal(problem.KEY, logits_fn, images, labels)
    slope = np.asarray(weights[:, 1] - weights[:, 0], np.float64)
    for image, label, distance in zip(images, labels, result.distance, strict=True):
        flat = np.asarray(image, np.float64).ravel()
        gap = abs((flat - 0.5) @ slope)
        # Only pixels with room move: the distance is that of the boundary in their subspace.
        away = np.sign(slope) * (1 if label == 0 else -1)
        free = slope[(away > 0) == (flat < 0.5)]
        assert gap / np.linalg.norm(free) * 0.999 < distance < 1.02 * gap / np.linalg.norm(free)


def test_adam_equals_optax():
    gradients = jax.random.normal(jax.random.key(0), (5, 2, 3))
    adam = Adam.start(gradients[0])
    reference = optax.scale_by_adam()
    with jax.numpy_dtype_promotion("standard"):
        state = reference.init(gradients[0])
        for number, gradient in enumerate(gradients):
            expected, state = reference.update(gradient, state)
            ours, adam = adam.direction(gradient, jnp.int32(number))
            np.testing.assert_allclose(ours, expected, rtol=2e-5)


def test_pixels_outside_the_box_by_rounding_are_attacked_as_those_at_its_border():
    """Resized images may have values such as 1 + 9e-7, where arctanh is not defined."""
    labels = problem.labels(problem.TWO_CLASSES)
    attack = CW("l2", 1.0, steps=20, binary_search_steps=2, learning_rate=0.1)
    at_border = problem.IMAGES.at[:, 0].set(1.0).at[:, 1].set(0.0)
    beyond = problem.IMAGES.at[:, 0].set(1 + 9e-7).at[:, 1].set(-9e-7)
    expected = attack.minimal(problem.KEY, problem.TWO_CLASSES, at_border, labels)
    result = attack.minimal(problem.KEY, problem.TWO_CLASSES, beyond, labels)
    np.testing.assert_array_equal(result.found, expected.found)
    np.testing.assert_allclose(result.images, expected.images, atol=1e-5)
