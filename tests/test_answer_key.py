"""The exact answers: against the frequency of decisions, brute force, and attacks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from vone_jax import answer_key, attacks, evaluation, prng
from vone_jax.answer_key import decoders

EXACT = ("linear", "linear_classes", "energy", "shared_gain", "switched_noise", "quantised")
FEW = {"linear_classes": {"classes": 4}}


def made(name, **given):
    return answer_key.PROBLEMS[name](**(FEW.get(name, {}) | given))


def frequency(problem, images, draws):
    """The share of ``draws`` decisions that are right, (N,)."""

    def right(key):
        logits = problem.logits_fn(prng.example_keys(key, len(images)), images)
        return jnp.argmax(logits, axis=-1) == problem.labels

    keys = jax.random.split(jax.random.key(7), draws)
    return np.asarray(jax.jit(lambda keys: jax.lax.map(right, keys))(keys)).mean(axis=0)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "v1_templates" else [])
        for name in answer_key.PROBLEMS
    ],
)
def test_the_probability_of_images_is_the_frequency_of_right_decisions(name):
    examples = {} if name == "v1_templates" else {"examples": 40, "shape": (4, 4)}
    problem, draws = made(name, **examples), 1000
    # Images that an attack has moved, too.
    moved = jnp.clip(problem.images + 0.01 * jnp.sign(problem.images - 0.45), 0.0, 1.0)
    for images in (problem.images, moved):
        exact = problem.probability(images)
        # 4.5 standard errors, and what a hundredth of a draw would change.
        error = 4.5 * np.sqrt(exact * (1 - exact) / draws) + 0.01
        assert np.all(np.abs(frequency(problem, images, draws) - exact) < error)
        assert 0.5 < exact.mean() < 1


def inside(norm, eps, image, rng):
    """Perturbations (K, D) within the radius and the range of pixels: many, on the ends and in."""
    size = image.size
    grid = np.linspace(-1, 1, 9)
    lattice = np.array(list(itertools.product(grid, repeat=size)))
    # Finer on the surface, where the worst case often is.
    lattice = np.concatenate([lattice, rng.uniform(-1, 1, (20_000, size))])
    if norm != "linf":
        order = {"l1": 1, "l2": 2}[norm]
        length = np.linalg.norm(lattice, order, axis=1, keepdims=True)
        on = lattice / np.maximum(length, 1e-9)
        lattice = np.concatenate([on, lattice[length[:, 0] <= 1], np.eye(size), -np.eye(size)])
    # Shortening a coordinate to its range leaves the ball convex: it stays inside.
    return np.clip(image + eps * lattice, 0, 1) - image


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", EXACT)
def test_the_worst_case_is_that_of_brute_force_in_four_dimensions(name, norm):
    """At usual radii, and at one at which pixels meet the ends of their range."""
    rng = np.random.default_rng(0)
    for seed, eps in itertools.product(range(6), (0.03, 0.06, 0.45)):
        # The probability of one image, with its label, takes many versions of it.
        problem = made(name, examples=1, shape=(1, 4), seed=seed)
        image = np.asarray(problem.images, np.float64).reshape(-1)
        several = image + inside(norm, eps, image, rng)
        least = problem.probability(several.reshape(-1, 1, 4, 1)).min()
        (low,), (high,) = bounds = problem.bounds(eps, norm)
        assert low - 2e-4 <= least <= high + 0.03
        if name != "linear_classes" or norm == "linf":
            assert bounds[0] is bounds[1]
            assert problem.exact(eps, norm) == low
        else:
            with pytest.raises(ValueError, match=f"only bounds are known in norm {norm}"):
                problem.exact(eps, norm)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_steepest_perturbation_is_that_of_a_linear_program_or_a_search(norm):
    """Against SciPy's solvers, for features with zeros and radii beyond the range of the pixels."""
    rng = np.random.default_rng(1)
    for eps in (0.05, 0.7, 5.0):
        image, feature = rng.uniform(0, 1, 7), rng.normal(size=7) * (np.arange(7) != 3)
        found = answer_key.steepest(feature[None], image, eps, norm)[0]
        order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
        assert np.linalg.norm(found, order) <= eps * (1 + 1e-9)
        assert np.all(image + found >= -1e-12) and np.all(image + found <= 1 + 1e-12)
        ends = np.stack([-image, 1 - image], axis=1)
        if norm == "linf":
            best = scipy.optimize.linprog(-feature, bounds=np.clip(ends, -eps, eps)).fun
        elif norm == "l1":
            # d = up - down with both >= 0.
            split = [*((0, end) for end in 1 - image), *((0, end) for end in image)]
            both = np.concatenate([-feature, feature])
            best = scipy.optimize.linprog(both, np.ones((1, 14)), [eps], bounds=split).fun
        else:
            best = scipy.optimize.minimize(
                lambda d, feature=feature: -feature @ d, np.zeros(7), jac=lambda d, f=feature: -f,
                bounds=ends, method="SLSQP", options={"ftol": 1e-12, "maxiter": 500},
                constraints={"type": "ineq", "fun": lambda d, eps=eps: eps**2 - d @ d},
            ).fun  # fmt: skip
        assert feature @ found == pytest.approx(-best, rel=1e-5)


