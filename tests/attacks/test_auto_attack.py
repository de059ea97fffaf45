"""The ensemble: its members, the worst case per image, and that luck does not count."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import toy
from vone_jax import functions, mesh, prng
from vone_jax.attacks import (
    APGD,
    FAB,
    FGSM,
    Attack,
    AutoAttack,
    RandomNoise,
    Square,
    Strongest,
    norms,
)
from vone_jax.attacks.executor import Best, Verdict, stronger

KEY = jax.random.key(11)


@pytest.fixture(scope="module")
def batch():
    images = jax.random.uniform(jax.random.key(1), (10, 8, 8, 1))
    network = Partial(toy.noisy_network, toy.make_network(0.0), jnp.float32(0.0))
    return network, images, jnp.argmax(network(KEY, images), axis=-1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Darken(Attack):
    """Takes eps from every value: the cheapest attack."""

    norm: str
    eps: float

    def run(self, keys, logits_fn, images, labels):
        return jnp.maximum(images - self.eps, 0.0)


def small(eps=0.02):
    """Two members, of which the second beats images that the first does not."""
    members = (Darken("linf", eps), APGD("linf", eps, steps=6))
    return Strongest(members)


def resisting(network, images, labels):
    return np.asarray(jnp.argmax(network(KEY, images), axis=-1) == labels)


# The members of Croce and Hein.


def test_standard_members():
    for norm in ("linf", "l2"):
        assert AutoAttack(norm, 0.1).members(10) == (
            APGD(norm, 0.1),
            APGD(norm, 0.1, loss="targeted_dlr", targets=9),
            FAB(norm, 0.1, targets=9),
            Square(norm, 0.1, queries=5000, rescale_schedule=False),
        )
    assert AutoAttack("l1", 6.0).members(1000) == (
        APGD("l1", 6.0, restarts=5, large_eps_schedule=True),
        APGD("l1", 6.0, loss="targeted_dlr", targets=5, large_eps_schedule=True),
        FAB("l1", 6.0, targets=9),
        Square("l1", 6.0, queries=5000, rescale_schedule=False),
    )


def test_members_of_the_other_versions():
    assert AutoAttack("l2", 0.5, version="plus").members(10) == (
        APGD("l2", 0.5, restarts=5),
        APGD("l2", 0.5, restarts=5, loss="dlr"),
        FAB("l2", 0.5, restarts=5),
        Square("l2", 0.5, rescale_schedule=False),
        APGD("l2", 0.5, loss="targeted_dlr"),
        FAB("l2", 0.5, targets=9),
    )
    assert AutoAttack("linf", 0.1, version="rand").members(10) == (
        APGD("linf", 0.1, eot_samples=20),
        APGD("linf", 0.1, loss="dlr", eot_samples=20),
    )
    assert all(member.steps == 100 and member.rho == 0.75 for member in
               (*AutoAttack("linf", 0.1).members(10)[:2],
                *AutoAttack("linf", 0.1, version="rand").members(10)))  # fmt: skip


# The worst case.


def test_it_is_the_worst_case_of_its_members(batch):
    """With noise off an image resists if and only if it resists every member."""
    network, images, labels = batch
    ensemble = small()
    survivors = np.ones(10, bool)
    for number, member in enumerate(ensemble.attacks):
        keys = prng.stream(prng.example_keys(KEY, 10), f"member {number}")
        left = resisting(network, member(keys, network, images, labels), labels)
        assert np.any(survivors & ~left)
        survivors &= left
    best = ensemble.choose(KEY, network, images, labels, batch_size=4)
    adversarial = best.images
    np.testing.assert_array_equal(resisting(network, adversarial, labels), survivors)
    # The first member that fools an image is named.
    dark, members = adversarial <= images, len(ensemble.attacks)
    assert set(best.winner.tolist()) <= {*range(members + 1)}
    assert np.all(dark[best.winner == 0]) and np.all(best.winner[~survivors] < members)
    assert 0 < survivors.sum() < 10
    # Where no member is stronger, it is the image itself.
    np.testing.assert_array_equal(small(eps=0.0).choose(KEY, network, images, labels).winner, 2)
    assert np.all(norms.size(adversarial - images, "linf") <= 0.02 * (1 + 1e-6) + 2.0**-24)
    assert np.all(adversarial >= 0) and np.all(adversarial <= 1)


@pytest.mark.slow
def test_leaving_out_what_has_fallen_changes_nothing(batch):
    """In portions of any size, under jit with no image left out, and in any batch."""
    network, images, labels = batch
    keys = prng.index_keys(KEY, jnp.arange(20, 30))
    whole = small()(keys, network, images, labels, batch_size=10)
    packed = small()(keys, network, images, labels, batch_size=4)
    np.testing.assert_allclose(packed, whole, atol=1e-6)
    parts = [slice(0, 4), slice(4, 8)]
    alone = [small()(keys[part], network, images[part], labels[part]) for part in parts]
    np.testing.assert_allclose(jnp.concatenate(alone), whole[:8], atol=1e-6)
    traced = jax.jit(lambda x: small()(keys, network, x, labels))(images)
    np.testing.assert_allclose(traced, whole, atol=1e-6)


@pytest.mark.slow
def test_four_devices_equal_one(batch):
    network, images, labels = batch
    keys = prng.example_keys(KEY, 8)
    alone = small()(keys, network, images[:8], labels[:8])
    four = mesh.data_mesh(jax.devices()[:4])
    spread = jax.device_put((keys, images[:8], labels[:8]), mesh.sharded(four))
    together = small()(spread[0], mesh.replicate(four, network), *spread[1:])
    np.testing.assert_allclose(together - alone, 0, atol=1e-6)  # where the second one is


# Noise.


def score(logits_fn, images, draws=5):
    keys = jax.vmap(jax.random.key)(jnp.arange(draws) + 1000)
    return np.asarray(jnp.argmax(jax.vmap(logits_fn, (0, None))(keys, images), axis=-1) == 0)


@pytest.mark.slow
def test_the_coin_is_reported_as_it_is():
    """Right with probability p whatever the image, so p has to come out, and not p cubed.

    The members are those of version "rand", in number and in losses, with fewer steps.
    """
    p, images = 0.7, jax.random.uniform(jax.random.key(1), (500, 4, 4, 1))
    labels = jnp.zeros(500, jnp.int32)
    coin = Partial(toy.coin, jnp.float32(p))
    members = tuple(APGD("linf", 1e-9, steps=2, eot_samples=4, loss=loss)
                    for loss in ("cross_entropy", "dlr"))  # fmt: skip
    adversarial = Strongest(members)(KEY, coin, images, labels, batch_size=500)
    right = score(coin, adversarial)
    assert abs(right.mean() - p) < 4 * np.sqrt(p * (1 - p) / right.size)
    assert abs(right.mean() - p**3) > 8 * np.sqrt(p * (1 - p) / right.size)


@pytest.mark.slow
def test_the_candidate_that_is_right_least_often_is_kept():
    """The second candidate is right in 40 % of the draws, the others in 80 %: it is kept."""

    @functions.per_example
    def halfway(key, images):
        dark = jnp.mean(images, axis=(1, 2, 3)) < 0.47
        right = jax.random.uniform(key, (images.shape[0],)) < jnp.where(dark, 0.4, 0.8)
        first = jnp.where(right, 1.0, -1.0)
        return jnp.stack([first, -first], axis=-1) + 1e-6 * jnp.sum(images, axis=(1, 2, 3))[:, None]

    images = jnp.full((200, 4, 4, 1), 0.5)
    labels = jnp.zeros(200, jnp.int32)

    members = (RandomNoise("linf", 0.05), Darken("linf", 0.05), RandomNoise("linf", 0.05))
    attack = Strongest(members)
    right = score(halfway, attack(KEY, halfway, images, labels))
    assert abs(right.mean() - 0.4) < 4 * np.sqrt(0.24 / right.size)


# Errors.


@pytest.mark.parametrize(("version", "least"), [("standard", 4), ("rand", 3)])
def test_classifiers_of_too_few_classes_are_refused_before_any_compute(version, least):
    calls = []

    def counted(key, images):
        jax.debug.callback(lambda: calls.append(1))
        return images.reshape(images.shape[0], -1)[:, : least - 1]

    images, labels = jnp.full((2, 2, 2, 1), 0.5), jnp.asarray([0, 1])
    attack = AutoAttack("linf", 0.1, version=version)
    with pytest.raises(ValueError, match=f"at least {least} classes.*got {least - 1}"):
        attack(KEY, counted, images, labels)
    jax.effects_barrier()
    assert not calls
    assert attack.members(least)


@pytest.mark.untyped
def test_members_that_do_not_fit_are_refused():
    fgsm = FGSM("linf", 0.1)
    for attacks in (
        [fgsm], ("apgd",), (), (fgsm, FGSM("linf", 0.1, targeted=True)), (fgsm, FGSM("l2", 0.1)),
        (fgsm, FGSM("linf", 0.2)),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match="^attacks must"):
            Strongest(attacks)


def test_a_result_that_is_not_finite_is_not_replaced_by_a_later_one():
    """A comparison with NaN picks some class, which may be the label."""
    images = jnp.full((1, 1, 1, 1), 0.5)
    right, wrong = (Verdict(jnp.full(1, each), -jnp.ones(1)) for each in (20.0, 10.0))
    broken = Verdict(right.right, jnp.full(1, jnp.nan))
    best = stronger(Best(images, right, jnp.full(1, 2)), images, broken, 0)
    best = stronger(best, images, wrong, 1)
    assert np.isnan(best.images).all() and best.verdict.right[0] == 0 and best.winner[0] == 0
