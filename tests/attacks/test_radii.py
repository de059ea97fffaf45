"""One radius for each image: the attack on an image is that with its radius alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import attacks, prng

RADII = jnp.asarray([0.02, 0.0, 0.1, 0.05])
IMAGES = problem.IMAGES[:4]
FGSM = attacks.FGSM("linf", 0.1)


def made(attack, images=IMAGES, first=0):
    """Attacks images whose keys are numbered from ``first``."""
    keys = prng.index_keys(problem.KEY, jnp.arange(first, first + len(images)))
    labels = jnp.argmax(problem.LOGITS_FN(keys, images), axis=-1)
    return np.asarray(attack(keys, problem.LOGITS_FN, images, labels, batch_size=16))


def replaced(attack, radii):
    """The attack, and those that it runs, with other radii."""
    if isinstance(attack, attacks.Strongest):
        members = tuple(replaced(each, radii) for each in attack.attacks)
        return dataclasses.replace(attack, attacks=members)
    if hasattr(attack, "attack"):
        return dataclasses.replace(attack, attack=replaced(attack.attack, radii))
    return dataclasses.replace(attack, eps=radii)


@pytest.mark.parametrize(
    "attack",
    [
        attacks.PGD("linf", 0.1, steps=3, random_start=True, restarts=2),
        attacks.Strongest((FGSM, attacks.RandomNoise("linf", 0.1))),
        *(
            pytest.param(attack, marks=pytest.mark.slow)
            for attack in (
                attacks.PGD("l2", 0.1, steps=3, random_start=True, order="box_then_ball"),
                attacks.PGD("l1", 0.1, steps=3, random_start=True),
                attacks.APGD("linf", 0.1, steps=5),
                attacks.APGD("l1", 0.1, steps=5, large_eps_schedule=True),
                attacks.Square("linf", 0.1, queries=10),
                attacks.Square("l2", 0.1, queries=10),
                attacks.Square("l1", 0.1, queries=10),
                attacks.SPSA("linf", 0.1, steps=3, samples=3),
                attacks.FAB("l2", 0.1, steps=3, restarts=2),
                attacks.FMN("l1", 0.1, steps=5),
                attacks.APGD("l2", 0.1, steps=4),
            )
        ),
    ],
    ids=lambda attack: f"{type(attack).__name__}-{attack.norm}",
)
def test_an_image_with_its_radius_is_attacked_as_alone(attack):
    together = made(replaced(attack, RADII))
    for row, radius in enumerate(RADII.tolist()):
        alone = made(replaced(attack, radius), IMAGES[row : row + 1], row)
        np.testing.assert_allclose(together[row : row + 1], alone, atol=2e-6)
        toy.assert_inside(alone, IMAGES[row : row + 1], attack.norm, radius)
    assert np.any(together != IMAGES)


def test_radii_go_with_the_images_that_are_left_and_with_parts():
    """On CPUs 70 images are attacked in parts, and later members skip misclassified ones."""
    images = jax.random.uniform(jax.random.key(1), (70, 5, 10, 1), minval=0.4, maxval=0.6)
    keys = prng.example_keys(problem.KEY, 70)
    radii = jnp.linspace(0.0, 0.05, 70)
    members = attacks.FGSM("linf", radii), attacks.PGD("linf", radii, steps=2, step_rule="eps/4")
    attack = attacks.Strongest(members)
    parts = made(attack, images)
    labels = jnp.argmax(problem.LOGITS_FN(keys, images), axis=-1)
    whole = attack.choose(keys, problem.LOGITS_FN, images, labels, batch_size=70).images
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    moved = np.abs(parts - images).max(axis=(1, 2, 3))
    assert np.all(moved <= radii + 1e-6) and np.mean(moved > 0.9 * radii) > 0.9


def test_a_radius_that_is_exceeded_by_one_image_is_refused():
    class Far(attacks.Attack):
        """Moves all images by 0.05."""

        norm: str
        eps: float

        def run(self, keys, logits_fn, images, labels):
            return images + 0.05

    made(Far("linf", jnp.asarray([0.05, 0.06, 0.2, 0.05])))
    with pytest.raises(ValueError, match="images of Far must lie in"):
        made(Far("linf", RADII))


def test_attacks_with_a_radius_for_each_image_compare_by_their_values():
    attack = attacks.PGD("linf", RADII)
    assert attack == attacks.PGD("linf", np.asarray(RADII))
    for other in (RADII[:3], RADII.at[1].set(0.3), 0.02):
        assert attack != attacks.PGD("linf", other) != attack
    assert attack != attacks.APGD("linf", RADII)
    assert attacks.Strongest((attack,)) == attacks.Strongest((dataclasses.replace(attack),))
    # Those with numbers alone hash as they compare.
    assert len({attacks.PGD("linf", 0.1), attacks.PGD("linf", 0.1), FGSM}) == 2