def test_a_linear_decoder_loses_what_the_dual_norm_says():
    """Where no pixel meets the end of its range, for y = 1 and -1."""
    problem, eps = made("linear", shape=(8, 8)), 0.01
    (weights,) = np.asarray(problem.logits_fn.args[0], np.float64)
    rows = np.asarray(problem.images, np.float64).reshape(len(problem.images), -1) - 0.5
    own = np.where(problem.labels, 1, -1) * (rows @ weights)
    for norm, dual in (("linf", 1), ("l2", 2)):
        least = own - eps * np.linalg.norm(weights, dual)
        expected = scipy.special.ndtr(least / decoders._DEVIATION)
        np.testing.assert_allclose(problem.exact(eps, norm), expected, atol=1e-9)


@pytest.mark.parametrize("name", ["linear", "linear_classes", "shared_gain"])
def test_an_attack_that_averages_draws_reaches_the_truth_and_no_more(name):
    problem, eps = made(name, examples=40, shape=(8, 8)), answer_key.RADIUS
    attack = attacks.PGD("linf", eps, steps=10, eot_samples=20, loss="margin")
    arrays = problem.logits_fn, problem.images, problem.labels
    found = problem.probability(attack(jax.random.key(0), *arrays))
    exact = problem.exact(eps, "linf")
    assert np.all(found >= exact - 1e-4)
    assert found.mean() - exact.mean() < 0.01
    assert problem.probability(problem.images).mean() - exact.mean() > 0.1


@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.filterwarnings("ignore:PGD decides by single draws")
def test_an_early_stop_gives_up_little_of_the_truth_under_noise(draws):
    """The first step at which all draws are wrong by luck would leave 20 and 10 points too many."""
    problem, eps = made("linear", examples=100, shape=(8, 8)), answer_key.RADIUS
    attack = attacks.PGD("linf", eps, steps=64, eot_samples=draws, early_stop=True)
    arrays = problem.logits_fn, problem.images, problem.labels
    found = problem.probability(attack(jax.random.key(0), *arrays))
    assert found.mean() - problem.exact(eps, "linf").mean() < 0.01


def gradients(problem, images):
    keys = jax.random.split(jax.random.key(1), len(images))

    def total(images):
        logits = problem.logits_fn(keys, images)
        return jnp.sum(logits[:, 0] ** 2 + 3 * logits[:, 1])

    return np.abs(np.asarray(jax.grad(total)(images))).max(axis=(1, 2, 3))


def test_gradients_vanish_at_symmetric_images_and_behind_steps():
    problem = made("energy")
    flat = gradients(problem, problem.images) == 0
    assert 0.3 < flat.mean() < 0.7
    lost = problem.probability(problem.images) - problem.exact(answer_key.RADIUS, "linf")
    assert np.all(lost[flat] > 0.5)
    problem = made("quantised", shape=(8, 8))
    assert np.all(gradients(problem, problem.images) == 0)


