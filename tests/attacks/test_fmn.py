import jax.numpy as jnp
import numpy as np
import pytest

from tests.attacks import linear_problem as problem
from vone_jax.attacks import fmn
from vone_jax.attacks.fmn import DDN, FMN


def test_one_step_lies_on_the_first_sphere_changed_by_gamma():
    """From the image itself, which is not adversarial, to radius 1.05 along the gradient."""
    images, labels = problem.IMAGES, problem.labels(problem.TWO_CLASSES)
    attack = DDN("l2", 1.0, steps=1, initial_norm=0.2)
    result = attack.minimal(problem.KEY, problem.TWO_CLASSES, images, labels)
    np.testing.assert_allclose(result.distance[result.found], 0.21, rtol=1e-5)
    assert np.all(
        result.found == (result.found & (problem.distances("l2", problem.TWO_CLASSES) < 0.21))
    )
    assert np.sum(result.found) > 10


def test_steps_fall_along_a_cosine():
    values = fmn.cosine(100, 1.0, 0.01, jnp.float32)
    expected = 0.01 + 0.99 * (1 + np.cos(np.pi * np.arange(100) / 100)) / 2
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_a_vanishing_gradient_is_replaced_by_a_random_direction():
    """Scores that are rounded have no gradient; half of all directions cross this boundary."""
    images = jnp.full((16, 2, 2, 1), 0.5)

    def rounded(key, images):
        evidence = jnp.round(10 * (jnp.sum(images, axis=(1, 2, 3)) - 2.0)) / 10
        return jnp.stack([jnp.full_like(evidence, 0.05), evidence], axis=-1)

    labels = jnp.zeros(16, jnp.int32)
    attack = DDN("l2", 1.0, steps=10, initial_norm=0.5)
    result = attack.minimal(problem.KEY, rounded, images, labels)
    assert np.sum(result.found) > 4  # without the replacement none


@pytest.mark.parametrize("second", [0.0, 1.0])
def test_a_search_is_the_algorithm_of_its_description(second):
    """In NumPy, for two pixels: the first decides, because the second cannot move beyond 1.

    The weight of the second one is 0 or that of the first, which leaves points within the ball.
    """
    slope = np.asarray([1.0, second]) / np.hypot(1.0, second)

    def logits_fn(key, images):
        evidence = images[:, 0, 0, 0] - 0.5 + second * (images[:, 0, 1, 0] - 1.0)
        return jnp.stack([jnp.zeros_like(evidence), evidence], axis=-1)

    steps = 20
    lengths, gammas = (
        np.asarray(fmn.cosine(steps, first, last, jnp.float32))
        for first, last in ((1.0, 0.01), (0.05, 0.001))
    )
    moved, radius, closest, inside = 0.0, 0.0, np.inf, 0
    for length, gamma in zip(lengths, gammas, strict=True):
        gap = 0.3 - moved
        closest = min(closest, moved) if gap < 0 else closest
        if closest == np.inf:
            radius = max(radius, moved + gap * slope[0])
        if gap < 0:
            inside += closest < radius * (1 - gamma)
            radius = min(radius * (1 - gamma), closest)
        else:
            radius = radius * (1 + gamma)
        ahead = np.asarray([moved, 0.0]) + length * slope
        moved = ahead[0] * min(1.0, radius / np.linalg.norm(ahead))
    closest = min(closest, moved) if moved > 0.3 else closest
    assert (inside > 0) == bool(second) and 0.3 < closest < 0.31
    image = jnp.asarray([0.2, 1.0]).reshape(1, 1, 2, 1)
    result = FMN("l2", 1.0, steps=steps).minimal(problem.KEY, logits_fn, image, jnp.zeros(1, int))
    np.testing.assert_allclose(result.distance, closest, rtol=1e-5)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_pixels_on_the_border_do_not_keep_it_from_the_boundary(norm):
    """The ball of the linearised boundary is too small where its own pixels cannot move."""
    rng = np.random.default_rng(0)
    weights, images = rng.normal(size=16).astype(np.float32), rng.random((32, 16), np.float32)
    images[rng.random(images.shape) < 0.5] = 0.0
    # Half of the way to the farthest point of the box.
    room = np.where(weights < 0, images, 1.0 - images)
    gap = 0.5 * (room * np.abs(weights)).sum(axis=1)

    def linear(key, images):
        flat = images.reshape(images.shape[0], 16)
        evidence = (flat - starts) @ weights - gap
        return jnp.stack([jnp.zeros_like(evidence), evidence], axis=-1)

    starts = jnp.asarray(images)
    attack = FMN(norm, 1.0, steps=100)
    labels = jnp.zeros(32, jnp.int32)
    result = attack.minimal(problem.KEY, linear, starts.reshape(32, 4, 4, 1), labels)
    assert np.all(result.found)
    if norm == "l1":
        # The closest point moves the pixels of the largest weights as far as they go.
        order = np.argsort(-np.abs(weights))
        gained = np.cumsum(room[:, order] * np.abs(weights[order]), axis=1)
        moved = np.cumsum(room[:, order], axis=1)
        exact = [np.interp(g, [0, *a], [0, *b]) for g, a, b in zip(gap, gained, moved, strict=True)]
        np.testing.assert_allclose(result.distance, exact, rtol=0.1)
