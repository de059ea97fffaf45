"""Whole networks: noise wiring, training mode, precision, devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.networks import MeanBackEnd, random_variables
from vone_jax import models, prng, v1

CONFIG = v1.VOneBlockConfig(4, 4, image_size=16, visual_degrees=0.5, kernel_size=5, stride=2)


@pytest.fixture(scope="module")
def model():
    """A network whose back end compiles fast."""
    return models.create(
        "vone_resnet18", 10, v1=CONFIG, back_end=MeanBackEnd(10, norm=True), width=6
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((8, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(model, images):
    key = jax.random.key(0)
    return jax.jit(lambda x: model.init({"params": key, "noise": key}, x))(images)


@pytest.fixture(scope="module")
def call():
    return jax.jit(lambda fn, key, x: fn(key, x))


def test_rngs_noise_key_and_logits_fn_agree(model, variables, images, call):
    key = jax.random.key(1)
    logits = call(models.logits_fn(model, variables), key, images)
    by_rngs = jax.jit(lambda v, x: model.apply(v, x, rngs={"noise": key}))(variables, images)
    np.testing.assert_allclose(by_rngs, logits, rtol=1e-4, atol=1e-4)
    keys = prng.example_keys(key, 8)
    by_example = call(models.logits_fn(model, variables), keys, images)
    np.testing.assert_allclose(by_example, logits, rtol=1e-4, atol=1e-4)


def test_an_example_has_the_same_logits_in_any_batch(model, variables, images, call):
    fn = models.logits_fn(model, variables)
    key = jax.random.key(1)
    whole = call(fn, prng.index_keys(key, jnp.arange(8)), images)
    half = call(fn, prng.index_keys(key, jnp.arange(4, 8)), images[4:])
    np.testing.assert_allclose(half, whole[4:], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_logits_are_the_same_on_four_devices(model, variables, images, call):
    fn = models.logits_fn(model, variables)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    everywhere = jax.device_put(fn, NamedSharding(mesh, PartitionSpec()))
    np.testing.assert_allclose(
        call(everywhere, jax.random.key(2), sharded),
        call(fn, jax.random.key(2), images),
        rtol=1e-4,
        atol=1e-4,
    )


def test_an_empty_batch_has_empty_logits_and_gradients(model, variables):
    fn, images = models.logits_fn(model, variables), jnp.zeros((0, 16, 16, 3))
    for keys in (jax.random.key(0), jax.random.split(jax.random.key(0), 3)[:0]):
        total = lambda images: jnp.sum(fn(keys, images))  # noqa: B023, E731
        assert fn(keys, images).shape == (0, 10)
        assert jax.jit(jax.grad(total))(images).shape == images.shape


def test_logits_fn_does_not_compile_again_for_other_weights(model, variables, images):
    traces = []

    @jax.jit
    def evaluate(fn, x):
        traces.append(1)
        return fn(jax.random.key(0), x)

    first = evaluate(models.logits_fn(model, variables), images)
    other = jax.tree.map(lambda leaf: 1.1 * leaf, variables)
    assert not np.allclose(evaluate(models.logits_fn(model, other), images), first)
    assert len(traces) == 1


def test_features_contain_the_parts_of_v1(model, variables, images):
    features = jax.jit(
        lambda v, x: model.apply(v, x, noise_key=jax.random.key(0), method="features")
    )(variables, images)
    quiet = jnp.concatenate([features["v1.simple"], features["v1.complex"]], -1)
    np.testing.assert_allclose(quiet, v1.noise_free_responses(model.v1, images), rtol=1e-5)
    block = v1.VOneBlock(model.v1).apply({}, images, noise_key=jax.random.key(0))
    np.testing.assert_allclose(features["v1"], block, rtol=1e-4, atol=1e-4)
    kernel = variables["params"]["bottleneck"]["kernel"][0, 0]
    np.testing.assert_allclose(
        features["bottleneck"], features["v1"] @ kernel, rtol=1e-3, atol=1e-3
    )


def test_without_noise_the_key_does_not_matter(model, variables, images, call):
    assert models.is_stochastic(model)
    quiet = models.without_noise(model)
    assert not models.is_stochastic(quiet)
    assert models.without_noise(quiet) is quiet
    fn = models.logits_fn(quiet, variables)
    one, other = (call(fn, jax.random.key(k), images) for k in (0, 1))
    np.testing.assert_array_equal(one, other)
    noisy = call(models.logits_fn(model, variables), jax.random.key(0), images)
    assert not np.allclose(noisy, one)


def test_training_moves_batch_statistics_and_every_parameter_has_a_gradient(images):
    model = models.create("vone_resnet18", 10, v1=CONFIG, width=4)
    variables = random_variables(model)

    def loss(params):
        logits, updates = model.apply(
            {**variables, "params": params},
            images,
            train=True,
            noise_key=jax.random.key(0),
            mutable=["batch_stats"],
        )
        return jnp.sum(jax.nn.logsumexp(logits, axis=-1) - logits[:, 0]), updates

    gradient, updates = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), updates["batch_stats"], variables["batch_stats"]
    )
    assert min(jax.tree.leaves(moved)) > 0
    assert set(variables) == {"params", "batch_stats"}


def test_bfloat16_keeps_parameters_statistics_v1_and_logits_in_float32(images):
    model = models.create("vone_resnet18", 10, v1=CONFIG, width=4)
    mixed = model.clone(dtype=jnp.bfloat16)
    assert mixed == models.create("vone_resnet18", 10, v1=CONFIG, width=4, dtype=jnp.bfloat16)
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda x: mixed.init(key, x, noise_key=key), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    features = jax.eval_shape(
        lambda v, x: mixed.apply(v, x, noise_key=key, method="features"), variables, images
    )
    assert features["v1"].dtype == features["logits"].dtype == jnp.float32
    assert features["layer1"].dtype == jnp.bfloat16


# Noise behind the stem of a base network: the control "noise alone".


class Stem(nn.Module):
    def __call__(self, x, train):
        return {"stem": nn.relu(x)}


class BackEnd(nn.Module):
    def __call__(self, x, train):
        return {"logits": jnp.mean(x, axis=(1, 2))}


@pytest.fixture(scope="module")
def noisy_base():
    return models.create(
        "resnet18", 3, 16, front_end=Stem(), back_end=BackEnd(), mean=0.0, std=0.1,
        stem_noise=v1.NeuronalNoise(0.5, 0.1), stem_gain=2.5,
    )  # fmt: skip


def example_keys(order=slice(None)):
    return prng.index_keys(jax.random.key(1), jnp.arange(8)[order])


def test_stem_noise_is_the_noise_of_v1_in_its_place(noisy_base, images):
    features = noisy_base.apply({}, images, noise_key=jax.random.key(1), method="features")
    assert list(features) == ["stem", "stem.noise", "logits"]
    np.testing.assert_allclose(features["stem"], images / np.float32(0.1), rtol=1e-6)
    mean = 2.5 * np.asarray(features["stem"], np.float64)
    # In spikes the variance is the mean, where rectification leaves the noise alone.
    large = mean > 10
    z = (np.asarray(features["stem.noise"]) - mean)[large] * 0.5
    z /= np.sqrt(0.5 * mean[large] + 0.1 + 1e-4)
    assert large.sum() > 3000
    assert abs(z.mean()) < 4 / np.sqrt(large.sum())
    assert abs(z.std() - 1) < 4 / np.sqrt(2 * large.sum())


def test_stem_noise_belongs_to_the_example(noisy_base, images, call):
    fn = models.logits_fn(noisy_base, {})
    whole = call(fn, example_keys(), images)
    half = call(fn, example_keys(slice(4, 8)), images[4:])
    np.testing.assert_allclose(half, whole[4:], rtol=2e-6)
    assert not np.allclose(call(fn, example_keys(slice(None, None, -1)), images), whole)
    key = jax.random.key(1)
    by_rngs = noisy_base.apply({}, images, rngs={"noise": key})
    np.testing.assert_allclose(by_rngs, call(fn, key, images), rtol=2e-6)


def test_noise_is_taken_away_and_given(noisy_base, images, model):
    assert models.is_stochastic(noisy_base)
    assert models.noise_of(noisy_base) == v1.NeuronalNoise(0.5, 0.1)
    quiet = models.without_noise(noisy_base)
    assert not models.is_stochastic(quiet)
    # The gain stays: what follows was trained behind it.
    logits = quiet.apply({}, images)
    np.testing.assert_allclose(logits, 25 * images.mean(axis=(1, 2)), rtol=1e-4)
    assert models.with_noise(quiet, v1.NeuronalNoise(0.5, 0.1)) == noisy_base
    assert models.with_noise(models.without_noise(model), model.v1.noise) == model


def test_stem_noise_needs_a_key_and_a_stem(noisy_base, images):
    with pytest.raises(ValueError, match="needs a key: pass rngs"):
        noisy_base.apply({}, images)
    with pytest.raises(ValueError, match="stem_noise is for networks without V1"):
        models.create("vone_resnet18", 10, 32, stem_noise=v1.NeuronalNoise())
    made = models.create("resnet18", 10, 32, stem_noise=v1.GaussianNoise(1.0), stem_gain=2.0)
    assert models.noise_of(made) == v1.GaussianNoise(1.0) and made.spec.stem_gain == 2.0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        # The larger transformers and ConvNeXts have the same modules as the smallest.
        *(
            (name, {})
            for name in models.list_models(
                exclude_filters=["vone_*", "ev_*", "vit_[bls]*", "convnext_[bs]"]
            )
        ),
        ("vit_ti16", {"attachment": "conv_stem"}),
    ],
)
def test_noise_that_rectifies_is_refused_behind_a_stem_with_negative_responses(name, options):
    model = models.create(name, 3, image_size=32, **options)
    variables = jax.tree.map(lambda values: values - 1.0, random_variables(model))
    variables["batch_stats"] = jax.tree.map(jnp.ones_like, variables.get("batch_stats", {}))
    images = np.random.default_rng(0).random((1, 32, 32, 3)).astype(np.float32)
    stem = nn.apply(lambda model, x: list(model.stem(x, False).values())[-1], model)
    lowest = float(jnp.min(stem(variables, jnp.asarray(images - 0.5))))
    for noise in (v1.NeuronalNoise(), v1.GaussianNoise(1.0), v1.StabilisedNoise()):
        if lowest < 0:
            with pytest.raises(ValueError, match="responses of either sign.*FanoNoise"):
                models.create(name, 3, image_size=32, stem_noise=noise, **options)
            with pytest.raises(ValueError, match="responses of either sign"):
                models.with_noise(model, noise)
        else:
            assert models.noise_of(models.with_noise(model, noise)) == noise
    signed = models.with_noise(model, v1.FanoNoise())
    assert models.noise_of(signed) == v1.FanoNoise()


@pytest.mark.parametrize(
    "name", ["vone_cornet_z", pytest.param("resnet18", marks=pytest.mark.slow)]
)
def test_new_variables_are_those_of_the_module_up_to_rounding(name):
    network = models.create(name, 10, image_size=28, in_channels=1, width=4)
    made = models.init(network, jax.random.key(3))
    params, noise = jax.random.split(jax.random.key(3))
    shape = jnp.zeros((1, 28, 28, 1))
    expected = jax.jit(network.init)({"params": params, "noise": noise}, shape)
    assert jax.tree.structure(made) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    # As a part of another program, also with a key from outside, and for an ensemble's networks.
    shapes = jax.eval_shape(lambda: models.init(network, jax.random.key(3)))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, expected)
    keys = jax.random.wrap_key_data(jnp.stack([jax.random.key_data(jax.random.key(3))] * 2))
    stacked = jax.jit(jax.vmap(lambda key: models.init(network, key)))(keys)
    for ours, theirs in zip(jax.tree.leaves(stacked), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, jnp.stack([theirs] * 2), rtol=1e-5, atol=1e-6)
