"""All minimal-norm attacks: relations between runs, noise, and bad values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import prng
from vone_jax.attacks import classifier, losses, minimal, norms
from vone_jax.attacks.carlini_wagner import CW
from vone_jax.attacks.deepfool import DeepFool
from vone_jax.attacks.fab import FAB
from vone_jax.attacks.fmn import DDN, FMN

KEY = jax.random.key(11)
INDICES = jnp.asarray([5, 9, 2, 40, 41, 7])
ATTACKS = [
    FAB("linf", 0.03, steps=6, eot_samples=4),
    FAB("l1", 0.5, steps=6, targets=2, eot_samples=4),
    DeepFool("l2", 0.1, steps=8, eot_samples=4),
    CW("l2", 0.1, steps=20, binary_search_steps=3, learning_rate=0.05, eot_samples=4),
    DDN("l2", 0.1, steps=12, eot_samples=4),
    FMN("l1", 0.5, steps=12, eot_samples=4),
]
each_attack = pytest.mark.parametrize(
    "attack", ATTACKS, ids=lambda a: f"{type(a).__name__}-{a.norm}"
)


@pytest.fixture(scope="module")
def images():
    """Half of the values lie on the border of the pixel box."""
    images = jax.random.uniform(jax.random.key(1), (6, 8, 8, 1))
    return jnp.where(images > 0.5, jnp.round(images), images)


@pytest.fixture(scope="module")
def weights():
    return toy.make_network(0.5)


@pytest.fixture(scope="module")
def labels(images, weights):
    """The classes of the classifier without noise, but a wrong one for the first image."""
    labels = jnp.argmax(toy.noisy_network(weights, 0.0, KEY, images), axis=-1)
    return labels.at[0].set((labels[0] + 1) % 4)


def run(attack, weights, images, labels, scale=0.5, keys=None):
    # Weights and noise are leaves of the classifier, so one attack is compiled once.
    logits_fn = Partial(toy.noisy_network, weights, jnp.float32(scale))
    return attack.minimal(
        prng.index_keys(KEY, INDICES) if keys is None else keys, logits_fn, images, labels
    )


@pytest.mark.slow
@each_attack
def test_what_is_found_is_adversarial_and_as_far_as_it_says(attack, images, weights, labels):
    result = run(attack, weights, images, labels, scale=0.0)
    logits = toy.noisy_network(weights, 0.0, KEY, result.images)
    np.testing.assert_array_equal(jnp.argmax(logits, axis=-1) != labels, result.found)
    assert np.sum(result.found) >= 4
    assert np.all(result.images >= 0) and np.all(result.images <= 1)
    length = norms.size(result.images - images, attack.norm)
    np.testing.assert_allclose(length, jnp.where(result.found, result.distance, 0), rtol=1e-5)
    assert np.all(jnp.isinf(result.distance) == ~result.found)
    # The first image is misclassified as it is.
    assert result.distance[0] == 0 and bool(result.found[0])
    np.testing.assert_array_equal(result.images[0], images[0])


@pytest.mark.slow
@each_attack
def test_an_example_does_not_depend_on_its_batch(attack, images, weights, labels):
    """Among other images in another order; the key goes with the example."""
    keys = prng.index_keys(KEY, INDICES)
    whole = run(attack, weights, images, labels)
    order = jnp.asarray([3, 1, 0, 3, 1, 1])
    other = run(attack, weights, images[order], labels[order], keys=keys[order])
    np.testing.assert_allclose(other.images, whole.images[order], atol=1e-6)
    np.testing.assert_array_equal(other.found, whole.found[order])
    again = run(attack, weights, images, labels)
    np.testing.assert_array_equal(again.images, whole.images)


@pytest.mark.parametrize(
    ("attack", "factor", "extra"),
    [
        # Foolbox's step, too, is 1.02 (|f| / |w| + 1e-4) long. It leads across, so that the others
        # change nothing.
        *((DeepFool(norm, 1.0, steps=3), 1.02, 1e-4) for norm in ("l2", "linf")),
        *((FAB(norm, 1.0, steps=1), 1.05, 0.0) for norm in norms.NORMS),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_one_step_passes_the_boundary_of_a_linear_classifier_by_a_known_share(
    attack, factor, extra
):
    images, labels = problem.IMAGES, problem.labels()
    result = attack.minimal(problem.KEY, problem.LOGITS_FN, images, labels)
    assert np.all(result.found)
    expected = factor * (problem.distances(attack.norm) + extra)
    rounding = problem.rounding(attack.norm)
    np.testing.assert_allclose(result.distance, expected, rtol=1e-5, atol=rounding)


@pytest.mark.parametrize(
    ("attack", "share", "rest"),
    [
        # The nearest boundaries are as near as the first steps of Adam are long.
        (CW("l2", 1.0, steps=200, initial_const=1e-2), 1.02, 2e-3),
        # The radius can fall to .95^200 = 3.5e-5 only; farther boundaries are met closely.
        (DDN("l2", 1.0, steps=200), 1.01, 1e-3),
        # L2 as well: its projection has to project.
        *((FMN(norm, 1.0), 1.005, 2 * problem.rounding(norm)) for norm in norms.NORMS),
    ],
)
def test_the_boundary_of_a_linear_classifier_is_met(attack, share, rest):
    images, labels = problem.IMAGES, problem.labels(problem.TWO_CLASSES)
    optimum = problem.distances(attack.norm, problem.TWO_CLASSES)
    result = attack.minimal(problem.KEY, problem.TWO_CLASSES, images, labels)
    assert np.all(result.found)
    assert np.all(result.distance > optimum * (1 - 1e-5) - problem.rounding(attack.norm))
    assert np.all(result.distance < share * optimum + rest)


@pytest.mark.parametrize(
    "attack",
    [
        a if isinstance(a, DeepFool | FMN) else pytest.param(a, marks=pytest.mark.slow)
        for a in ATTACKS
    ],
    ids=lambda a: f"{type(a).__name__}-{a.norm}",
)
def test_zero_gradients_find_nothing_and_values_that_are_not_finite_raise(
    attack, images, weights, labels
):
    """A network with a head of zeros, so that only the bias decides."""
    flat = weights | {"head": 0 * weights["head"], "bias": jnp.asarray([0.0, 1.0, 2.0, 3.0])}
    result = run(attack, flat, images, jnp.full_like(labels, 3))
    assert not np.any(result.found)
    np.testing.assert_array_equal(result.images, images)
    bad = weights | {"bias": weights["bias"].at[0].set(jnp.nan)}
    with pytest.raises(FloatingPointError, match=r"positions \[0, 1, 2, 3, 4, 5\]"):
        run(attack, bad, images, labels)


def test_an_image_at_the_radius_of_a_call_is_within_it():
    images, labels = problem.IMAGES, problem.labels(problem.TWO_CLASSES)
    attack = FMN("l2", 1.0, steps=5)
    distance = attack.minimal(KEY, problem.TWO_CLASSES, images, labels).distance
    middle = np.sort(distance)[8]
    called = dataclasses.replace(attack, eps=float(middle))
    adversarial = called(KEY, problem.TWO_CLASSES, images, labels)
    moved = np.any(adversarial != images, axis=(1, 2, 3))
    np.testing.assert_array_equal(moved, distance <= middle)
    assert np.sum(moved) == 9


def test_noisy_logits_fool_from_two_standard_errors_on():
    """Four draws of a margin, of which two lie 1 above and two 1 below the mean.

    Their standard deviation is sqrt(4 / 3), and the standard error of the mean is half of that.
    What both logits have in common does not count.
    """
    errors = np.array([-2.1, 1.9, 2.1]) * np.sqrt(4 / 3) / 2
    margins = np.float32(errors + np.array([1, -1, -1, 1])[:, None])
    common = np.float32([[0], [8], [-4], [1]])
    logits = jnp.stack([common + 0 * margins, common + margins], axis=-1)
    images = jnp.zeros((3, 1, 1, 1))
    attack = DDN("l2", 1.0, eot_samples=4)
    nothing = minimal.Closest(images, jnp.full(3, jnp.inf))
    closest, fooled = attack.closer(nothing, images + 0.5, logits, images, jnp.zeros(3, jnp.int32))
    np.testing.assert_array_equal(fooled, [False, False, True])
    np.testing.assert_array_equal(closest.distance, [np.inf, np.inf, 0.5])


def test_no_attack_claims_the_coin():
    """The coin is right with probability 0.7 whatever the image; its mean logits are right.

    The mean of 20 draws is wrong in 5 % of the cases: a search that trusts the best of its
    decisions would claim a quarter of the images, here it takes two standard errors and a
    judgement on fresh keys.
    """
    images = jax.random.uniform(jax.random.key(1), (400, 2, 5, 1))
    labels = jnp.zeros(400, jnp.int32)
    coin = Partial(toy.coin, jnp.float32(0.7))
    result = FMN("linf", 0.5, steps=5, eot_samples=20).minimal(KEY, coin, images, labels)
    assert np.sum(result.found) <= 2
    toy.assert_coin_is_right(0.7, result.images)


# With one draw, decisions are lucky; here that is the point.
@pytest.mark.filterwarnings("ignore:FMN decides by single draws")
def test_the_draws_of_the_first_decision_do_not_judge_it():
    """Each of three decisions on one draw is wrong with probability 0.3, and so is a fourth."""
    images = jax.random.uniform(jax.random.key(1), (400, 2, 5, 1))
    coin = Partial(toy.coin, jnp.float32(0.7))
    result = FMN("linf", 0.5, steps=1).minimal(KEY, coin, images, jnp.zeros(400, jnp.int32))
    assert np.mean(result.found) == pytest.approx((1 - 0.7**3) * 0.3, abs=0.06)


@pytest.mark.slow
def test_noise_leaves_few_images_without_a_result():
    """A linear classifier whose noise is as large as its margins; each image eight times.

    The closest image of the search held for 85 % only.
    """
    images = jnp.tile(problem.IMAGES, (8, 1, 1, 1))
    labels = jnp.tile(problem.labels(problem.TWO_CLASSES), 8)
    noisy = Partial(toy.with_noise, problem.TWO_CLASSES, jnp.float32(0.3))
    attack = FMN("linf", 1.0, steps=50, eot_samples=10)
    result = attack.minimal(KEY, noisy, images, labels)
    assert np.mean(result.found) > 0.97
    # Images far out are wrong on the whole, and not by the luck of a draw.
    wrong = jnp.argmax(problem.TWO_CLASSES(KEY, result.images), axis=-1) != labels
    assert np.mean(wrong[result.found]) > 0.99
    length = norms.size(result.images - images, attack.norm)
    np.testing.assert_allclose(length, jnp.where(result.found, result.distance, 0), rtol=1e-5)


@pytest.mark.parametrize("attack", [
    CW("l2", 1.0, steps=100, binary_search_steps=3, learning_rate=0.05, targeted=True),
    DDN("l2", 1.0, targeted=True),
    FMN("linf", 1.0, targeted=True),
    FAB("l2", 1.0, steps=30, targeted=True),
    DeepFool("l2", 1.0, targeted=True),
], ids=["CW", "DDN", "FMN", "FAB", "DeepFool"])  # fmt: skip
def test_targeted_attacks_reach_their_class(attack):
    """The class of the lowest logit, which no untargeted attack would choose."""
    targets = jnp.argmin(problem.LOGITS_FN(KEY, problem.IMAGES), axis=-1)
    result = attack.minimal(KEY, problem.LOGITS_FN, problem.IMAGES, targets)
    assert np.all(result.found)
    reached = jnp.argmax(problem.LOGITS_FN(KEY, result.images), axis=-1)
    np.testing.assert_array_equal(reached, targets)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", losses.ESTIMATORS)
def test_a_boundary_is_that_of_the_average_that_is_asked_for(estimator, images, labels, weights):
    """Gap and slope against automatic differentiation of the averaged margin of two classes."""
    keys = prng.index_keys(KEY, INDICES)
    rivals = (labels + 1) % 4

    network = Partial(toy.noisy_network, weights, jnp.float32(2.0))

    def draws(images):
        return classifier.draws(network, keys, images, 3)

    def gap(images):
        def difference(logits, labels):
            rows = jnp.arange(6)
            return logits[..., rows, rivals] - logits[..., rows, labels]

        return losses.averaged(difference, estimator, draws(images), labels)

    attack = DeepFool("l2", 1.0, eot_samples=3, estimator=estimator)
    boundary, logits = attack.nearest_boundary(keys, network, images, labels, rivals[None])
    np.testing.assert_array_equal(logits, draws(images))
    np.testing.assert_allclose(boundary.gap, gap(images), rtol=1e-4, atol=1e-4)
    slope = jax.grad(lambda x: jnp.sum(gap(x)))(images)
    np.testing.assert_allclose(boundary.slope, slope, rtol=1e-3, atol=1e-4)
