import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax.attacks import norms

SHAPE = (4, 3, 2)


@pytest.fixture(scope="module")
def deltas():
    return jax.random.normal(jax.random.key(0), (6, *SHAPE)) * jnp.asarray(
        [0.01, 0.1, 1.0, 2.0, 5.0, 0.0], jnp.float32
    ).reshape(6, 1, 1, 1)


@pytest.mark.parametrize(("norm", "order"), [("linf", np.inf), ("l2", 2), ("l1", 1)])
def test_size_equals_numpy(deltas, norm, order):
    expected = np.linalg.norm(np.asarray(deltas).reshape(6, -1), ord=order, axis=1)
    np.testing.assert_allclose(norms.size(deltas, norm), expected, rtol=1e-6)


@pytest.mark.parametrize("norm", norms.NORMS)
def test_the_size_of_a_change_with_nan_is_nan(norm):
    changes = np.zeros((2, 64, 64, 3), np.float32)
    changes[1, 40, 2, 1] = np.nan
    sizes = jax.jit(lambda changes: norms.size(changes, norm))(changes)
    np.testing.assert_array_equal(np.isnan(sizes), [False, True])


@pytest.mark.parametrize("norm", norms.NORMS)
@pytest.mark.parametrize(
    "project", [lambda delta, norm, eps: norms.of(norm).project(delta, eps), norms.project_nearest]
)
def test_projection_ends_in_the_ball_and_keeps_what_is_inside(deltas, norm, project):
    eps = 0.8
    projected = project(deltas, norm, eps)
    before, after = norms.size(deltas, norm), norms.size(projected, norm)
    assert np.all(after <= eps * (1 + 1e-6))
    np.testing.assert_allclose(after, np.minimum(before, eps), rtol=1e-5)
    np.testing.assert_array_equal(projected[before <= eps], deltas[before <= eps])
    np.testing.assert_array_equal(project(deltas, norm, 0.0), 0 * deltas)


def nearest_by_sorting(delta, room, eps):
    """Projection onto ball and box in float64: walks the sorted breakpoints of its length."""
    magnitude = np.abs(delta)

    def shrink(threshold):
        return np.clip(magnitude - threshold, 0, room)

    if shrink(0.0).sum() <= eps:
        return np.sign(delta) * shrink(0.0)
    knots = np.unique(np.concatenate([[0.0], magnitude, np.maximum(magnitude - room, 0)]))
    lengths = np.array([shrink(knot).sum() for knot in knots])
    last = np.flatnonzero(lengths > eps)[-1]
    part = (lengths[last] - eps) / (lengths[last] - lengths[last + 1])
    return np.sign(delta) * shrink(knots[last] + part * (knots[last + 1] - knots[last]))


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.8, 6.0, 1000.0])
def test_exact_l1_projections_are_the_nearest_points(deltas, eps):
    images = jax.random.uniform(jax.random.key(5), deltas.shape)
    images = jnp.where(images > 0.3, jnp.round(2 * images) / 2, images)
    ball = np.asarray(norms.project_nearest(deltas, "l1", eps))
    both = np.asarray(norms.project_l1_box(images, deltas, eps))
    for i in range(6):
        delta, image = np.asarray(deltas[i], np.float64), np.asarray(images[i], np.float64)
        room = np.where(delta > 0, 1 - image, image)
        expected = nearest_by_sorting(delta.ravel(), np.full(delta.size, np.inf), eps)
        np.testing.assert_allclose(ball[i].ravel(), expected, rtol=2e-6, atol=1e-6)
        expected = nearest_by_sorting(delta.ravel(), room.ravel(), eps)
        np.testing.assert_allclose(both[i].ravel(), expected, rtol=2e-6, atol=1e-6)
        for ours in (ball[i], both[i]):
            assert np.abs(ours.astype(np.float64)).sum() <= eps * (1 + 2**-22)
        assert np.all(image + both[i] >= 0) and np.all(image + both[i] <= 1 + 2**-24)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_direction_is_the_steepest_of_norm_one(norm):
    """It attains the dual norm of the gradient, also for tiny gradients; zero stays zero."""
    gradient = jax.random.normal(jax.random.key(1), (3, *SHAPE))
    dual = {"linf": "l1", "l2": "l2"}[norm]
    for scale in (1.0, 1e-30):
        ascent = norms.of(norm).direction(gradient * scale)
        np.testing.assert_allclose(norms.size(ascent, norm), 1.0, rtol=1e-5)
        gain = jnp.sum(ascent * gradient, axis=(1, 2, 3))
        np.testing.assert_allclose(gain, norms.size(gradient, dual), rtol=1e-5)
    zero = jnp.zeros_like(gradient)
    np.testing.assert_array_equal(norms.of(norm).direction(zero), zero)


def test_dense_l1_direction_is_the_gradient_over_its_l1_norm():
    gradient = jax.random.normal(jax.random.key(1), (3, *SHAPE))
    way = norms.L1().direction(gradient)
    expected = gradient / jnp.abs(gradient).sum(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(way, expected, rtol=1e-5)


def test_sparse_direction_takes_as_many_values_as_each_example_asks_for():
    gradient = jnp.arange(-4.0, 8.0).reshape(1, 2, 6, 1) * jnp.ones((4, 1, 1, 1))
    way = norms.sparse_direction(gradient, jnp.asarray([0.0, 2.9, 4.0, 99.0])).reshape(4, -1)
    assert np.count_nonzero(way, axis=1).tolist() == [1, 2, 5, 11]  # -4 ties with 4; 0 stays
    np.testing.assert_allclose(jnp.abs(way).sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(way[2, [0, 8]], [-1 / 5, 1 / 5], rtol=1e-6)


@pytest.mark.parametrize("norm", norms.NORMS)
def test_direction_does_not_lose_nan(norm):
    gradient = jnp.ones((1, *SHAPE)).at[0, 0, 0, 0].set(jnp.nan)
    assert np.isnan(norms.of(norm).direction(gradient)).any()


@pytest.mark.parametrize("norm", norms.NORMS)
def test_random_points_fill_the_ball_evenly(norm):
    """The volume of a ball grows as r^d, so (r / eps)^d is uniform on [0, 1]."""
    keys = jax.vmap(jax.random.key)(jnp.arange(4000))
    points = norms.of(norm).sample(keys, (2, 2, 1), 0.5, jnp.float32)
    volume = np.sort(np.asarray(norms.size(points, norm) / 0.5) ** 4)
    even = (np.arange(4000) + 0.5) / 4000
    assert np.abs(volume - even).max() < 1.95 / np.sqrt(4000)  # Kolmogorov-Smirnov, p = .001
    assert np.abs(np.asarray(points).mean(axis=0)).max() < 0.03
