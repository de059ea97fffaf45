"""Manifold geometry against closed forms, SciPy and published rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from vone_jax.perception import glue

pytestmark = pytest.mark.usefixtures("optimised")


def key(seed=0):
    return jax.random.key(seed)


def spheres(radius, dimension, manifolds=3, features=40, points=60, seed=0):
    """Points on spheres in orthogonal spaces, around orthogonal centres of length 1."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.normal(size=(features, features)))[0]
    made = []
    for place in range(manifolds):
        on = random.normal(size=(points, dimension))
        on *= radius / np.linalg.norm(on, axis=1, keepdims=True)
        first = manifolds + place * dimension
        made.append(basis[place] + on @ basis[first : first + dimension])
    return np.stack(made).astype(np.float32)


def test_orthogonal_points_have_the_capacity_of_cover():
    found = glue.glue(key(), np.eye(6, dtype=np.float32)[:, None], draws=600)
    assert found.capacity.low < 2.0 < found.capacity.high
    assert found.capacity.value == pytest.approx(2.0, rel=0.1)
    assert found.active == pytest.approx(0.5, abs=0.02)
    assert found.radius.value == found.dimension.value == 0.0


# The capacities of three spheres together come from 600 directions of independent code.
@pytest.mark.parametrize(
    ("radius", "dimension", "capacity"),
    [
        (1.0, 3, 0.527),
        pytest.param(0.5, 5, 0.607, marks=pytest.mark.slow),
        pytest.param(0.2, 5, 1.139, marks=pytest.mark.slow),
    ],
)
def test_spheres_have_their_capacity_radius_and_dimension(radius, dimension, capacity):
    # The hull of fewer points is smaller than the ball.
    found = glue.glue(key(), spheres(radius, dimension, points=150), draws=300)
    assert found.capacity.value == pytest.approx(capacity, rel=0.08)
    assert found.radius.value == pytest.approx(radius, rel=0.06)
    assert found.dimension.value == pytest.approx(dimension, rel=0.12)


def reference(points, draws, seed=11):
    """GLUE in float64 by SciPy's active sets, over the manifolds that touch each plane."""
    random = np.random.default_rng(seed)
    count, size, features = points.shape
    directions = random.normal(size=(draws, features))
    anchors, moved = np.zeros((draws, count, features)), np.zeros(draws)
    for draw, direction in enumerate(directions):
        signs = random.choice([-1.0, 1.0], size=(count, 1, 1))
        weights, _ = scipy.optimize.nnls(-(points * signs).reshape(-1, features).T, direction)
        weights = weights.reshape(count, size)
        moved[draw] = np.sum(np.einsum("pm,pmn->n", weights, points * signs) ** 2)
        total = weights.sum(axis=1, keepdims=True)
        anchors[draw] = np.einsum("pm,pmn->pn", weights, points) / np.maximum(total, 1e-12)
    touching = np.any(anchors != 0, axis=2, keepdims=True)
    centres, sums = anchors.sum(axis=0) / touching.sum(axis=0), np.zeros(3)
    for anchor, on, direction in zip(anchors, touching, directions, strict=True):
        varied = anchor - centres * on
        g0, g1, along = (centres * on) @ (centres * on).T, varied @ varied.T, varied @ direction
        outer = np.linalg.pinv(g1 + g1 @ np.linalg.pinv(g0) @ g1)
        inverses = (np.linalg.pinv(g1), np.linalg.pinv(g0 + g1), outer)
        sums += [along @ each @ along / draws for each in inverses]
    unit = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    alignment = (np.sum(unit @ unit.T) - count) / (count * (count - 1))
    dimension = sums[0] / touching.sum(axis=1).mean()
    return count / moved.mean(), (sums[1] / sums[2]) ** 0.5, dimension, alignment


def test_manifolds_with_common_centres_have_the_numbers_of_independent_code():
    random = np.random.default_rng(4)
    points = 0.5 * random.normal(size=(1, 1, 25)) + random.normal(size=(4, 1, 25))
    points = points + 0.8 * random.normal(size=(4, 30, 25))
    capacity, radius, dimension, alignment = reference(points, 400)
    found = glue.glue(key(), points.astype(np.float32), draws=400)
    assert found.capacity.value == pytest.approx(capacity, rel=0.08)
    assert found.radius.value == pytest.approx(radius, rel=0.05)
    assert found.dimension.value == pytest.approx(dimension, rel=0.05)
    assert found.centre_alignment.value == pytest.approx(alignment, abs=0.03)


