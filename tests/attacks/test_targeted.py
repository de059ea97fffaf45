"""Attacks towards a class, and where one is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import evaluation
from vone_jax.attacks import APGD, PGD, Transfer, norms

KEY = problem.KEY


@pytest.mark.parametrize("norm", norms.NORMS)
def test_auto_pgd_reaches_a_class_up_to_the_distance_of_its_boundary(norm):
    """With two classes the target is the other one, and its distance the closed form."""
    targets = 1 - problem.labels(problem.TWO_CLASSES)
    distance = problem.distances(norm, problem.TWO_CLASSES)
    eps = float(np.median(distance))
    attack = APGD(norm, eps, steps=60, loss="margin", targeted=True)
    adversarial = attack(KEY, problem.TWO_CLASSES, problem.IMAGES, targets)
    logits = problem.TWO_CLASSES(KEY, adversarial)
    found = np.asarray(jnp.argmax(logits, axis=-1) == targets)
    sure = np.abs(distance - eps) > 0.02 * eps
    np.testing.assert_array_equal(found[sure], (distance < eps)[sure])
    assert 4 < found.sum() < 12


def test_accuracy_under_a_targeted_attack_is_refused():
    """With the true classes for targets it would raise the accuracy in silence."""
    attack = PGD("linf", 0.1, steps=1, targeted=True)
    blind = jax.tree_util.Partial(toy.linear, jnp.zeros((50, 3)))
    for attacks in (attack, [PGD("linf", 0.1), attack], Transfer(attack, blind)):
        with pytest.raises(ValueError, match="attack must be untargeted"):
            evaluation.robust_accuracy(
                KEY, problem.LOGITS_FN, problem.IMAGES, problem.labels(), attack=attacks
            )
