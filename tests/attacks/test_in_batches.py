import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import mesh as meshes
from vone_jax import prng
from vone_jax.attacks import PGD, AutoAttack, InBatches, Square

COUNT = 11


@pytest.fixture(scope="module")
def network():
    """A network with noise, more images than fit into whole batches, and the noise's keys."""
    logits_fn = Partial(toy.noisy_network, toy.make_network(0.5), 0.5)
    images = jax.random.uniform(jax.random.key(1), (COUNT, 8, 8, 1))
    labels = jnp.argmax(logits_fn(jax.random.key(2), images), axis=-1)
    return logits_fn, images, labels


@pytest.mark.slow
@pytest.mark.parametrize("devices", [None, 1, 3])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_images_are_those_of_all_at_once(network, size, devices):
    """Also where batches are not full, and where some devices have less to do."""
    logits_fn, images, labels = network
    attack = PGD("l2", 0.5, steps=3, random_start=True, eot_samples=2)
    mesh = None if devices is None else meshes.data_mesh(jax.devices()[:devices])
    at_once = attack(problem.KEY, logits_fn, images, labels)
    found = InBatches(attack, size, mesh)(problem.KEY, logits_fn, images, labels)
    assert found.shape == images.shape
    np.testing.assert_allclose(found, at_once, atol=1e-5)
    assert np.all(np.any(np.abs(at_once - images) > 1e-2, axis=(1, 2, 3)))


def test_only_so_many_images_are_held_at_a_time(network):
    logits_fn, images, labels = network
    seen = []

    def watched(key, x):
        seen.append(x.shape[0])
        return logits_fn(key, x)

    attack = InBatches(PGD("linf", 0.02, steps=1), 3, meshes.data_mesh(jax.devices()[:2]))
    program = jax.jit(lambda keys: attack.perturb(keys, watched, images, labels))
    program.lower(prng.example_keys(problem.KEY, COUNT))
    assert set(seen) == {3}


def test_radii_share_a_compiled_function_and_the_attack_may_be_any(network):
    logits_fn, images, labels = network
    traced = []

    @jax.jit
    def run(attack):
        traced.append(attack)
        return attack(problem.KEY, logits_fn, images, labels)

    for eps in (0.1, 0.2):
        found = run(InBatches(Square("linf", eps, queries=3), 4))
        assert 0.05 < jnp.max(jnp.abs(found - images)) <= eps + 1e-6
    assert len(traced) == 1


def test_members_of_autoattack_may_be_made_in_batches(network):
    logits_fn, images, labels = network
    member = PGD("linf", 0.05, steps=2)
    results = [
        AutoAttack("linf", 0.05, version="custom", attacks=(one,), judge_draws=4)(
            problem.KEY, logits_fn, images, labels
        )
        for one in (member, InBatches(member, 4))
    ]
    np.testing.assert_allclose(*results, atol=1e-5)


def test_bad_fields_are_refused():
    attack = PGD("l2", 0.1)
    with pytest.raises(TypeError, match="attack must be an Attack, got str"):
        InBatches("PGD", 4)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="size must be .* got 0"):
        InBatches(attack, 0)
    with pytest.raises(TypeError, match="mesh must be a Mesh or None, got int"):
        InBatches(attack, 4, 2)  # pyright: ignore[reportArgumentType]
    mesh = meshes.Mesh(np.asarray(jax.devices()[:2]), ("other",))
    with pytest.raises(ValueError, match="mesh must have the one axis 'data', got"):
        InBatches(attack, 4, mesh)