@pytest.mark.parametrize("common", [0.0, 15.0])
def test_the_nearest_plane_is_that_of_scipy(common):
    """Also for points that have most of their length in common, which gradients do not solve."""
    random = np.random.default_rng(3)
    points = random.normal(size=(3, 8, 12)) + 2 * random.normal(size=(3, 1, 12)) + common
    directions = random.normal(size=(4, 12))
    signs = random.choice([-1.0, 1.0], size=(4, 3))
    moved, left, weights = glue._project_on_cone(
        *(jnp.float32(each) for each in (points, directions, signs))
    )
    for place in range(4):
        rows = np.concatenate(points * signs[place][:, None, None])
        exact, rest = scipy.optimize.nnls(-rows.T, directions[place])
        assert float(moved[place]) == pytest.approx(np.sum((exact @ rows) ** 2), rel=5e-3)
        # ||t + G' w|| is the length of the vector that classifies all points.
        assert float(left[place]) ** 0.5 == pytest.approx(rest, rel=5e-3)
        kept = directions[place] + np.asarray(weights[place]).ravel() @ rows
        assert np.min(rows @ kept) > -5e-3 * np.linalg.norm(rows, axis=1).max()


def test_manifolds_that_no_plane_separates_have_no_capacity():
    random = np.random.default_rng(1)
    points = random.normal(size=(20, 1, 4)) + 0.5 * random.normal(size=(20, 10, 4))
    with pytest.raises(glue.NotSeparableError, match="not defined"):
        glue.glue(key(), points.astype(np.float32), draws=40)


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_a_linear_reader_tells_two_clouds_as_often_as_normal_variables_say(distance):
    """Along a quiet direction, beside one with a hundred times the noise and no difference."""
    random = np.random.default_rng(2)
    one, other = random.normal(size=(2, 4, 400, 4)) * np.array([1.0, 100.0, 1.0, 1.0])
    other[:, :, 0] += distance
    # The reader does not know the covariance, but the quiet direction is told from the loud one.
    rotation = np.linalg.qr(random.normal(size=(4, 4)))[0]
    told, apart = glue.separability(one[..., [0, 2, 3]], other[..., [0, 2, 3]])
    assert told.mean() == pytest.approx(scipy.stats.norm.cdf(distance / 2), abs=0.03)
    assert apart.mean() == pytest.approx(distance / 3**0.5, abs=0.12)
    turned, _ = glue.separability(one @ rotation, other @ rotation)
    assert turned.mean() == pytest.approx(told.mean(), abs=0.05)


def test_the_reader_has_the_covariance_of_ledoit_and_wolf():
    random = np.random.default_rng(0)
    spread = random.normal(size=(7, 5)) * np.array([1.0, 2.0, 0.5, 1.0, 3.0])
    sample, difference = spread.T @ spread / 7, random.normal(size=5)
    round_ = np.trace(sample) / 5 * np.eye(5)
    error = sum(np.sum((np.outer(row, row) - sample) ** 2) for row in spread) / 7**2
    share = error / np.sum((sample - round_) ** 2)
    assert 0.1 < share < 0.9
    expected = np.linalg.solve((1 - share) * sample + share * round_, difference)
    np.testing.assert_allclose(glue._discriminant(spread, difference), expected)


def test_single_points_are_told_apart_unless_they_are_the_same():
    point = np.ones((1, 4, 3))
    (told,), (apart,) = glue.separability(point, 2 * point)
    assert told == 1.0 and np.isinf(apart)
    assert glue.separability(point, point)[0] == [0.5]


def test_scale_and_rotation_change_nothing_and_shared_directions_align_the_centres():
    points = spheres(0.5, 4)
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(40, 40)))[0]
    one = glue.glue(key(), points, draws=100)
    scaled = glue.glue(key(), 7 * points, draws=100)
    turned = glue.glue(key(9), (points @ turn).astype(np.float32), draws=100)
    assert scaled.capacity.value == pytest.approx(one.capacity.value, rel=1e-3)
    assert turned.capacity.value == pytest.approx(one.capacity.value, rel=0.2)
    assert glue.glue(key(), points, draws=100) == one != turned
    shared = points + np.float32(2.0) * np.eye(40, dtype=np.float32)[-1]
    together = glue.glue(key(), shared, draws=100)
    assert abs(one.centre_alignment.value) < 1e-5 < 0.5 < together.centre_alignment.value


def test_points_that_are_not_finite_are_an_error():
    points = spheres(0.5, 4)
    points[1, 2, 3] = np.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        glue.glue(key(), points, draws=20)
