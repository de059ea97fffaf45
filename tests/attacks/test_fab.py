import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from tests.attacks import linear_problem as problem
from vone_jax.attacks import fab, norms
from vone_jax.attacks.fab import FAB


def smallest(point, normal, residual, norm):
    """The projection by general solvers in float64: linear programs, and SLSQP for L2."""
    count = point.size
    box = list(zip(-point, 1 - point, strict=True))
    if norm == "l2":
        result = optimize.minimize(
            lambda delta: delta @ delta, np.zeros(count), jac=lambda delta: 2 * delta,
            bounds=box, method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
            constraints={"type": "eq", "fun": lambda delta: normal @ delta + residual,
                         "jac": lambda delta: normal},
        )  # fmt: skip
        assert result.success
        return result.x
    # Variables delta and its bounds t: one for all values, or one for each.
    extra = 1 if norm == "linf" else count
    ones = np.ones((count, 1)) if norm == "linf" else np.eye(count)
    bounds = np.block([[np.eye(count), -ones], [-np.eye(count), -ones]])
    result = optimize.linprog(
        np.append(np.zeros(count), np.ones(extra)), A_ub=bounds, b_ub=np.zeros(2 * count),
        A_eq=np.append(normal, np.zeros(extra))[None], b_eq=[-residual],
        bounds=box + [(0, None)] * extra,
    )  # fmt: skip
    assert result.success
    return result.x[:count]


@pytest.fixture(scope="module")
def planes():
    """Points with half of their values on the border, and hyperplanes that meet the box."""
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(12, 2, 4, 1)).astype(np.float32)
    points = np.where(points > 0.5, np.round(points), points)
    normals = rng.standard_normal(points.shape).astype(np.float32)
    normals[0, 0, 0, 0] = 0
    # The residual of another point of the box: for it the projection has to move.
    others = rng.uniform(size=points.shape)
    return points, normals, np.sum(normals * (points - others), axis=(1, 2, 3)).astype(np.float32)


@pytest.mark.parametrize("norm", norms.NORMS)
def test_projection_equals_general_solvers(planes, norm):
    points, normals, residuals = planes
    ours = np.asarray(
        jax.jit(fab.project_onto_hyperplane, static_argnums=3)(*planes, norm), np.float64
    )
    lengths = norms.size(jnp.asarray(ours, jnp.float32), norm)
    for i in range(12):
        point, normal = points[i].astype(np.float64).ravel(), normals[i].astype(np.float64).ravel()
        delta = ours[i].ravel()
        assert np.all(point + delta >= -1e-6) and np.all(point + delta <= 1 + 1e-6)
        np.testing.assert_allclose(normal @ delta, -residuals[i], atol=2e-6)
        expected = smallest(point, normal, float(residuals[i]), norm)
        order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
        np.testing.assert_allclose(lengths[i], np.linalg.norm(expected, ord=order), rtol=1e-5)
        if norm == "l2":  # the only norm in which the projection is one point
            np.testing.assert_allclose(delta, expected, atol=1e-5)


@pytest.mark.parametrize("norm", norms.NORMS)
def test_projection_at_its_limits(planes, norm):
    points, normals, residuals = planes
    project = jax.jit(fab.project_onto_hyperplane, static_argnums=3)
    ours = project(points, normals, residuals, norm)
    # The plane is the same whatever the unit of its normal.
    tiny = project(points, normals * 2.0**-80, residuals * 2.0**-80, norm)
    np.testing.assert_allclose(tiny, ours, atol=1e-6)
    # Out of reach, the answer is the corner of the box that is nearest to the plane.
    corner = project(points, normals, np.full(12, -1e3, np.float32), norm)
    moved = normals != 0
    np.testing.assert_allclose((points + corner)[moved], (normals > 0)[moved], atol=1e-6)
    # No plane, or already on it: nothing moves.
    np.testing.assert_array_equal(project(points, 0 * normals, residuals, norm), 0 * points)
    np.testing.assert_array_equal(project(points, normals, 0 * residuals, norm), 0 * points)
    assert np.isnan(project(points, normals * np.nan, residuals, norm)).all()


@pytest.mark.parametrize(("norm", "targets"), [("linf", None), ("l2", 2)])
def test_more_steps_approach_the_boundary(norm, targets):
    """Both forms consider all classes of three here, at once or one after the other."""
    images, labels = problem.IMAGES, problem.labels()
    optimum, rounding = problem.distances(norm), problem.rounding(norm)
    attack = FAB(norm, 1.0, steps=20, targets=targets)
    result = attack.minimal(problem.KEY, problem.LOGITS_FN, images, labels)
    assert np.all(result.distance > optimum * (1 - 1e-5) - rounding) and np.all(result.found)
    # In turn .9 and 1.05 lead towards the boundary, for any start to within 1.0055 of it.
    assert np.all(result.distance < 1.0055 * optimum + 2 * rounding)


@pytest.mark.parametrize(
    ("norm", "offset", "targeted"), [("linf", 0.0, False), ("l2", 0.0, True), ("l1", 1e-8, False)]
)
def test_an_image_on_the_boundary_is_not_stuck_there(norm, offset, targeted):
    """The logits of both classes are equal, or apart by less than the rounding of a pixel."""
    images = jnp.full((2, 5, 10, 1), 0.5)

    def tied(key, images):
        logits = problem.TWO_CLASSES(key, images)
        return logits + jnp.asarray([[offset, 0.0]], images.dtype)

    # Leaving the first class is reaching the second one.
    labels = jnp.full(2, int(targeted), jnp.int32)
    result = FAB(norm, 1.0, steps=3, targeted=targeted).minimal(problem.KEY, tied, images, labels)
    assert np.all(result.found)
    assert np.all(result.distance < 1e-4)


@pytest.mark.slow
def test_restarts_begin_elsewhere():
    """The first run stands where the score is flat, in the middle of a ditch of width 0.04."""
    images = jnp.full((6, 2, 2, 1), 0.5)

    def ditch(key, images):
        evidence = 10 * jax.nn.relu(jnp.abs(images[:, 0, 0, 0] - 0.5) - 0.02)
        return jnp.stack([jnp.full_like(evidence, 0.1), evidence], axis=-1)

    assert np.all(jax.grad(lambda x: jnp.sum(ditch(problem.KEY, x)))(images) == 0)
    labels = jnp.zeros(6, jnp.int32)
    attack = FAB("linf", 0.4, steps=15, restarts=4)
    result = attack.minimal(problem.KEY, ditch, images, labels)
    assert np.all(result.found)
    np.testing.assert_allclose(result.distance, 0.03, rtol=0.02)
