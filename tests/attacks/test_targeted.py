"""Attacks towards a class, and where one is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import evaluation
from vone_jax.attacks import APGD, FAB, PGD, DeepFool, Transfer, norms

KEY = problem.KEY


def reached(images, targets, logits_fn=problem.LOGITS_FN):
    return np.asarray(jnp.argmax(logits_fn(KEY, images), axis=-1) == targets)


@pytest.mark.parametrize("norm", norms.NORMS)
def test_auto_pgd_reaches_a_class_up_to_the_distance_of_its_boundary(norm):
    """With two classes the target is the other one, and its distance the closed form."""
    targets = 1 - problem.labels(problem.TWO_CLASSES)
    distance = problem.distances(norm, problem.TWO_CLASSES)
    eps = float(np.median(distance))
    attack = APGD(norm, eps, steps=60, loss="margin", targeted=True)
    adversarial = attack(KEY, problem.TWO_CLASSES, problem.IMAGES, targets)
    found = reached(adversarial, targets, problem.TWO_CLASSES)
    sure = np.abs(distance - eps) > 0.02 * eps
    np.testing.assert_array_equal(found[sure], (distance < eps)[sure])
    assert 4 < found.sum() < 12


@pytest.mark.parametrize(
    "attack", [FAB("l1", 1.0, steps=20, targeted=True), DeepFool("linf", 1.0, targeted=True)],
    ids=["FAB", "DeepFool"],
)  # fmt: skip
def test_the_linearised_attacks_find_the_distance_of_the_boundary(attack):
    targets = 1 - problem.labels(problem.TWO_CLASSES)
    result = attack.minimal(KEY, problem.TWO_CLASSES, problem.IMAGES, targets)
    assert np.all(result.found) and np.all(reached(result.images, targets, problem.TWO_CLASSES))
    distance = problem.distances(attack.norm, problem.TWO_CLASSES)
    if isinstance(attack, DeepFool):  # in one step, up to its overshoot and its small extra
        np.testing.assert_allclose(result.distance, 1.02 * (distance + 1e-4), rtol=1e-4)
    else:  # as without a target
        rounding = problem.rounding(attack.norm)
        assert np.all(result.distance > distance * (1 - 1e-5) - rounding)
        assert np.all(result.distance < 1.0055 * distance + 2 * rounding)


def test_accuracy_under_a_targeted_attack_is_refused():
    """With the true classes for targets it would raise the accuracy in silence."""
    attack = PGD("linf", 0.1, steps=1, targeted=True)
    blind = jax.tree_util.Partial(toy.linear, jnp.zeros((50, 3)))
    for attacks in (attack, [PGD("linf", 0.1), attack], Transfer(attack, blind)):
        with pytest.raises(ValueError, match="attack must be untargeted"):
            evaluation.robust_accuracy(
                KEY, problem.LOGITS_FN, problem.IMAGES, problem.labels(), attack=attacks
            )
