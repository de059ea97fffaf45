"""The classes that a network takes photographs for, with its confidence over noise draws."""

import functools
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vone_jax import arguments, functions, prng
from vone_jax.data.images import decode_image
from vone_jax.data.sources import checksum
from vone_jax.network import Network

# Photographs at a time.
_BATCH = 32


def predict(
    network: Network,
    files: Sequence[str | os.PathLike],
    key: Key[Array, ""],
    noise_draws: int = 10,
) -> Float[np.ndarray, "draws files classes"]:
    """Return the probabilities of the classes, for each noise draw and each image file.

    The draws of an image follow from the key and its pixels, so they do not depend on the other
    files. A network without noise has one draw.

    Raises:
      ValueError: if a file is no image, or has other channels than the network takes.
      FileNotFoundError: if a file does not exist.
    """
    prng.check_key(key)
    arguments.count("noise_draws", noise_draws)
    size = network.image_size
    prepare = network.preprocessing.resolved((None, None, network.in_channels), size)
    images = [prepare(decode_image(file, network.in_channels), size) for file in files]
    numbers = np.array([checksum(image, 0) for image in images], np.uint32)
    keys = prng.index_keys(prng.stream(key, "predict"), numbers)
    draws = noise_draws if network.stochastic else 1
    compute = jax.jit(functools.partial(_probabilities, draws=draws))
    found = []
    for start in range(0, len(images), _BATCH):
        # The last batch repeats its last image, so that nothing is compiled again.
        places = np.minimum(np.arange(start, start + min(_BATCH, len(images))), len(images) - 1)
        pixels = jnp.asarray(np.stack([images[place] for place in places]), jnp.float32) / 255
        logits_fn = functions.as_pytree(network.logits_fn, keys[places], pixels)
        found.append(np.asarray(compute(logits_fn, keys[places], pixels)))
    return np.concatenate(found, axis=1)[:, : len(images)]


def _probabilities(logits_fn, keys: prng.Keys, images: Array, *, draws: int) -> Array:
    def once(draw: Array) -> Array:
        return jax.nn.softmax(logits_fn(prng.fold(keys, draw), images))

    return jax.lax.map(once, jnp.arange(draws, dtype=jnp.uint32))
