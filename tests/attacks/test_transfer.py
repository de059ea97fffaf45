import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax.attacks import PGD
from vone_jax.attacks.wrappers import Transfer


def masked(key, images):
    """Right where the linear classifier is right, but without a gradient."""
    return jnp.round(1000 * problem.LOGITS_FN(key, images))


def test_it_is_the_attack_on_the_surrogate():
    labels = problem.labels()
    attack = PGD("l2", 0.1, steps=4, random_start=True)
    transfer = Transfer(attack, problem.LOGITS_FN)
    ours = transfer(problem.KEY, masked, problem.IMAGES, labels)
    expected = attack(problem.KEY, problem.LOGITS_FN, problem.IMAGES, labels)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert (transfer.norm, transfer.eps) == ("l2", 0.1)
    # The transfer shows what the masked gradients hide.
    direct = PGD("l2", 0.1, steps=4)(problem.KEY, masked, problem.IMAGES, labels)
    np.testing.assert_array_equal(direct, problem.IMAGES)
    assert np.mean(jnp.argmax(masked(problem.KEY, ours), axis=-1) != labels) > 0.9


def test_other_weights_and_radii_compile_once(programs):
    labels = problem.labels()
    before = programs()
    for seed, eps in ((0, 0.1), (1, 0.2)):
        weights = jax.random.normal(jax.random.key(seed), (50, 3))
        transfer = Transfer(PGD("linf", eps, steps=2), Partial(toy.linear, weights))
        transfer(problem.KEY, masked, problem.IMAGES, labels)
    assert programs() - before == 1


def test_a_plain_function_serves_as_surrogate():
    transfer = Transfer(PGD("l2", 0.1, steps=1), lambda key, x: problem.LOGITS_FN(key, x))
    adversarial = transfer(problem.KEY, masked, problem.IMAGES, problem.labels())
    assert np.all(adversarial.shape == problem.IMAGES.shape)
    assert np.any(adversarial != problem.IMAGES)


def test_a_surrogate_that_does_not_fit_is_refused():
    images, labels = jnp.full((2, 4, 4, 1), 0.5), jnp.asarray([0, 2])
    logits_fn = Partial(toy.linear, jnp.ones((16, 3)))
    for surrogate, message in (
        (Partial(toy.linear, jnp.ones((16, 2))), r"labels must lie in \[0, 1\] for 2 classes"),
        (lambda key, x: jax.nn.softmax(x.reshape(2, -1)), "got probabilities"),
    ):
        with pytest.raises(ValueError, match=message):
            Transfer(PGD("linf", 0.1, steps=1), surrogate)(
                jax.random.key(0), logits_fn, images, labels
            )


@pytest.mark.untyped
def test_bad_fields_are_refused():
    with pytest.raises(TypeError, match="attack must be an Attack, got str"):
        Transfer("PGD", problem.LOGITS_FN)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="logits_fn must be a function"):
        Transfer(PGD("l2", 0.1), 3)  # pyright: ignore[reportArgumentType]
