"""What a user brings: an attack with fields, a plain function, a norm, a step rule, a start."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import attacks, evaluation, prng
from vone_jax.attacks import norms

KEY, IMAGES, LABELS = problem.KEY, problem.IMAGES, problem.labels()
EPS = 0.05


class Plain(attacks.Attack):
    """A signed step of a share of the radius."""

    norm: str
    eps: float
    share: float = 1.0
    word: str = "a"
    scale: float = dataclasses.field(default=1.0, metadata={"leaf": False})
    kinds: tuple[float, ...] = dataclasses.field(default_factory=lambda: (0.5,))

    def run(self, keys, logits_fn, images, labels):
        slope, _, _ = self.gradient(keys, logits_fn, images, labels)
        return jnp.clip(images + self.share * self.eps * jnp.sign(slope), 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Decorated(attacks.Attack):
    """The same, written as the attacks of the package are."""

    norm: str
    eps: float
    share: float = 1.0
    word: str = "a"
    scale: float = dataclasses.field(default=1.0, metadata={"leaf": False})
    kinds: tuple[float, ...] = dataclasses.field(default_factory=lambda: (0.5,))

    run = Plain.run


def function(keys, logits_fn, images, labels):
    """The same as a function, with a radius of its own."""
    return Plain("linf", EPS).run(keys, logits_fn, images, labels)


@pytest.mark.parametrize("kind", [Plain, Decorated])
def test_an_attack_with_fields_is_a_frozen_pytree_decorated_or_not(kind):
    attack = kind("linf", EPS, share=0.5, scale=2.0)
    assert jax.tree.leaves(attack) == [EPS, 0.5, 0.5] and attack.kinds == (0.5,)
    assert attack == kind("linf", EPS, 0.5, scale=2.0) != kind("linf", EPS, 0.5)
    assert len({attack, kind("linf", EPS, share=0.5, scale=2.0)}) == 1
    assert eval(repr(attack), {kind.__name__: kind}) == attack
    assert attacks.from_json(attacks.to_json(attack)) == attack
    assert dataclasses.replace(attack, word="b").word == "b"
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.share = 0.1
    with pytest.raises(ValueError, match="^eps must"):
        kind("linf", -1.0)


@pytest.mark.parametrize("attack", [Plain("linf", EPS), Decorated("linf", EPS), function])
def test_it_works_wherever_an_attack_does(attack):
    expected = attacks.FGSM("linf", EPS)(KEY, problem.LOGITS_FN, IMAGES, LABELS)
    given = KEY, problem.LOGITS_FN, IMAGES, LABELS
    np.testing.assert_array_equal(attacks.of(attack)(*given), expected)
    both = attacks.Strongest((attack, attacks.RandomNoise("linf", EPS)))
    assert (both.norm, both.eps) == ("linf", EPS)
    best = both.choose(*given)
    np.testing.assert_array_equal(best.images[best.winner == 0], expected[best.winner == 0])
    assert np.mean(best.winner == 0) > 0.9
    transfer = attacks.Transfer(attack, problem.LOGITS_FN)
    moved = transfer(KEY, problem.TWO_CLASSES, IMAGES, LABELS * 0)
    toward = attacks.FGSM("linf", EPS)(KEY, problem.LOGITS_FN, IMAGES, LABELS * 0)
    np.testing.assert_array_equal(moved, toward)
    judged = evaluation.robust_accuracy(*given, attack=attack)
    known = evaluation.robust_accuracy(*given, attack=attacks.FGSM("linf", EPS))
    assert judged.accuracy == known.accuracy < 1


def test_a_function_beside_an_attack_keeps_to_its_ball():
    def far(keys, logits_fn, images, labels):
        return jnp.clip(images + 2 * EPS, 0.0, 1.0)

    both = attacks.Strongest((attacks.FGSM("linf", EPS), far))
    assert both.attacks[1].eps == EPS and both.label == "strongest of FGSM, far"
    with pytest.raises(ValueError, match="images of far must lie in"):
        both.attacks[1](KEY, problem.LOGITS_FN, IMAGES, LABELS)
    with pytest.raises(ValueError, match="attack must be an attack, or a function"):
        attacks.of(3)


def test_declared_restarts_are_runs_with_keys_of_their_own():
    """Each takes the strongest of its random shifts; more shifts misclassify more images."""

    class Shift(attacks.Attack):
        norm: str
        eps: float
        restarts: int = 1

        def run(self, keys, logits_fn, images, labels):
            shift = norms.Linf().sample(keys, images.shape[1:], self.eps, images.dtype)
            return jnp.clip(images + shift, 0.0, 1.0)

    def wrong(attack):
        found = attack(KEY, problem.LOGITS_FN, IMAGES, LABELS)
        return np.mean(jnp.argmax(problem.LOGITS_FN(KEY, found), axis=1) != LABELS)

    assert wrong(Shift("linf", 0.3)) < wrong(Shift("linf", 0.3, restarts=30))


def test_targets_are_members_that_share_one_program(programs):
    class Towards(attacks.Attack):
        norm: str
        eps: float
        target: int | None = dataclasses.field(default=None, metadata={"leaf": True})

        def members(self, classes):
            return tuple(dataclasses.replace(self, target=k + 1) for k in range(classes))

        def run(self, keys, logits_fn, images, labels):
            target = jnp.full_like(labels, self.target - 1)
            slope = jax.grad(lambda x: jnp.sum(logits_fn(keys, x)[jnp.arange(len(x)), target]))
            return jnp.clip(images + self.eps * jnp.sign(slope(images)), 0.0, 1.0)

    before = programs()
    adversarial = Towards("linf", EPS)(
        KEY, problem.LOGITS_FN, IMAGES, LABELS, batch_size=len(IMAGES)
    )
    assert programs() - before == 1
    pgd = attacks.FGSM("linf", EPS, loss="margin")(KEY, problem.LOGITS_FN, IMAGES, LABELS)

    def misclassified(images):
        return jnp.argmax(problem.LOGITS_FN(KEY, images), axis=1) != LABELS

    assert np.all(misclassified(adversarial) >= misclassified(pgd))


def test_an_attack_without_run_search_or_members_is_refused():
    class Nothing(attacks.Attack):
        norm: str
        eps: float

    with pytest.raises(TypeError, match="Nothing must define run, search or members"):
        Nothing("linf", 0.1)(KEY, problem.LOGITS_FN, IMAGES, LABELS)


@dataclasses.dataclass(frozen=True)
class Weighted:
    """The largest change of a value times a weight."""

    weight: float = 2.0

    def size(self, delta):
        return self.weight * norms.Linf().size(delta)

    def direction(self, gradient):
        return jnp.sign(gradient) / self.weight

    def project(self, delta, eps):
        return norms.Linf().project(delta, eps / self.weight)

    def sample(self, keys, shape, eps, dtype):
        return norms.Linf().sample(keys, shape, eps / self.weight, dtype)


@pytest.mark.parametrize("make", [
    attacks.FGSM, lambda *a: attacks.PGD(*a, steps=4, random_start=True),
    lambda *a: attacks.PGD(*a, steps=4, order="box_then_ball", momentum=0.5),
], ids=["fgsm", "pgd", "momentum"])  # fmt: skip
def test_a_norm_of_ones_own_that_is_a_scaled_one_gives_its_images(make):
    """The ball of a norm twice as large is that of half the radius."""
    given = KEY, problem.LOGITS_FN, IMAGES, LABELS
    own = make(Weighted(), 2 * EPS)(*given)
    np.testing.assert_allclose(own, make("linf", EPS)(*given), atol=1e-6)


def test_apgd_in_a_norm_of_ones_own_reaches_the_corner_of_its_ball():
    """On a linear classifier of two classes; no image is misclassified, so the highest counts."""
    labels = problem.labels(problem.TWO_CLASSES)
    weights = problem.TWO_CLASSES.args[0] @ jnp.array([1.0, -1.0])
    towards = np.where(labels == 0, -1, 1)[:, None, None, None]
    expected = IMAGES + EPS / 50 * np.sign(weights).reshape(1, *IMAGES.shape[1:]) * towards
    attack = attacks.APGD(Weighted(), EPS / 25, steps=20, loss="margin")
    found = attack(KEY, problem.TWO_CLASSES, IMAGES, labels)
    np.testing.assert_allclose(found, jnp.clip(expected, 0, 1), atol=2e-5)


@pytest.mark.untyped
def test_an_object_without_the_methods_of_a_norm_is_refused():
    with pytest.raises(ValueError, match="^norm must be one of linf, l2, l1, l0; got <object"):
        attacks.PGD(object(), EPS)


def test_a_norm_of_the_package_is_its_short_name():
    assert attacks.PGD(norms.Linf(), 0.1) == attacks.PGD("linf", 0.1)
    assert attacks.PGD(norms.L0(), 3.0).norm == "l0"
    tool = attacks.PGD(norms.L2(offset=1e-7), 0.1, steps=3)
    found = tool(KEY, problem.LOGITS_FN, IMAGES, LABELS)
    field = attacks.PGD("l2", 0.1, steps=3, norm_offset=1e-7)
    np.testing.assert_array_equal(found, field(KEY, problem.LOGITS_FN, IMAGES, LABELS))


@pytest.mark.parametrize("start", [False, True])
def test_in_l0_few_pixels_change_and_they_are_those_that_count_most(start):
    """On a linear classifier of two classes: the pixels of the largest weights."""
    attack = attacks.PGD("l0", 3.0, steps=5, random_start=start, loss="margin")
    labels = problem.labels(problem.TWO_CLASSES)
    found = attack(KEY, problem.TWO_CLASSES, IMAGES, labels)
    changed = np.asarray(found != IMAGES).any(axis=-1).reshape(len(IMAGES), -1)
    assert np.all(changed.sum(axis=1) <= 3) and changed.sum() > 0
    np.testing.assert_array_equal(norms.L0().size(found - IMAGES), changed.sum(axis=1))
    if not start:
        weights = np.abs(problem.TWO_CLASSES.args[0] @ jnp.array([1.0, -1.0]))
        for row in changed:
            assert set(np.flatnonzero(row)) <= set(np.argsort(-weights)[:3])
    with pytest.raises(ValueError, match="norm of APGD"):
        attacks.APGD("l0", 3.0)


def test_random_points_of_the_l0_ball_change_as_many_pixels_as_the_radius():
    keys = prng.example_keys(KEY, 200)
    drawn = np.asarray(norms.L0().sample(keys, (4, 4, 2), 3.7, jnp.float32))
    counts = (drawn != 0).any(axis=-1)
    assert np.all(counts.sum(axis=(1, 2)) == 3)
    # Each pixel is among three of sixteen with probability 3 / 16.
    share = counts.mean(axis=0)
    assert np.abs(share - 3 / 16).max() < 4 * np.sqrt(3 / 16 * 13 / 16 / 200)


def test_step_rules_and_starts_may_be_functions():
    given = KEY, problem.LOGITS_FN, IMAGES, LABELS
    rule = attacks.PGD("linf", EPS, steps=4, step_rule=lambda eps, steps: eps / steps)
    named = attacks.PGD("linf", EPS, steps=4, step_rule="eps/steps")
    np.testing.assert_array_equal(rule(*given), named(*given))
    still = attacks.PGD("linf", EPS, steps=1, step_size=0.0, random_start=corner)
    np.testing.assert_allclose(still(*given), np.clip(IMAGES + EPS, 0, 1), atol=1e-6)


def corner(keys, images):
    """A start beyond the ball, which is projected."""
    return jnp.full_like(images, 0.3)


def test_outputs_that_are_probabilities_are_warned_of_once_in_each_call():
    weights = problem.WEIGHTS
    attack = attacks.FGSM("linf", EPS)

    def network(last):
        return lambda keys, images: last(images.reshape(len(images), -1) @ weights)

    for last, warned in ((jax.nn.softmax, True), (jax.nn.log_softmax, False)):
        function = network(last)
        for call in range(3):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                if call == 0:
                    attack(KEY, function, IMAGES, LABELS)
                else:
                    evaluation.robust_accuracy(KEY, function, IMAGES, LABELS, attack=attack)
            told = ["probabilities" in str(each.message) for each in caught]
            assert told == [True] * warned


def test_a_prepared_function_is_never_lowered_and_shares_its_programs(programs):
    calls = []

    def function(keys, images):
        calls.append(1)
        return toy.linear(problem.WEIGHTS, keys, images)

    attack = attacks.PGD("linf", EPS, steps=2)
    before = programs()
    prepared = attacks.prepare(function)
    found = [attack(KEY, prepared, IMAGES, LABELS) for _ in range(2)]
    traced = len(calls)
    attack(KEY, prepared, IMAGES, LABELS)
    assert len(calls) == traced and programs() - before == 1
    np.testing.assert_array_equal(found[0], found[1])
    other = attacks.prepare(lambda keys, images: function(keys, -images))
    assert np.any(attack(KEY, other, IMAGES, LABELS) != found[0])
    assert programs() - before == 2


def test_a_function_is_lowered_once_per_object():
    calls = []

    def function(keys, images):
        calls.append(1)
        return toy.linear(problem.WEIGHTS, keys, images)

    attack = attacks.FGSM("linf", EPS)
    attack(KEY, function, IMAGES, LABELS)
    traced = len(calls)
    attack(KEY, function, IMAGES, LABELS)
    attack(KEY, Partial(toy.linear, problem.WEIGHTS), IMAGES, LABELS)
    assert len(calls) == traced
