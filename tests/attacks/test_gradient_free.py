import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.attacks import linear_problem as problem
from vone_jax import functions, prng
from vone_jax.attacks import losses, norms
from vone_jax.attacks.gradient_free import NOISES, SPSA, RandomNoise
from vone_jax.attacks.norms import surface


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("norm", norms.NORMS)
def test_noise_has_the_norm_and_no_direction(norm, noise):
    keys = jax.vmap(jax.random.key)(jnp.arange(2000))
    images = jnp.full((2000, 2, 3, 1), 0.5)
    attack, labels = RandomNoise(norm, 0.25, noise=noise), jnp.zeros(2000, jnp.int32)
    moved = attack.run(keys, problem.LOGITS_FN, images, labels)
    drawn = (moved - images) / 0.25
    np.testing.assert_allclose(norms.size(drawn, norm), 1.0, rtol=1e-5)
    assert np.abs(np.asarray(drawn).mean(axis=0)).max() < 4 / np.sqrt(2000)


def test_the_first_noise_that_fools_or_that_of_the_largest_margin_is_kept():
    """With three classes, another one may have the largest cross-entropy."""
    keys, labels = prng.example_keys(problem.KEY, 16), problem.labels()
    images = problem.IMAGES

    @jax.vmap
    def noisy(number):
        noise = surface(prng.fold(keys, number), images.shape[1:], norms.L2(), images.dtype)
        return jnp.clip(images + 0.5 * noise, 0.0, 1.0)

    tried = jax.jit(noisy)(jnp.arange(4, dtype=jnp.uint32))
    logits = jnp.stack([problem.LOGITS_FN(keys, each) for each in tried])
    margins = np.asarray(losses.margin(logits, labels))
    fooled = margins > 0
    best = np.where(fooled.any(axis=0), fooled.argmax(axis=0), margins.argmax(axis=0))
    assert np.any(best != np.argmax(losses.cross_entropy(logits, labels), axis=0))
    assert 0 < fooled.any(axis=0).sum() < 16
    kept = RandomNoise("l2", 0.5, restarts=4)(keys, problem.LOGITS_FN, images, labels)
    np.testing.assert_allclose(kept, tried[best, np.arange(16)], atol=1e-6)


def gain(logits_fn, adversarial, labels):
    before = losses.margin(logits_fn(problem.KEY, problem.IMAGES), labels)
    return np.asarray(losses.margin(logits_fn(problem.KEY, adversarial), labels) - before)


def test_linear_classifier_approaches_the_closed_form():
    """The optimum is eps times the L1 norm of the weight difference; small weights are lost."""
    logits_fn = problem.TWO_CLASSES
    labels = problem.labels(logits_fn)
    slope = problem.WEIGHTS[:, 1] - problem.WEIGHTS[:, 0]
    best = 0.02 * float(jnp.sum(jnp.abs(slope)))
    attack = SPSA("linf", 0.02, steps=30, samples=64)
    adversarial = attack(problem.KEY, logits_fn, problem.IMAGES, labels)
    reached = gain(logits_fn, adversarial, labels)
    assert np.all(reached <= best * (1 + 1e-4)) and np.all(reached > 0.9 * best)
    assert np.all(jnp.abs(adversarial - problem.IMAGES) <= 0.02 + 1e-7)
    # The same run towards a class that is the label already moves away from the other one.
    other = SPSA("linf", 0.02, steps=30, samples=64, targeted=True)
    reached = gain(logits_fn, other(problem.KEY, logits_fn, problem.IMAGES, labels), labels)
    assert np.all(reached < -0.9 * best)


def test_one_step_follows_the_average_of_the_directions():
    """Adam's first step is the sign of the estimate, which each example draws for itself."""
    logits_fn = problem.TWO_CLASSES
    labels = problem.labels(logits_fn)
    keys = prng.example_keys(problem.KEY, 16)
    attack = SPSA("linf", 1.0, steps=1, samples=3, learning_rate=0.01)
    adversarial = attack(keys, logits_fn, problem.IMAGES, labels)
    step_keys = prng.fold(keys, 0)
    total = np.zeros(problem.IMAGES.shape)
    for number in range(3):
        way_keys = prng.stream(prng.fold(step_keys, number), "direction")
        way = np.stack([np.asarray(jax.random.rademacher(key, (5, 10, 1))) for key in way_keys])
        weights = np.asarray(problem.WEIGHTS)
        slope = (weights[:, 1] - weights[:, 0]) * (1 - 2 * np.asarray(labels))[:, None]
        total += np.einsum("nd,nd->n", slope, way.reshape(16, -1))[:, None, None, None] * way
    moved = (adversarial - problem.IMAGES) / 0.01
    clear = np.abs(total) > 1e-3  # differences of float32 logits leave noise around zero
    np.testing.assert_allclose(np.asarray(moved)[clear], np.sign(total)[clear], atol=1e-3)
    order = jnp.asarray([3, 1, 0] * 5 + [7])
    other = attack(keys[order], logits_fn, problem.IMAGES[order], labels[order])
    np.testing.assert_allclose(other, adversarial[order], atol=1e-6)


def test_noise_is_averaged_and_shared_by_both_sides():
    """Noise that adds to the logits cancels in the difference: the run equals that without."""
    logits_fn = problem.TWO_CLASSES
    labels = problem.labels(logits_fn)

    @functions.per_example
    def noisy(key, images):
        return logits_fn(key, images) + 5 * jax.random.normal(key, (images.shape[0], 2))

    attack = SPSA("linf", 0.02, steps=5, samples=32, eot_samples=2)
    reached = gain(logits_fn, attack(problem.KEY, noisy, problem.IMAGES, labels), labels)
    best = 0.02 * float(jnp.sum(jnp.abs(problem.WEIGHTS[:, 1] - problem.WEIGHTS[:, 0])))
    assert np.mean(reached) > 0.5 * best
