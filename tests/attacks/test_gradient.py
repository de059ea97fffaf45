"""Attacks with known optima and metamorphic relations between runs."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import fast, functions, prng
from vone_jax.attacks import FGSM, PGD, losses, norms

KEY = jax.random.key(11)


# Closed forms: a linear model loses exactly eps times the dual norm of the weight difference.


@pytest.mark.parametrize("norm", norms.NORMS)
def test_linear_model_reaches_the_closed_form(norm):
    weights = jax.random.normal(jax.random.key(3), (12, 2))
    images = jax.random.uniform(jax.random.key(4), (5, 2, 6, 1), minval=0.4, maxval=0.6)
    labels = jnp.asarray([0, 1, 0, 1, 1])
    eps = 0.1
    slope = np.asarray(weights[:, 1] - weights[:, 0])
    # The steps in L1 are along the gradient, and not its largest value.
    gain = {
        "linf": eps * np.abs(slope).sum(),
        "l2": eps * np.linalg.norm(slope),
        "l1": eps * np.square(slope).sum() / np.abs(slope).sum(),
    }[norm]
    logits_fn = Partial(toy.linear, weights)
    before = losses.margin(logits_fn(KEY, images), labels)
    for attack in (
        FGSM(norm, eps),
        PGD(norm, eps, steps=10),
        PGD(norm, eps, steps=10, step_rule="eps/4", order="box_then_ball"),
        PGD(norm, eps, steps=10, step_rule="eps/steps", momentum=1.0),
    ):
        after = losses.margin(logits_fn(KEY, attack(KEY, logits_fn, images, labels)), labels)
        np.testing.assert_allclose(after, before + gain, rtol=2e-5, err_msg=repr(attack))
    # The model resists exactly up to the distance of the boundary.
    distance = -np.asarray(before) / (gain / eps)
    right = distance > 0
    for factor, broken in ((0.99, False), (1.01, True)):
        attack = FGSM(norm, float(distance[right].min()) * factor)
        adversarial = attack(KEY, logits_fn, images, labels)
        wrong = losses.margin(logits_fn(KEY, adversarial), labels)[right] > 0
        assert bool(jnp.any(wrong)) == broken


# Choices.


def test_the_start_is_kept_where_each_step_lowers_the_loss():
    def detour(keys, images):
        logits = problem.TWO_CLASSES(keys, images)
        return 2 * jax.lax.stop_gradient(logits) - logits

    images, labels = problem.IMAGES, problem.labels(problem.TWO_CLASSES)
    adversarial = PGD("l2", 0.1, steps=2, keep="best")(problem.KEY, detour, images, labels)
    np.testing.assert_array_equal(adversarial, images)


def test_iterates_are_judged_with_keys_that_no_gradient_has_used(keys_of):
    """The start and three iterates with one key, the gradients of three steps with others."""
    used, labels = keys_of(PGD, "evaluate"), problem.labels(problem.TWO_CLASSES)
    attack = PGD("linf", 0.07, steps=3, keep="best")
    attack(KEY, problem.TWO_CLASSES, problem.IMAGES, labels)
    jax.effects_barrier()
    assert len(used) == 4 + 3 and len(set(used)) == 1 + 3


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_rules_of_art_1_5(norm):
    """Steps g / (|g| + 1e-7), then the box, then d min(1, eps / (|d| + 1e-7)), in numpy."""
    slope = np.linspace(-1.0, 1.0, 16) * 1e-7
    images = np.linspace(0.3, 0.9, 32).reshape(2, 4, 4, 1)
    eps, order = {"l2": 0.5, "l1": 1.2}[norm], {"l2": 2, "l1": 1}[norm]

    def length(values):
        return np.linalg.norm(values.reshape(2, -1), ord=order, axis=1).reshape(2, 1, 1, 1)

    gradient = np.broadcast_to(slope.reshape(1, 4, 4, 1), images.shape)
    adversarial = images
    for _ in range(3):
        step = gradient / (length(gradient) + 1e-7)
        delta = np.clip(adversarial + eps / 2 * step, 0, 1) - images
        adversarial = images + delta * np.minimum(1, eps / (length(delta) + 1e-7))

    def logits_fn(key, images):
        evidence = images.reshape(2, -1) @ jnp.asarray(slope, jnp.float32)
        return jnp.stack([jnp.zeros_like(evidence), evidence], axis=-1)

    attack = PGD(norm, eps, steps=3, step_size=eps / 2, loss="margin", norm_offset=1e-7,
                 order="box_then_ball")  # fmt: skip
    ours = attack(KEY, logits_fn, jnp.asarray(images, jnp.float32), jnp.zeros(2, jnp.int32))
    np.testing.assert_allclose(ours, adversarial, atol=1e-6)
    # The offset is felt: these gradients are hardly longer than it.
    assert length(gradient / (length(gradient) + 1e-7)).max() < 0.9


# Noise.


def test_one_draw_equals_the_plain_gradient(batch, noisy):
    """At the key that the attack derives for its first step and draw."""
    images, labels = batch
    keys = prng.stream(prng.fold(prng.example_keys(KEY, 6), 0), "noise")
    keys = prng.fold(prng.fold(keys, 0), 0)
    loss = jax.jit(jax.grad(lambda x: jnp.sum(losses.cross_entropy(noisy(keys, x), labels))))
    slope = loss(images)
    expected = jnp.clip(images + 0.03 * jnp.sign(slope), 0, 1)
    np.testing.assert_allclose(FGSM("linf", 0.03)(KEY, noisy, images, labels), expected, atol=1e-6)


@pytest.mark.slow
def test_variance_of_the_gradient_falls_as_one_over_the_draws():
    """Logits x.W + z: the gradient of the mean loss has a known expectation and variance."""
    weights = jax.random.normal(jax.random.key(3), (4, 3))
    images, labels = jnp.full((1, 2, 2, 1), 0.5), jnp.asarray([1])

    @functions.per_example
    def logits_fn(key, images):
        return toy.linear(weights, key, images) + 2 * jax.random.normal(key, (len(images), 3))

    def l2_step(key, samples):
        attack = FGSM("l2", 1e-3, eot_samples=samples)
        return (attack(key, logits_fn, images, labels) - images).ravel() * 1e3

    ways = {
        samples: np.asarray(jax.vmap(partial(l2_step, samples=samples))(
            jax.random.split(jax.random.key(samples), 300)
        ))
        for samples in (4, 64)
    }  # fmt: skip
    spread = {samples: way.var(axis=0).sum() for samples, way in ways.items()}
    assert 8 < spread[4] / spread[64] < 32
    np.testing.assert_allclose(ways[4].mean(0), ways[64].mean(0), atol=0.1)


def test_the_bank_runs_once_whatever_the_number_of_draws(batch, noisy):
    """Counts multiplications of the convolutions that read the image or its gradient.

    In the plain form: the fast one has each convolution twice, for CPUs and for other devices.
    """
    images, labels = batch
    bank = toy.make_network(0.5)["bank"].shape

    def bank_batches(samples):
        attack = PGD("linf", 0.05, steps=2, eot_samples=samples)
        with fast.plain():
            jaxpr = jax.make_jaxpr(lambda x: attack(KEY, noisy, x, labels))(images)
        shapes = [tuple(v.aval.shape for v in eqn.invars) for eqn in convolutions(jaxpr.jaxpr)]
        return [data for data, kernel in shapes if set(kernel) == set(bank)], len(shapes)

    one, total = bank_batches(1)
    ten, total_of_ten = bank_batches(10)
    assert len(one) == 2 and total == 4  # forward and backward, of the bank and of the body
    assert ten == one and total_of_ten == total


def convolutions(jaxpr):
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from convolutions(inner)


def test_no_attack_moves_the_coin():
    """The coin is right with probability p; restarts and averaging must not lower it."""
    attack = PGD("linf", 0.1, steps=3, random_start=True, restarts=3, eot_samples=4)
    toy.assert_coin_resists(KEY, attack)


# Momentum, against its definition in numpy.


def bent(weights, key, images):
    """Two logits whose gradient changes from place to place."""
    evidence = jnp.sum(jnp.sin(weights[None] * images.reshape(images.shape[0], -1)), axis=-1)
    return jnp.stack([jnp.zeros_like(evidence), evidence], axis=-1)


def test_momentum_equals_its_definition():
    """In L2, where the lengths of the added gradients show, and not their signs alone."""
    weights = np.random.default_rng(0).normal(size=16) * 20
    images = np.random.default_rng(1).uniform(0.2, 0.8, (3, 16))
    eps, steps, decay = 0.3, 5, 0.9
    adversarial, momentum = images, np.zeros_like(images)

    def over(values, order):
        return values / np.linalg.norm(values, ord=order, axis=1, keepdims=True)

    for _ in range(steps):
        slope = weights * np.cos(weights * adversarial)
        momentum = decay * momentum + over(slope, 1)
        delta = adversarial + eps / steps * over(momentum, 2) - images
        length = np.linalg.norm(delta, axis=1, keepdims=True)
        adversarial = np.clip(images + delta * np.minimum(1, eps / length), 0, 1)
    attack = PGD("l2", eps, steps, step_rule="eps/steps", momentum=decay, loss="margin")
    logits_fn = Partial(bent, jnp.asarray(weights, jnp.float32))
    square = jnp.asarray(images, jnp.float32).reshape(3, 4, 4, 1)
    ours = attack(KEY, logits_fn, square, jnp.zeros(3, jnp.int32))
    np.testing.assert_allclose(ours.reshape(3, 16), adversarial, atol=1e-5)


# An early stop: for each image alone, and to save time.

KEYS = prng.example_keys(problem.KEY, 16)


ATTACK = PGD("l2", 1.0, steps=400, step_size=0.01, early_stop=True)


def test_an_image_stays_at_its_first_misclassified_iterate():
    """On a linear classifier of two classes that is one step beyond the boundary at most."""
    images, labels = problem.IMAGES, problem.labels(problem.TWO_CLASSES)
    labels = labels.at[0].set(1 - labels[0])  # misclassified as it is
    adversarial = ATTACK(KEYS, problem.TWO_CLASSES, images, labels)
    wrong = jnp.argmax(problem.TWO_CLASSES(problem.KEY, adversarial), axis=-1) != labels
    assert np.all(wrong)
    distance = problem.distances("l2", problem.TWO_CLASSES)
    length = np.asarray(norms.size(adversarial - images, "l2"))
    np.testing.assert_array_equal(adversarial[0], images[0])
    assert np.all(length[1:] > distance[1:] - 1e-5) and np.all(length[1:] < distance[1:] + 0.0101)
    parts = [ATTACK(KEYS[part], problem.TWO_CLASSES, images[part], labels[part])
             for part in (slice(0, 8), slice(8, 16))]  # fmt: skip
    np.testing.assert_allclose(adversarial, jnp.concatenate(parts), atol=1e-6)


def test_a_target_has_to_be_reached():
    """Not any other class will do: with three, the way to the least likely leads through one."""
    targets = jnp.argmin(problem.LOGITS_FN(problem.KEY, problem.IMAGES), axis=-1)
    attack = dataclasses.replace(ATTACK, targeted=True, loss="margin")
    adversarial = attack(KEYS, problem.LOGITS_FN, problem.IMAGES, targets)
    reached = jnp.argmax(problem.LOGITS_FN(problem.KEY, adversarial), axis=-1)
    np.testing.assert_array_equal(reached, targets)
    assert np.all(norms.size(adversarial - problem.IMAGES, "l2") < 0.9)


def test_a_run_ends_when_all_images_have_stopped():
    calls = []

    def counted(key, images):
        jax.debug.callback(lambda: calls.append(1))
        return problem.TWO_CLASSES(key, images)

    labels = problem.labels(problem.TWO_CLASSES)
    ATTACK(KEYS, counted, problem.IMAGES, labels)
    jax.effects_barrier()
    longest = problem.distances("l2", problem.TWO_CLASSES).max() / ATTACK.step_size
    # One more step sees that the last image has fallen. A step at which images fall looks twice.
    assert longest < len(calls) <= 2 * (longest + 3) < ATTACK.steps


@pytest.mark.parametrize("lost", [np.nan, -np.inf])
def test_an_image_without_finite_logits_is_not_taken_for_misclassified(lost):
    """It is NaN, so that a call reports it. Its loss is finite where a logit is -infinity."""

    def broken(keys, images):
        return problem.LOGITS_FN(keys, images).at[1, 2].set(lost)

    labels = jnp.zeros(16, jnp.int32)
    adversarial = dataclasses.replace(ATTACK, steps=2).perturb(KEYS, broken, problem.IMAGES, labels)
    np.testing.assert_array_equal(np.isnan(adversarial).any(axis=(1, 2, 3)), np.arange(16) == 1)
