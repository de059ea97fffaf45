"""An ensemble has the mean of the logits of its members, and the noise of each."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vone_jax
from tests import networks
from tests.networks import changed, small
from vone_jax import data, models, prng
from vone_jax.network import Network, Split, ensemble


def keys_and_images(network):
    images = np.random.default_rng(0).random((2, *network.image_shape), np.float32)
    return jax.random.split(jax.random.key(1), 2), jnp.asarray(images)


def mean_of_each(members, keys, images):
    each = [m.logits_fn(prng.fold(keys, i), images) for i, m in enumerate(members)]
    return jnp.mean(jnp.stack(each), axis=0)


def test_an_ensemble_has_the_noise_of_any_member_and_the_images_of_all():
    noisy, plain = (vone_jax.open_network(f"tests.networks:{name}") for name in ("noisy", "cnn"))
    both = ensemble([plain, noisy])
    assert both.stochastic and not ensemble([plain, plain]).stochastic
    keys, images = keys_and_images(plain)
    expected = mean_of_each([plain, noisy], keys, images)
    np.testing.assert_allclose(both.logits_fn(keys, images), expected, rtol=1e-5)
    images = Split("fashion_mnist_small", "test")
    seen = dataclasses.replace(plain, validation=images)
    assert ensemble([seen, seen]).validation == images
    other = dataclasses.replace(plain, validation=Split("fashion_mnist_small", "train"))
    assert ensemble([seen, other]).validation is None
    with pytest.raises(ValueError, match=r"layers of cnn\+noisy cannot be seen, it has no featur"):
        both.response_fn("first")


def test_members_that_do_not_fit_are_named():
    network = networks.cnn()
    with pytest.raises(ValueError, match="at least 2 members, got 1"):
        ensemble([network])
    cropped = dataclasses.replace(network, preprocessing=data.Preprocessing(0.5))
    with pytest.raises(ValueError, match="must have the same preprocessing"):
        ensemble([network, cropped])
    larger = dataclasses.replace(network, name="large", image_shape=(32, 32, 1))
    different = r"same image_shape: \(28, .* in member 1, cnn, and \(32, .* in member 2, large"
    with pytest.raises(ValueError, match=different):
        ensemble([network, larger])


@pytest.mark.slow
def test_variants_of_v1_share_the_program_behind_it():
    """They differ in their weights, their cells, their noise, and whether their bank is tuned."""
    model = small("vone_resnet18")
    simple = {"simple_channels": 16, "complex_channels": 0}
    members = [
        Network.of_model(f"variant-{number}", variant, models.init(variant, jax.random.key(number)))
        for number, variant in enumerate(
            changed(model, v1=dataclasses.replace(model.v1, **change))
            for change in ({}, simple, {"noise": None, "sf_max": 4.0}, {"tuned": True})
        )
    ]
    keys, images = keys_and_images(members[0])
    each = lambda keys, images: mean_of_each(members, keys, images)  # noqa: E731

    def value_and_slope(logits_fn):
        loss = lambda images: jnp.sum(jnp.sin(logits_fn(keys, images)))  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(images)

    network = ensemble(members)
    assert network.parameters == sum(member.parameters for member in members) > 0
    found, expected = value_and_slope(network.logits_fn), value_and_slope(each)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4 * np.abs(expected[1]).max())

    def operations(logits_fn):
        return jax.jit(logits_fn).lower(keys, images).as_text().count("stablehlo.rsqrt")

    # Each batch norm has one.
    assert operations(network.logits_fn) == operations(members[0].logits_fn)
    assert operations(each) == 4 * operations(members[0].logits_fn)
    # Members with maps of another stride keep their own program.
    coarse = changed(model, v1=dataclasses.replace(model.v1, stride=8))
    coarse = Network.of_model("coarse", coarse, models.init(coarse, jax.random.key(1)))
    mixed = [members[0], coarse]
    found = ensemble(mixed).logits_fn(keys, images)
    np.testing.assert_allclose(found, mean_of_each(mixed, keys, images), rtol=1e-4, atol=1e-5)
