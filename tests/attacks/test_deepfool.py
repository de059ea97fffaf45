import jax.numpy as jnp
import numpy as np

from tests.attacks import linear_problem as problem
from vone_jax.attacks.deepfool import DeepFool


def test_only_the_named_number_of_classes_is_considered():
    """With one rival the distance is that to the class of the second highest logit."""
    images, labels = problem.IMAGES, problem.labels()
    logits = np.asarray(problem.LOGITS_FN(problem.KEY, images), np.float64)
    best, second = np.sort(logits, axis=1)[:, :0:-1].T
    weights = np.asarray(problem.WEIGHTS, np.float64)
    order = np.argsort(logits, axis=1)
    slope = np.linalg.norm(weights[:, order[:, -2]] - weights[:, order[:, -1]], axis=0)
    one = DeepFool("l2", 1.0, steps=2, classes=1)
    one = one.minimal(problem.KEY, problem.LOGITS_FN, images, labels)
    expected = 1.02 * ((best - second) / slope + 1e-4)
    np.testing.assert_allclose(one.distance, expected, rtol=1e-4)
    # For some image the third class is nearer, or this test would say nothing.
    assert np.any(expected > 1.02 * (problem.distances("l2") + 1e-4) * 1.01)


def test_a_curved_boundary_takes_several_steps():
    """Class 1 where sum(sqrt(x)) > 3: each step falls short, the steps end at the boundary."""
    images = jnp.full((1, 2, 2, 1), 0.1)

    def roots(key, images):
        score = jnp.sum(jnp.sqrt(images + 1e-6), axis=(1, 2, 3))
        return jnp.stack([score, jnp.full_like(score, 3.0)], axis=-1)

    labels = jnp.ones(1, jnp.int32)
    result = DeepFool("l2", 2.0, steps=20).minimal(problem.KEY, roots, images, labels)
    # Nearest point by symmetry: all values 9/16. The first step would end at a distance of 0.93
    # times the root, Newton's method for the square root then converges from below.
    optimum = 2 * (9 / 16 - 0.1)
    assert optimum < float(result.distance[0]) < 1.02 * (optimum + 5e-4)
