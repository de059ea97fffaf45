import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.attacks import linear_problem as problem
from vone_jax import prng
from vone_jax.attacks import losses, norms
from vone_jax.attacks.gradient_free import NOISES, RandomNoise
from vone_jax.attacks.norms import surface


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("norm", norms.NORMS)
def test_noise_has_the_norm_and_no_direction(norm, noise):
    keys = jax.vmap(jax.random.key)(jnp.arange(2000))
    drawn = surface(keys, (2, 3, 1), norm, jnp.float32, noise)
    np.testing.assert_allclose(norms.size(drawn, norm), 1.0, rtol=1e-5)
    assert np.abs(np.asarray(drawn).mean(axis=0)).max() < 4 / np.sqrt(2000)


def test_signs_are_the_corners_of_the_linf_ball():
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    drawn = surface(keys, (2, 3, 1), "linf", jnp.float32, "signs")
    np.testing.assert_array_equal(jnp.abs(drawn), 1.0)


def test_images_keep_to_the_box_and_to_their_keys():
    images = jnp.round(problem.IMAGES)
    labels = problem.labels()
    keys = prng.example_keys(problem.KEY, 16)
    attack = RandomNoise("l2", 0.5)
    noisy = attack(keys, problem.LOGITS_FN, images, labels)
    assert np.all(noisy >= 0) and np.all(noisy <= 1) and np.any(noisy != images)
    order = jnp.asarray([3, 1, 0, 9] * 4)
    other = attack(keys[order], problem.LOGITS_FN, images[order], labels[order])
    np.testing.assert_array_equal(other, noisy[order])
    unchanged = RandomNoise("l2", 0.0)(keys, problem.LOGITS_FN, images, labels)
    np.testing.assert_array_equal(unchanged, images)


def test_more_draws_raise_the_margin_and_stay_below_the_optimum():
    labels = problem.labels(problem.TWO_CLASSES)
    slope = problem.WEIGHTS[:, 1] - problem.WEIGHTS[:, 0]
    before = losses.margin(problem.TWO_CLASSES(problem.KEY, problem.IMAGES), labels)
    worst = -np.inf
    for draws in (1, 32):
        attack = RandomNoise("l2", 0.2, draws=draws)
        noisy = attack(problem.KEY, problem.TWO_CLASSES, problem.IMAGES, labels)
        gain = losses.margin(problem.TWO_CLASSES(problem.KEY, noisy), labels) - before
        assert np.all(gain >= worst - 1e-6)
        assert np.all(gain < 0.2 * jnp.linalg.norm(slope))
        worst = gain


def test_values_that_are_not_finite_raise():
    def broken(key, images):
        return problem.LOGITS_FN(key, images).at[1].set(jnp.nan)

    with pytest.raises(FloatingPointError, match=r"positions \[1\]"):
        RandomNoise("l2", 0.2, draws=2)(problem.KEY, broken, problem.IMAGES, problem.labels())


def test_bad_fields_are_refused():
    with pytest.raises(ValueError, match="noise must be one of uniform, gaussian, signs"):
        RandomNoise("l2", 0.5, noise="pink")
    with pytest.raises(ValueError, match="draws must be an integer >= 1"):
        RandomNoise("l2", 0.5, draws=0)
