"""Small classifiers with known answers, shared by the tests of attacks and evaluation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vone_jax import functions, prng


def linear(weights, key, images):
    """Logits x.W, without noise."""
    return images.reshape(images.shape[0], -1) @ weights


def with_noise(logits_fn, scale, keys, images):
    """The logits of a classifier with normal noise added to them."""
    logits = logits_fn(keys, images)
    keys = prng.example_keys(keys, images.shape[0])
    return logits + scale * jax.vmap(lambda key: jax.random.normal(key, logits.shape[1:]))(keys)


def convolve(images, kernels, stride=1):
    return jax.lax.conv_general_dilated(
        images, kernels, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def make_network(scale, bank_filters=6, hidden=5, classes=4, channels=1):
    """Weights of ``noisy_network``; no class is preferred on average at noise of ``scale``."""
    keys = jax.random.split(jax.random.key(7), 4)
    weights = {
        "bank": jax.random.normal(keys[0], (3, 3, channels, bank_filters)),
        "body": jax.random.normal(keys[1], (3, 3, bank_filters, hidden)) / 3,
        "head": 20 * jax.random.normal(keys[2], (hidden, classes)),
        "bias": jnp.zeros(classes),
    }
    images = jax.random.uniform(keys[3], (64, 8, 8, channels))
    logits = noisy_network(weights, scale, jax.random.key(8), images)
    return weights | {"bias": -jnp.mean(logits, axis=0)}


def noisy_network(weights, scale, key, images):
    """A tiny VOneNet: fixed filters, noise per example, a convolution, a mean, a linear map."""
    responses = jax.nn.relu(convolve(images - 0.5, weights["bank"]))
    noise = waves(prng.example_keys(key, images.shape[0]), responses.shape[1:])
    hidden = jax.nn.relu(convolve(responses + scale * noise, weights["body"], 2))
    return jnp.mean(hidden, axis=(1, 2)) @ weights["head"] + weights["bias"][None]


def waves(keys, shape):
    """Noise of mean 0 and variance 1 from the bits of a key: compiles faster than a generator."""
    phase = jax.random.key_data(keys).astype(jnp.float32) * 2.0**-32
    frequency = np.random.default_rng(0).integers(1, 200, (2, 1, *shape)).astype(np.float32)
    phase = phase.reshape(keys.shape[0], 2, *(1,) * len(shape))
    turns = phase[:, 0] * frequency[0] + phase[:, 1] * frequency[1]
    return math.sqrt(2) * jnp.cos(2 * math.pi * turns)


def coin(p, keys, images):
    """Right (class 0) with probability p whatever the image: no attack exists."""
    return functions.per_example(Partial(_flip, p))(keys, images)


def _flip(p, key, images):
    """One draw with a single key. The images get a foothold of 1e-6: no gradient is zero."""
    heads = jax.random.uniform(key, (images.shape[0],)) < p
    other = jnp.where(heads, 0.0, 2.0)
    logits = jnp.stack([jnp.ones_like(other), other] + [jnp.zeros_like(other)] * 8, axis=-1)
    return logits + 1e-6 * images.reshape(images.shape[0], -1)[:, :10]


def assert_coin_is_right(p, images):
    """With probability p on fresh keys, up to four standard errors."""
    keys = jax.vmap(jax.random.key)(jnp.arange(5))
    logits = jax.vmap(Partial(coin, jnp.float32(p)), (0, None))(keys, images)
    right = np.asarray(jnp.argmax(logits, axis=-1) == 0)
    assert abs(right.mean() - p) < 4 * np.sqrt(p * (1 - p) / right.size), right.mean()


def assert_coin_resists(key, attack, p=0.9, images=None):
    """The images that the attack makes of these are misclassified no more often."""
    if images is None:
        images = jax.random.uniform(jax.random.key(1), (400, 4, 4, 1))
    labels = jnp.zeros(len(images), jnp.int32)
    assert_coin_is_right(p, attack(key, Partial(coin, jnp.float32(p)), images, labels))


def assert_inside(adversarial, images, norm, eps):
    """In the ball of radius eps and in the box of the pixels."""
    delta = np.asarray(adversarial, np.float64) - np.asarray(images, np.float64)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    length = np.linalg.norm(delta.reshape(len(delta), -1), ord=order, axis=1)
    # Each value of an image is rounded to half a unit in the last place of 1.
    rounding = np.full(delta[0].size, 2.0**-24)
    assert np.all(length <= eps * (1 + 2**-22) + np.linalg.norm(rounding, ord=order))
    assert np.all(adversarial >= 0) and np.all(adversarial <= 1)
