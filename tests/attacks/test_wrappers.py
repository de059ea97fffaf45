import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import mesh as meshes
from vone_jax import prng
from vone_jax.attacks import PGD, AutoAttack, InBatches, Square, Transfer


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


def test_a_plain_function_serves_as_surrogate():
    transfer = Transfer(PGD("l2", 0.1, steps=1), lambda key, x: problem.LOGITS_FN(key, x))
    adversarial = transfer(problem.KEY, masked, problem.IMAGES, problem.labels())
    assert np.all(adversarial.shape == problem.IMAGES.shape)
    assert np.any(adversarial != problem.IMAGES)


def test_a_surrogate_that_does_not_fit_is_refused():
    images, labels = jnp.full((2, 4, 4, 1), 0.5), jnp.asarray([0, 2])
    logits_fn = Partial(toy.linear, jnp.ones((16, 3)))
    surrogate = Partial(toy.linear, jnp.ones((16, 2)))
    transfer = Transfer(PGD("linf", 0.1, steps=1), surrogate)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 1\] for 2 classes"):
        transfer(jax.random.key(0), logits_fn, images, labels)


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


@pytest.mark.untyped
def test_bad_fields_are_refused():
    attack = PGD("l2", 0.1)
    with pytest.raises(TypeError, match="attack must be an Attack, got str"):
        Transfer("PGD", problem.LOGITS_FN)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="surrogate must be a function"):
        Transfer(attack, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="attack must be an Attack, got str"):
        InBatches("PGD", 4)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="size must be .* got 0"):
        InBatches(attack, 0)
    with pytest.raises(TypeError, match="mesh must be a Mesh or None, got int"):
        InBatches(attack, 4, 2)  # pyright: ignore[reportArgumentType]
    mesh = meshes.Mesh(np.asarray(jax.devices()[:2]), ("other",))
    explicit = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    for other in (mesh, explicit):
        with pytest.raises(ValueError, match="mesh must have the one axis 'data' of the type Auto"):
            InBatches(attack, 4, other)
