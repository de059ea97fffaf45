import numpy as np
import pytest

from tests.attacks import linear_problem as problem
from vone_jax.attacks import norms
from vone_jax.attacks.fmn import FMN


@pytest.mark.parametrize("norm", norms.NORMS)
def test_linear_classifier_to_within_half_a_percent(norm):
    """L2 as well: its projection has to project."""
    images, labels = problem.IMAGES, problem.labels(problem.TWO_CLASSES)
    optimum, rounding = problem.distances(norm, problem.TWO_CLASSES), problem.rounding(norm)
    result = FMN(norm, 1.0).minimal(problem.KEY, problem.TWO_CLASSES, images, labels)
    assert np.all(result.found)
    assert np.all(result.distance > optimum * (1 - 1e-5) - rounding)
    assert np.all(result.distance < 1.005 * optimum + 2 * rounding)


def test_first_radius_is_that_of_the_linearised_boundary_and_gamma():
    images, labels = problem.IMAGES, problem.labels(problem.TWO_CLASSES)
    result = FMN("l2", 1.0, steps=1).minimal(problem.KEY, problem.TWO_CLASSES, images, labels)
    expected = 1.05 * problem.distances("l2", problem.TWO_CLASSES)
    assert np.all(result.found)
    np.testing.assert_allclose(result.distance, expected, rtol=1e-5, atol=problem.rounding("l2"))


def test_bad_fields_are_refused():
    with pytest.raises(ValueError, match="norm must be one of linf, l2, l1"):
        FMN("l0", 0.5)
    with pytest.raises(ValueError, match="last_gamma must be a finite number"):
        FMN("l2", 0.5, last_gamma=float("nan"))
