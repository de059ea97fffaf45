"""A VOneBlock in front of networks that this project did not write: Linen and NNX."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vone_jax import v1

CONFIG = v1.VOneBlockConfig(
    simple_channels=4, complex_channels=4, image_size=32, visual_degrees=1.0, kernel_size=9
)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).random((2, 32, 32, 3)), jnp.float32)


def check_linen(trunk, images, features):
    """The recipe: the block, a 1x1 convolution to what the trunk expects, the trunk."""
    network = nn.Sequential(
        [v1.VOneBlock(CONFIG), nn.Conv(features, (1, 1), use_bias=False), trunk]
    )
    key, first, second = jax.random.split(jax.random.key(0), 3)
    variables = jax.jit(network.init)({"params": key, "noise": key}, images)
    assert not any("layers_0" in name for name in variables["params"])  # Nothing to learn in V1.

    @jax.jit
    def run(noise, images):
        def logits(x):
            return network.apply(variables, x, rngs={"noise": noise}, mutable=["batch_stats"])[0]

        output, pullback = jax.vjp(logits, images)
        return output, pullback(jnp.ones_like(output))[0]

    output, gradient = run(first, images)
    np.testing.assert_array_equal(output, run(first, images)[0])
    assert np.abs(output - run(second, images)[0]).max() > 1e-5
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


class Trunk(nn.Module):
    """A plain network of Flax layers."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), (2, 2))(x))
        return nn.Dense(5)(x.mean((1, 2)))


def test_a_network_of_flax_layers(images):
    check_linen(Trunk(), images, 8)


@pytest.mark.extras
def test_a_network_of_another_package(images):
    flaxmodels = pytest.importorskip("flaxmodels", reason="flaxmodels is not installed")
    # The package promotes types and ranks implicitly.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        trunk = flaxmodels.ResNet18(
            output="logits", pretrained=None, normalize=False, num_classes=5
        )
        check_linen(trunk, images, 3)


class NnxTrunk(nnx.Module):
    """A network in Flax's other API."""

    def __init__(self, rngs):
        self.front = nnx.bridge.ToNNX(v1.VOneBlock(CONFIG), rngs=rngs)
        self.bottleneck = nnx.Conv(8, 8, (1, 1), use_bias=False, rngs=rngs)
        self.conv = nnx.Conv(8, 8, (3, 3), strides=2, rngs=rngs)
        self.fc = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x, noise_key):
        x = self.bottleneck(self.front(x, noise_key=noise_key))
        return self.fc(nnx.relu(self.conv(x)).mean((1, 2)))


@pytest.mark.slow
def test_a_network_of_nnx(images):
    """Flax's bridge makes the block an NNX module; the key is an ordinary argument."""
    network = NnxTrunk(nnx.Rngs(params=0))
    keys = jax.random.key(1), jax.random.key(2)
    front = network.front(images, noise_key=keys[0])
    np.testing.assert_array_equal(front, v1.VOneBlock(CONFIG).apply({}, images, noise_key=keys[0]))
    logits = network(images, keys[0])
    np.testing.assert_array_equal(logits, network(images, keys[0]))
    assert np.abs(logits - network(images, keys[1])).max() > 1e-5
    gradients = nnx.grad(lambda network: network(images, keys[0]).var())(network)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients["bottleneck"]))
