"""Fast forms and networks in a mesh as ``jax.make_mesh`` makes it, with an Explicit axis."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import attacks, fast, models, prng, v1
from vone_jax.fast import in_fast_layout

ORDER = np.array([2, 0, 3, 1])


def kernel(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32) / shape[0]


def convolved(*shape, stride=1):
    padding = [(shape[0] // 2, shape[0] // 2)] * 2
    return lambda x: fast.convolve(x, kernel(*shape), (stride, stride), padding)


def descended(x):
    """A loop over the gradient of a convolution, whose layouts are rewritten."""

    def slope(x):
        return jax.grad(lambda x: jnp.sum(jnp.sin(convolved(3, 3, 5, 2)(x))))(x)

    return in_fast_layout(lambda x: jax.lax.fori_loop(0, 2, lambda _, x: x - slope(x), x))(x)


# Functions of images, with the shape of one image.
FORMS = {
    "blocks": (
        lambda x: fast.correlate_blocks(x, [kernel(7, 7, 3, 4), kernel(7, 7, 3, 2)], 4),
        (14, 14, 3),
    ),
    "one by one": (convolved(1, 1, 3, 2), (6, 6, 3)),
    "patches": (convolved(3, 3, 3, 4, stride=2), (9, 9, 3)),
    "small maps": (convolved(3, 3, 8, 4), (2, 2, 8)),
    "band": (convolved(9, 9, 1, 2, stride=2), (12, 12, 1)),
    "depthwise": (
        lambda x: fast.convolve_depthwise(x, kernel(3, 3, 1, 4), (2, 2), [(1, 1)] * 2),
        (7, 7, 4),
    ),
    "permute": (lambda x: fast.permute(x, ORDER), (2, 3, 4)),
    "groups": (lambda x: fast.by_groups(lambda _, x: jnp.tanh(x), (2,), x), (3, 3, 5)),
    "by rows": (lambda x: fast.by_rows(jnp.tanh, x), (8, 256, 256)),
    "one image at a time": (lambda x: fast.one_by_one(jnp.tanh, x), (4, 4, 1)),
    "stage": (lambda x: fast.stage(jnp.tanh, x), (4, 4, 1)),
    "rounds": (
        lambda x: fast.repeated(jnp.int32(2), 3, lambda number, x: x * jnp.cos(x), x),
        (4, 4, 1),
    ),
    "shared by draws": (
        lambda x: jax.vmap(lambda z: z * fast.shared_by_draws(x, z), out_axes=1)(
            jnp.stack([x, 2.0 * x])
        ),
        (4, 4, 1),
    ),
    "fast layout": (descended, (8, 8, 5)),
    "gain control": (v1.GainControl(), (4, 4, 2)),
}


@pytest.fixture
def mesh():
    return jax.make_mesh((4,), ("data",))


def split(mesh, tree):
    return jax.device_put(tree, jax.NamedSharding(mesh, jax.P("data")))


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("name", FORMS)
def test_a_fast_form_and_its_gradient_are_the_same_and_stay_split(mesh, name, platform):
    form, shape = FORMS[name]
    images = np.random.default_rng(0).random((4, *shape)).astype(np.float32)

    @jax.jit
    def both(images):
        def total(images):
            results = form(images)
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(results)), results

        slope, results = jax.grad(total, has_aux=True)(images)
        return results, slope

    with fast.forms_of(platform):
        expected = both(images)
        with jax.set_mesh(mesh):
            found = both(split(mesh, images))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.sharding.spec[0] == "data"
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_draws_are_the_same_bits_and_stay_split(mesh):
    keys = prng.index_keys(jax.random.key(0), np.arange(4))
    draw = jax.jit(jax.vmap(lambda key: fast.standard_normal(key, (3, 3, 2))))
    expected = draw(keys)
    with jax.set_mesh(mesh):
        found = draw(split(mesh, keys))
    assert found.sharding.spec[0] == "data"
    np.testing.assert_array_equal(found, expected)


def network(name):
    fields: dict = {"image_size": 16, "in_channels": 1}
    if name.startswith("vone_"):
        small = dataclasses.replace(
            models.v1_config(16, 1), simple_channels=4, complex_channels=4, kernel_size=9
        )
        fields = {"v1": small}
        if name == "vone_vit_s16":
            fields |= {"patch_size": 4, "depth": 2, "heads": 2}
        if name == "vone_convnext_t":
            fields |= {"depth": (1, 1)}
    model = models.create(name, 3, width=4, **fields)
    return model, models.init(model, jax.random.key(0))


@pytest.mark.parametrize(
    "name",
    ["vone_cornet_z", "vone_vit_s16"]
    + [
        pytest.param(each, marks=pytest.mark.slow)
        for each in ("resnet18", "vone_resnet18", "vone_convnext_t")
    ],
)
def test_a_network_is_attacked_and_trained_as_on_one_device(mesh, name):
    """PGD with averaged noise, then a step along the gradient of the parameters in training."""
    model, variables = network(name)
    images = np.random.default_rng(0).random((4, 16, 16, 1)).astype(np.float32)
    labels, keys = np.arange(4) % 3, prng.index_keys(jax.random.key(1), np.arange(4))
    attack = attacks.PGD("l2", 0.5, steps=2, eot_samples=2)

    @jax.jit
    def attacked_and_trained(variables, keys, images, labels):
        found = attack(keys, models.logits_fn(model, variables), images, labels)

        def loss(params):
            logits, _ = model.apply(
                variables | {"params": params}, found, True, keys, mutable=["batch_stats"]
            )
            return -jnp.mean(jax.nn.log_softmax(logits)[:, 0]), logits

        slope, logits = jax.grad(loss, has_aux=True)(variables["params"])
        return found, logits, jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], slope)

    expected = attacked_and_trained(variables, keys, images, labels)
    with jax.set_mesh(mesh):
        whole = jax.device_put(variables, jax.NamedSharding(mesh, jax.P()))
        found = attacked_and_trained(whole, *split(mesh, (keys, images, labels)))
    assert found[0].sharding.spec[0] == found[1].sharding.spec[0] == "data"
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
