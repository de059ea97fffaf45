"""Attacks on networks that are written with plain convolutions, as most users have them."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vone_jax import attacks, fast

FAST = "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.random((4, 8, 8, 3)), jnp.float32)
LABELS = jnp.asarray([0, 1, 2, 3])
KEY = jax.random.key(0)
KERNEL = jnp.asarray(RNG.standard_normal((6, 3, 3, 3)) / 3, jnp.float32)


class Network(nn.Module):
    """A residual network with batch normalisation, a grouped and a dilated convolution."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3))(x))
        y = nn.Conv(6, (3, 3), feature_group_count=3, kernel_dilation=2, use_bias=False)(x)
        x = nn.relu(x + nn.BatchNorm(use_running_average=True)(y))
        x = nn.relu(nn.Conv(8, (3, 3), strides=(2, 2))(x))
        return nn.Dense(4)(x.reshape(x.shape[0], -1))


def flax_network():
    model = Network()
    variables = jax.jit(model.init)(jax.random.key(1), IMAGES)
    return lambda keys, images: model.apply(variables, images)


def channels_first(keys, images):
    """A network whose forward pass has another layout, and which adds noise."""
    numbers = ("NCHW", "OIHW", "NCHW")
    x = lax.conv_general_dilated(
        images.transpose(0, 3, 1, 2), KERNEL, (2, 2), "SAME", dimension_numbers=numbers
    )
    noise = jax.vmap(lambda key: jax.random.normal(key, (6,)))(keys)
    return jnp.tanh(x).mean((2, 3))[:, :4] + 0.01 * noise[:, :4]


CASES = {
    "PGD": (attacks.PGD("linf", 8 / 255, steps=3, eot_samples=2), flax_network),
    "APGD": (attacks.APGD("l2", 0.5, steps=3), lambda: channels_first),
    "FAB": (attacks.FAB("linf", 1.0, steps=5), flax_network),
}


def layouts(attack, logits_fn):
    lowered = jax.jit(lambda images: attack(KEY, logits_fn, images, LABELS)).lower(IMAGES)
    return set(re.findall(r"dim_numbers = (.*?), window", lowered.as_text()))


@pytest.mark.parametrize("name", CASES)
def test_the_program_has_fast_convolutions_only(name):
    attack, network = CASES[name]
    logits_fn = network()
    assert layouts(attack, logits_fn) == {FAST}
    with fast.plain():
        assert layouts(attack, logits_fn) - {FAST}
