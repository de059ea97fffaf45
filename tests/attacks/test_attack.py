"""The form that every attack has: its settings as JSON, and one program for all radii."""

import dataclasses
import json
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import attacks, prng
from vone_jax.attacks import norms

SURROGATE = problem.LOGITS_FN
SETTINGS = [
    attacks.PGD("linf", 8 / 255, steps=3, step_size=0.1, random_start=True, early_stop=True),
    attacks.FGSM("l2", 0.3, eot_samples=2),
    attacks.PGD("l1", 1.5, momentum=0.5),
    attacks.APGD("l1", 12.0, loss="targeted_dlr", large_eps_schedule=True),
    attacks.SPSA("linf", 0.1, samples=3),
    attacks.Square("l2", 0.5, p_init=0.3),
    attacks.RandomNoise("l2", 0.5, noise="signs"),
    attacks.FAB("linf", 0.1, targets=None),
    attacks.FAB("linf", 0.1, targets=3),
    attacks.DeepFool("l2", 0.1),
    attacks.CW("l2", 0.1, confidence=2.0),
    attacks.DDN("l2", 0.1),
    attacks.FMN("l1", 0.1, last_gamma=1e-4),
    attacks.AutoAttack("linf", 0.1, version="plus"),
    attacks.Strongest((attacks.FGSM("linf", 0.1), attacks.Square("linf", 0.1))),
    attacks.Transfer(attacks.FGSM("linf", 0.1), SURROGATE),
    attacks.Transfer(attacks.Strongest((attacks.DDN("l2", 0.1),)), SURROGATE),
]


@pytest.mark.parametrize("attack", SETTINGS, ids=lambda attack: type(attack).__name__)
def test_settings_survive_json(attack):
    text = json.dumps(attacks.to_json(attack), allow_nan=False)
    assert attacks.from_json(json.loads(text), surrogate=SURROGATE) == attack


def test_every_attack_is_in_that_test():
    public = vars(attacks).values()
    classes = {c for c in public if isinstance(c, type) and issubclass(c, attacks.Attack)}
    # A plain function has no JSON form.
    others = {attacks.Attack, attacks.Function}
    assert classes - others == {type(attack) for attack in SETTINGS}


def test_the_object_holds_the_class_name_and_the_fields():
    nested = attacks.Strongest((attacks.FGSM("l1", jnp.float32(0.5)),), np.int32(4))
    fields = dict(eot_samples=1, estimator="mean_loss", loss="cross_entropy", targeted=False)
    assert attacks.to_json(nested) == {
        "type": "Strongest",
        "attacks": [{"type": "FGSM", "norm": "l1", "eps": 0.5, **fields}],
        "choice_draws": 4,
    }
    assert attacks.from_json(attacks.to_json(nested)) == nested


@pytest.mark.parametrize("attack", SETTINGS, ids=lambda attack: type(attack).__name__)
def test_an_attack_is_a_lawful_pytree(attack):
    leaves, structure = jax.tree.flatten(attack)
    again, same = jax.tree.flatten(jax.tree.unflatten(structure, leaves))
    assert same == structure and all(map(operator.is_, again, leaves))
    assert any(leaf is attack.eps for leaf in leaves)
    assert hash(structure) == hash(jax.tree.structure(attack))
    # What no user would make is not refused.
    assert jax.tree.leaves(jax.tree.map(lambda _: None, attack)) == []
    arrays = jax.tree.map(jnp.asarray, jax.tree.map(lambda x: 0.0 if callable(x) else x, attack))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(arrays))
    negative = jax.tree.map(lambda leaf: -1.0, attack)
    assert set(jax.tree.leaves(negative)) == {-1.0}


