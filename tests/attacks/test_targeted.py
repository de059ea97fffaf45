"""Attacks towards a class, and where one is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import evaluation
from vone_jax.attacks import APGD, FGSM, PGD, RandomNoise, Strongest, Transfer

KEY = problem.KEY


@pytest.mark.parametrize("norm", ["linf", "l1"])
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


def test_the_strongest_of_targeted_attacks_reaches_what_any_of_them_reaches():
    """The members differ in what they reach: one is stopped after a step, one lacks radius."""
    targets = (problem.labels() + 1) % 3
    eps = float(np.median(problem.distances("l2")) * 1.5)
    short = PGD("l2", eps, steps=1, step_size=0.6 * eps, loss="margin", targeted=True)
    full = FGSM("l2", eps, loss="margin", targeted=True)
    reached = [
        np.asarray(jnp.argmax(problem.LOGITS_FN(KEY, attack(KEY, problem.LOGITS_FN, problem.IMAGES,
                                                            targets)), axis=-1) == targets)
        for attack in (short, full, Strongest((short, full)))
    ]  # fmt: skip
    assert 0 < reached[0].sum() < reached[1].sum() < 16
    np.testing.assert_array_equal(reached[2], reached[0] | reached[1])
    assert Strongest((short, full)).targeted
    with pytest.raises(ValueError, match="attacks must all have targeted"):
        Strongest((short, RandomNoise("l2", eps)))


def test_accuracy_under_a_targeted_attack_is_refused():
    """With the true classes for targets it would raise the accuracy in silence."""
    attack = PGD("linf", 0.1, steps=1, targeted=True)
    blind = jax.tree_util.Partial(toy.linear, jnp.zeros((50, 3)))
    for attacks in (attack, Transfer(attack, blind)):
        with pytest.raises(ValueError, match="attack must be untargeted"):
            evaluation.robust_accuracy(
                KEY, problem.LOGITS_FN, problem.IMAGES, problem.labels(), attack=attacks
            )