@pytest.mark.slow
def test_robust_accuracy_is_the_truth_where_gradients_vanish():
    """Its default attack has random starts. PGD from the image itself leaves 30 points too many."""
    problem, eps = made("energy"), answer_key.RADIUS
    arrays = problem.logits_fn, problem.images, problem.labels
    truth = problem.exact(eps, "linf").mean()
    with pytest.warns(UserWarning, match="gradient that is zero"):
        found = evaluation.robust_accuracy(jax.random.key(0), *arrays, "linf", eps)
    low, high = found.interval
    assert low < truth < high
    assert abs(found.accuracy - truth) < 0.03
    standing = attacks.PGD("linf", eps, steps=20, eot_samples=4)(jax.random.key(0), *arrays)
    assert problem.probability(standing).mean() > truth + 0.2


@pytest.mark.parametrize("name", ["linear", "linear_classes", "energy", "v1_templates"])
def test_a_question_on_another_scale_is_refused(name):
    """A name such as "Linf" got the answer for L2, and a radius of 8 all of the range."""
    problem = made(name, examples=4)
    for eps, norm, told in (
        (8 / 255, "Linf", "norm must be one of .*'linf'"),
        (8.0, "linf", "did you mean 8/255"),
        (-1.0, "l2", "eps must be"),
        (np.nan, "l1", "eps must be"),
    ):
        for ask in (problem.bounds, problem.exact):
            with pytest.raises(ValueError, match=told):
                ask(eps, norm)
    with pytest.raises(ValueError, match="images must lie in"):
        problem.probability(255 * problem.images)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_gain_is_least_right_at_the_turning_point(norm):
    """The threshold is above the mean: the minimum of (a - t) / sqrt(r^2 + g^2 a^2), by SciPy.

    At a radius that holds the turning point, the least probability of class 1 is there.
    """
    threshold, gain, added = 6.0, 0.1, 0.2
    minimum = scipy.optimize.minimize_scalar(
        lambda a: (a - threshold) / np.hypot(added, gain * a), bounds=(-50, 5), method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    problem = made("shared_gain", shape=(4, 4))
    one = np.asarray(problem.labels) == 1
    radius = {"linf": 0.45, "l2": 1.8, "l1": 8.0}[norm]
    found = np.log(problem.exact(radius, norm)[one])
    # At the ends of what the pixels reach it is 1e-57 or more, and 1e-219 at the turning point.
    np.testing.assert_allclose(found, scipy.special.log_ndtr(minimum.fun), rtol=1e-6)


def test_the_gradient_of_the_mean_misleads_where_the_image_switches_the_noise():
    problem, eps = made("switched_noise"), answer_key.RADIUS
    weights = np.asarray(problem.logits_fn.args[0], np.float64)
    rows = np.asarray(problem.images, np.float64).reshape(len(problem.images), -1)
    sign = np.where(problem.labels, -1.0, 1.0)
    along = (rows + eps * sign[:, None] * np.sign(weights[0])).reshape(problem.images.shape)
    assert problem.probability(along).mean() - problem.exact(eps, "linf").mean() > 0.05


def test_an_attack_on_the_templates_lies_between_the_certificate_and_the_bound():
    problem, eps = made("v1_templates", examples=6), answer_key.RADIUS / 8
    low, high = problem.bounds(eps, "linf")
    assert np.all(low < high) and np.all(high < problem.probability(problem.images))
    with pytest.raises(ValueError, match="only bounds"):
        problem.exact(eps, "linf")
    attack = attacks.PGD("linf", eps, steps=10, eot_samples=10)
    arrays = problem.logits_fn, problem.images, problem.labels
    found = problem.probability(attack(jax.random.key(0), *arrays))
    assert np.all(found >= low) and np.all(found >= high - 0.02)
