import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax.attacks import PGD, Strongest, Transfer


def masked(key, images):
    """Right where the linear classifier is right, but without a gradient."""
    return jnp.round(1000 * problem.LOGITS_FN(key, images))


@pytest.mark.slow
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


COUNT = 11


@pytest.fixture(scope="module")
def network():
    """A network with noise, more images than fit into whole batches, and the noise's keys."""
    logits_fn = Partial(toy.noisy_network, toy.make_network(0.5), 0.5)
    images = jax.random.uniform(jax.random.key(1), (COUNT, 8, 8, 1))
    labels = jnp.argmax(logits_fn(jax.random.key(2), images), axis=-1)
    return logits_fn, images, labels


@pytest.mark.parametrize(
    "size", [4, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 100))]
)
def test_the_images_are_those_of_all_at_once(network, size):
    """Also where batches are not full."""
    logits_fn, images, labels = network
    attack = PGD("l2", 0.5, steps=3, random_start=True, eot_samples=2)
    at_once = attack(problem.KEY, logits_fn, images, labels, batch_size=COUNT)
    found = attack(problem.KEY, logits_fn, images, labels, batch_size=size)
    assert found.shape == images.shape
    np.testing.assert_allclose(found, at_once, atol=1e-5)
    assert np.all(np.any(np.abs(at_once - images) > 1e-2, axis=(1, 2, 3)))


@pytest.mark.untyped
@pytest.mark.parametrize(
    "wrap", [lambda a: Transfer(a, problem.LOGITS_FN), lambda a: Strongest((a,))]
)
def test_a_surrogate_within_another_attack_is_checked_first(wrap):
    """An error of its own, and not of a loop."""
    transfer = Transfer(PGD("linf", 0.1), lambda keys, images: images)
    given = problem.KEY, problem.LOGITS_FN, problem.IMAGES, problem.labels()
    with pytest.raises((ValueError, TypeError)) as alone:
        transfer(*given)
    with pytest.raises(type(alone.value)) as within:
        wrap(transfer)(*given)
    assert str(within.value) == str(alone.value)


@pytest.mark.untyped
def test_bad_fields_are_refused():
    attack = PGD("l2", 0.1)
    for field, make in (
        ("attack", lambda: Transfer("PGD", problem.LOGITS_FN)),
        ("surrogate", lambda: Transfer(attack, 3)),
        (
            "batch_size",
            lambda: attack(
                problem.KEY, problem.LOGITS_FN, problem.IMAGES, problem.labels(), batch_size=0
            ),
        ),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^{field} must"):
            make()