def test_attacks_work_with_the_transformations_of_trees():
    gradient = jax.grad(lambda attack: attack.eps**2)(attacks.PGD("linf", 0.25))
    assert gradient.eps == 0.5 and gradient.steps == 64
    equinox = pytest.importorskip("equinox", reason="equinox is not installed")
    attack = attacks.PGD("linf", jnp.float32(0.1), steps=2)
    arrays, rest = equinox.partition(attack, equinox.is_array)
    assert equinox.combine(arrays, rest) == attack and rest.eps is None

    def distance(attack):
        found = attack(problem.KEY, problem.LOGITS_FN, problem.IMAGES, problem.labels())
        return jnp.max(jnp.abs(found - problem.IMAGES))

    several = [attacks.PGD("linf", jnp.float32(eps), steps=2) for eps in (0.01, 0.02)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    np.testing.assert_allclose(jax.vmap(distance)(stacked), [0.01, 0.02], rtol=1e-4)


def test_a_subclass_is_a_dataclass_and_a_pytree_by_itself():
    class Own(attacks.PGD):
        strengths: tuple[float, ...] = dataclasses.field(default_factory=lambda: (0.5,))
        word: str = "static"

    attack = Own("linf", 0.1, steps=2, eot_samples=3)
    assert jax.tree.leaves(attack) == [0.1, 0.5] and attack.word == "static"
    assert attacks.from_json(attacks.to_json(attack)) == attack
    # A call is that of the attack that it extends.
    adversarial = attack(problem.KEY, problem.LOGITS_FN, problem.IMAGES, problem.labels())
    plain = attacks.PGD("linf", 0.1, steps=2, eot_samples=3)
    expected = plain(problem.KEY, problem.LOGITS_FN, problem.IMAGES, problem.labels())
    np.testing.assert_array_equal(adversarial, expected)


# Within a radius on a network with noise. Those that take long to compile are slow.
RUNS = [
    attacks.PGD(
        "l2", 0.3, steps=4, step_rule="eps/4", random_start=True, restarts=2, eot_samples=2,
        order="box_then_ball",
    ),
    attacks.RandomNoise("l2", 0.3),
    *(
        pytest.param(attack, marks=pytest.mark.slow)
        for attack in (
            attacks.PGD("linf", 0.05, steps=5, step_rule="eps/4"),
            attacks.PGD("l1", 1.0, 4, step_rule="eps/steps", momentum=1.0, eot_samples=2),
            attacks.APGD("linf", 0.05, steps=6, restarts=2, eot_samples=2),
            attacks.APGD("l1", 1.0, steps=6, eot_samples=2, large_eps_schedule=True),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("attack", RUNS, ids=lambda a: f"{type(a).__name__}-{a.norm}")
def test_relations_between_runs(attack, batch, noisy):
    images, labels = batch
    images = jnp.round(images * 3) / 3  # many values on the border of the box
    keys = prng.index_keys(problem.KEY, jnp.asarray([5, 9, 2, 40, 41, 7]))
    whole = attack(keys, noisy, images, labels)
    toy.assert_inside(whole, images, attack.norm, attack.eps)
    assert whole.dtype == images.dtype
    assert np.all(norms.size(whole - images, attack.norm) > 0.2 * attack.eps)
    # An example does not depend on its batch.
    for rows in (np.arange(3), np.arange(3, 6), np.array([3, 1, 0, 5, 4, 2])):
        part = attack(keys[rows], noisy, images[rows], labels[rows])
        np.testing.assert_allclose(part, whole[rows], atol=1e-6)
    # Keys decide, and a scalar key stands for the keys of the positions.
    np.testing.assert_array_equal(attack(keys, noisy, images, labels), whole)
    by_position = attack(prng.example_keys(problem.KEY, 6), noisy, images, labels)
    np.testing.assert_array_equal(attack(problem.KEY, noisy, images, labels), by_position)
    assert np.any(by_position != whole)
    # The start and the choice among restarts, too, vanish with the radius.
    nothing = dataclasses.replace(attack, eps=0.0)
    np.testing.assert_array_equal(nothing(keys, noisy, images, labels), images)


def test_a_ladder_of_radii_and_other_weights_compile_once(batch, programs):
    images, labels = batch
    before = programs()
    for seed in (0, 1):
        weights = jax.random.normal(jax.random.key(seed), (64, 4))
        for eps in (0.01, 0.02, 0.04):
            attack = attacks.APGD("linf", eps, steps=3)
            attack(problem.KEY, Partial(toy.linear, weights), images, labels)
    assert programs() - before == 1


def lost_when_moved(lost, keys, images):
    """Logits of class 0, and others as soon as a dark image has moved, of gradient 0."""
    moved = jnp.any(images != 0.25, axis=(1, 2, 3)) & (jnp.mean(images, axis=(1, 2, 3)) < 0.38)
    logits = images.reshape(len(images), -1)[:, :3] + jnp.array([[2.0, 0.0, 0.0]])
    return jnp.where(moved[:, None], jnp.array([lost]), logits)


@pytest.mark.parametrize(
    ("attack", "lost"),
    [
        (attacks.PGD("linf", 0.1, steps=2), math.nan),
        (attacks.PGD("linf", 0.1, steps=2), math.inf),
        (attacks.PGD("linf", 0.1, steps=1, random_start=True, restarts=2, loss="margin"), math.nan),
        (attacks.PGD("linf", 0.1, steps=1, keep="best", loss="margin"), math.inf),
        (attacks.PGD("linf", 0.1, steps=2, random_start=True, early_stop=True), math.nan),
        (attacks.PGD("linf", 0.1, steps=2, momentum=1.0), math.nan),
        (attacks.APGD("linf", 0.1, steps=2), math.nan),
        (attacks.APGD("linf", 0.1, steps=2), math.inf),
        (attacks.Square("linf", 0.1, queries=2), math.nan),
        (attacks.SPSA("linf", 0.1, steps=2, samples=2), math.nan),
        (attacks.RandomNoise("linf", 0.1, restarts=2), math.nan),
        (attacks.Strongest((attacks.FGSM("linf", 0.1),)), math.inf),
    ],
    ids=lambda value: type(value).__name__,
)
def test_logits_that_are_not_finite_never_pass_in_silence(attack, lost):
    """Class 0 is where argmax finds NaN, so the image would count as right."""
    images, labels = jnp.full((2, 4, 4, 1), 0.5).at[1].set(0.25), jnp.zeros(2, jnp.int32)
    with pytest.raises(FloatingPointError, match=r"not finite, at batch positions \[1\]"):
        attack(jax.random.key(0), Partial(lost_when_moved, (lost, 0.0, 0.0)), images, labels)


@pytest.mark.parametrize(
    "attack",
    [
        attacks.PGD("linf", 0.1, steps=2, random_start=True, restarts=2, keep="best"),
        attacks.APGD("l1", 1.0, steps=2),
        attacks.FMN("l2", 0.5, steps=2),
        *(
            pytest.param(attack, marks=pytest.mark.slow)
            for attack in (
                attacks.APGD("linf", 0.1, steps=2, loss="dlr"),
                attacks.FAB("linf", 0.1, steps=2),
                attacks.CW("l2", 0.5, steps=2, binary_search_steps=1),
                attacks.SPSA("linf", 0.1, steps=2, samples=2),
            )
        ),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_a_network_may_compute_in_half_precision(attack):
    images = jax.random.uniform(jax.random.key(1), (2, 4, 4, 1))

    def half(key, images):
        return images.reshape(images.shape[0], -1)[:, :5].astype(jnp.bfloat16) * jnp.bfloat16(8)

    labels = jnp.argmax(half(None, images), axis=-1).astype(jnp.int32)
    adversarial = attack(jax.random.key(0), half, images, labels)
    assert adversarial.dtype == jnp.float32
    toy.assert_inside(adversarial, images, attack.norm, attack.eps)
