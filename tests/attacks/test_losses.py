import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.attacks import linear_problem as problem
from vone_jax import attacks
from vone_jax.attacks import losses

LABELS = jnp.asarray([0, 3, 1])


@pytest.fixture(scope="module")
def logits():
    return 3 * jax.random.normal(jax.random.key(0), (5, 3, 4))


def test_losses_equal_their_definitions(logits):
    ours = {name: jax.jit(loss)(logits, LABELS) for name, loss in losses.LOSSES.items()}
    for draw in np.ndindex(5, 3):
        z, y = np.asarray(logits, np.float64)[draw], int(LABELS[draw[1]])
        other, top = np.delete(z, y).max(), np.sort(z)[::-1]
        expected = {
            "cross_entropy": np.log(np.exp(z).sum()) - z[y],
            "margin": other - z[y],
            "dlr": -(z[y] - other) / (top[0] - top[2] + 1e-12),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(ours[name][draw], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("label", [25.0, -1e4])
def test_cross_entropy_keeps_its_digits_where_the_label_is_far_from_the_others(label):
    others = np.array([3.1, -2.3, 4.7])
    value, slope = jax.value_and_grad(lambda z: losses.cross_entropy(z, LABELS[:1])[0])(
        jnp.asarray([[label, *others]], jnp.float32)
    )
    ahead = np.log(np.exp(others).sum()) - label
    np.testing.assert_allclose(value, np.logaddexp(0, ahead), rtol=1e-5)
    wrong = np.exp(-np.logaddexp(0, -ahead))
    expected = wrong * np.array([-1, *np.exp(others) / np.exp(others).sum()])
    np.testing.assert_allclose(slope[0], expected, rtol=1e-5)


@pytest.mark.parametrize("label", [np.inf, -np.inf])
def test_cross_entropy_to_an_infinite_label_is_nan(label):
    value, slope = jax.jit(jax.value_and_grad(lambda z: losses.cross_entropy(z, LABELS[:1])[0]))(
        jnp.array([[label, 0.0, 1.0]])
    )
    assert np.isnan(value) and np.isnan(slope).all()


def test_averages_equal_their_definitions(logits):
    z = np.asarray(logits, np.float64)
    y = np.asarray(LABELS)

    def entropy(z):
        return np.log(np.exp(z).sum(-1)) - z[..., np.arange(3), y]

    probability = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    expected = {
        "mean_loss": entropy(z).mean(0),
        "mean_logits": entropy(z.mean(0)),
        "mean_probability": -np.log(probability.mean(0)[np.arange(3), y]),
    }
    for name, value in expected.items():
        ours = losses.averaged(losses.cross_entropy, name, logits, LABELS)
        np.testing.assert_allclose(ours, value, rtol=1e-5)


def test_targeted_dlr_equals_its_definition(logits):
    targets = jnp.asarray([2, 1, 3])
    ours = losses.targeted_dlr(logits, LABELS, targets)
    for k in range(5):
        for i in range(3):
            z = np.asarray(logits[k, i], np.float64)
            top = np.sort(z)[::-1]
            scale = top[0] - (top[2] + top[3]) / 2 + 1e-12
            expected = -(z[LABELS[i]] - z[targets[i]]) / scale
            np.testing.assert_allclose(ours[k, i], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="at least 4 classes, got 3"):
        losses.targeted_dlr(logits[..., :3], LABELS, targets)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_logit_of_nan_makes_each_loss_nan(name):
    """Also of a class that is neither the label nor the rival, among many."""
    logits = np.random.default_rng(0).standard_normal((2, 5000)).astype(np.float32)
    logits[1, 700] = np.nan
    found = jax.jit(losses.LOSSES[name])(logits, jnp.array([3, 3]))
    np.testing.assert_array_equal(np.isnan(found), [False, True])


def test_a_loss_of_nan_stays_the_strongest():
    """Whichever of several runs has it."""
    images = jnp.arange(3.0).reshape(3, 1, 1, 1)
    losses_of = jnp.array([[1.0, jnp.nan, 2.0], [jnp.nan, 1.0, 3.0], [0.0, 5.0, 1.0]])
    best = images, losses_of[0]
    for number, loss in enumerate(losses_of[1:], start=1):
        best = losses.higher(best, images + 10.0 * number, loss)
    np.testing.assert_array_equal(best[1], [jnp.nan, jnp.nan, 3.0])
    # So do its images, or what the attack returns would look like a result.
    np.testing.assert_array_equal(best[0].ravel(), [jnp.nan, 1.0, 12.0])


# A loss of one's own.


def doubled_margin(logits, labels):
    return 2 * losses.margin(logits, labels)


def test_a_function_for_a_loss_does_as_the_loss_that_it_is(batch, noisy):
    images, labels = batch

    def made(loss):
        attack = attacks.PGD(
            "l2", 0.5, 2, eot_samples=3, keep="best", loss=loss, estimator="mean_probability"
        )
        return attack(jax.random.key(3), noisy, images, labels)

    np.testing.assert_allclose(made(doubled_margin), made("margin"), atol=1e-6)


def test_a_loss_is_a_known_name_or_a_function_of_one_number_per_example(batch, noisy):
    images, labels = batch
    with pytest.raises(ValueError, match="loss must be one of .* did you mean 'margin'"):
        attacks.PGD("linf", 0.1, loss="margins")
    mean = attacks.PGD("linf", 0.1, steps=1, loss=lambda logits, labels: jnp.mean(logits))
    with pytest.raises(ValueError, match=r"loss must return one number per example, shape \(6,\)"):
        mean(jax.random.key(3), noisy, images, labels)
    # A name does not say what a function does, so a record of it would not either.
    with pytest.raises(TypeError, match="PGD.loss has no JSON form"):
        attacks.to_json(mean)


# An operation without a gradient.


def test_straight_through_has_the_values_of_one_function_and_the_derivative_of_the_other():
    rounded = attacks.straight_through(lambda x: jnp.round(4 * x) / 4, jnp.sin)
    x = jnp.linspace(0, 1, 7)
    np.testing.assert_array_equal(rounded(x), np.round(4 * np.asarray(x)) / 4)
    value, slope = jax.jvp(rounded, (x,), (jnp.full(7, 2.0),))
    np.testing.assert_array_equal(value, rounded(x))
    np.testing.assert_allclose(slope, 2 * np.cos(x), rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(rounded(x) ** 2))(x)
    np.testing.assert_allclose(gradient, 2 * rounded(x) * np.cos(x), rtol=1e-6)
    identity = attacks.straight_through(jnp.round)
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(identity(x)))(x), np.ones(7))


def test_an_attack_sees_through_rounded_pixels_and_through_a_whole_classifier():
    labels = problem.labels(problem.TWO_CLASSES)

    def rounded(keys, images):
        return problem.TWO_CLASSES(keys, jnp.round(images * 255) / 255)

    def through_pixels(keys, images):
        pixels = attacks.straight_through(lambda images: jnp.round(images * 255) / 255)(images)
        return problem.TWO_CLASSES(keys, pixels)

    fgsm = attacks.FGSM("linf", 0.05)
    blind = fgsm(problem.KEY, rounded, problem.IMAGES, labels)
    np.testing.assert_array_equal(blind, problem.IMAGES)
    sighted = fgsm(problem.KEY, problem.TWO_CLASSES, problem.IMAGES, labels)
    whole = attacks.straight_through(rounded, problem.TWO_CLASSES)
    for logits_fn in (through_pixels, whole):
        adversarial = fgsm(problem.KEY, logits_fn, problem.IMAGES, labels)
        np.testing.assert_allclose(adversarial, sighted, atol=1e-6)
