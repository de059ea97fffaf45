"""What a network computes is part of its identity: another front end is another network."""

import dataclasses
import json

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests import networks
from tests.evaluation.tiny import tiny_trained
from tests.networks import changed, random_variables, small
from vone_jax import data, models, v1
from vone_jax.network import Network, ensemble
from vone_jax.network.network import describe


@pytest.fixture(scope="module")
def vone():
    model = small("vone_resnet18")
    return model, random_variables(model)


@pytest.mark.parametrize(
    "change",
    [
        {"k_exc": 1.0},
        {"gabor_seed": 5},
        {"image_mean": 0.4},
        {"noise": None},
        {"normalization": v1.SurroundNormalization()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_front_end_with_the_same_weights_has_another_description(vone, change):
    model, variables = vone
    altered = changed(model, v1=dataclasses.replace(model.v1, **change))
    one, other = (Network.of_model("net", each, variables) for each in (model, altered))
    assert one.checksum == other.checksum
    assert one.description != other.description
    assert one.description == Network.of_model("net", model, variables).description


def test_the_type_normalisation_preprocessing_and_bank_are_described(vone):
    model, variables = vone
    network = Network.of_model("net", model, variables)
    assert network.description["model"]["v1"]["k_exc"] == model.v1.k_exc
    assert json.loads(json.dumps(network.description)) == network.description
    halves = model.clone(dtype=jnp.bfloat16)
    mixed = Network.of_model("net", halves, variables).description
    assert mixed["model"]["dtype"] == "bfloat16" != network.description["model"]["dtype"]
    cropped = dataclasses.replace(network, preprocessing=data.Preprocessing(0.5))
    assert cropped.description != network.description
    bank = model.v1.gabor_parameters()
    flipped = dataclasses.replace(bank, phase=-bank.phase)
    banks = [changed(model, v1=dataclasses.replace(model.v1, bank=b)) for b in (bank, flipped)]
    assert describe(banks[0]) != describe(banks[1])
    base = models.create("resnet18", 3, width=2)
    assert describe(base) != describe(models.create("resnet18", 3, width=2, std=0.3))


@pytest.mark.parametrize("name", models.list_models())
def test_every_network_has_a_description(name):
    model = models.create(name, 3, image_size=64, width=4)
    assert json.dumps(describe(model), allow_nan=False)


def test_functions_are_identified_by_their_fingerprint():
    weights = jnp.ones((784, 10))

    def make(call, weights=weights, **fields):
        flat = lambda keys, images: call(images.reshape(-1, 784) @ weights)  # noqa: E731
        return Network("mine", flat, (28, 28, 1), **fields)

    first, again = make(jnp.tanh), make(jnp.tanh)
    assert (first.checksum, first.description) == (again.checksum, again.description)
    other = make(jax.nn.relu)
    doubled = make(jnp.tanh, 2 * weights)
    # Physiology records the features, so its results are of another network.
    features = make(jnp.tanh, features=lambda keys, images: {"image": images})
    assert len({each.checksum for each in (first, other, doubled, features)}) == 4
    assert first.parameters == features.parameters == 7840


def own_back_end(activation):
    """A back end of a user as a file defines it whose code was edited."""

    class Own(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return {"logits": nn.Dense(5)(activation(x).mean((1, 2)))}

    return Own()


def own_noise(factor):
    class Own(v1.GaussianNoise):
        def __call__(self, responses, z):
            return super().__call__(responses, factor * z)

    return Own(0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda code: small("resnet18", back_end=own_back_end((jnp.tanh, nn.relu)[code])),
        lambda code: small("vone_resnet18", back_end=own_back_end((jnp.tanh, nn.relu)[code])),
        lambda code: small("resnet18", stem_noise=own_noise((1.0, 2.0)[code])),
    ],
    ids=["base", "vone", "noise"],
)
def test_code_of_a_user_within_a_module_is_part_of_what_it_is(make):
    """Of the same name, with the same fields and weights."""
    variables = random_variables(make(0))
    first, again, other = (Network.of_model("net", make(code), variables) for code in (0, 0, 1))
    assert first.description == other.description and first.checksum == other.checksum
    assert first.program == again.program and first.program["digest"] != other.program["digest"]
    # Noise has a place of its own in a result, and weights have their checksum.
    assert first.with_noise(None).program == first.program
    doubled = jax.tree.map(lambda leaf: 2 * leaf, variables)
    assert Network.of_model("net", make(0), doubled).program == first.program
    assert Network.of_model("net", small("resnet18"), variables).program is None


def test_weights_that_are_replaced_in_place_have_another_checksum():
    """Otherwise a second evaluation would find the results of the first."""
    module = networks.Cnn(networks.nnx.Rngs(0))
    logits = lambda keys, images: module.features(images)["logits"]  # noqa: E731
    network = Network("trained", logits, (28, 28, 1))
    first, kernel = network.checksum, module.head.kernel[...]
    module.head.kernel[...] = 2 * kernel
    assert network.checksum == dataclasses.replace(network).checksum != first
    module.head.kernel[...] = kernel
    assert network.checksum == first


def test_exported_programs_with_other_weights_have_other_checksums():
    """An artefact holds its weights in the text of its program."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    images = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)

    def artefact(scale):
        weights = scale * np.ones((784, 10), np.float32)
        logits = jax.jit(lambda keys, images: images.reshape(len(images), -1) @ weights)
        return jax.export.export(logits, platforms=["cpu"])(keys, images).serialize()

    def checksum(artefact):
        return Network("artefact", jax.export.deserialize(artefact).call, (28, 28, 1)).checksum

    first, second = map(artefact, (1, 2))
    assert checksum(first) == checksum(first) != checksum(second)


def test_an_ensemble_is_identified_by_its_members():
    one, two = networks.cnn(), dataclasses.replace(networks.cnn(), name="two")
    scaled = dataclasses.replace(two, logits_fn=jax.tree.map(lambda x: 2 * x, two.logits_fn))
    assert ensemble([one, two]).checksum != ensemble([one, scaled]).checksum
    assert ensemble([one, two]).description == ensemble([one, scaled]).description


def test_what_follows_from_a_module_cannot_be_replaced(vone):
    model, variables = vone
    network = Network.of_model("plain", model, variables)
    for field in ("logits_fn", "features", "stochastic"):
        with pytest.raises((ValueError, TypeError), match=field):
            dataclasses.replace(network, **{field: None})
    zeros = dataclasses.replace(network, variables=jax.tree.map(jnp.zeros_like, variables))
    assert not any(leaf.any() for leaf in jax.tree.leaves(zeros.logits_fn))


def test_the_program_of_code_of_a_user_is_that_of_any_precision():
    """Another process may compute with other products, and knows the network all the same."""
    network = tiny_trained()
    with jax.default_matmul_precision("bfloat16"):
        coarse = network.program
    with jax.default_matmul_precision("highest"):
        assert network.program == coarse
