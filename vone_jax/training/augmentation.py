"""Corruptions as augmentation: what happens to training images on the device, from keys alone."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from vone_jax import corruptions, prng

Augmentation = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def make_augmentation(
    names: tuple[str, ...], severities: tuple[int, int], probability: float
) -> Augmentation | None:
    """Corrupts some of the images of a batch.

    The batch draws one corruption and one severity, and each image whether it gets it: so a step
    computes one corruption, where a choice for each image would compute all of them. What an
    image gets depends on the key and its index, not on its place in the batch.

    Args:
      names: of ``corruptions.NAMES``; none: no augmentation.
      severities: lowest and highest, 1 to 5.
      probability: of an image to be corrupted.

    Returns:
      ``(key, images, indices) -> images`` with a scalar key, images (N, H, W, C) in [0, 1] and
      their numbers in the data set (N,); None if there is nothing to do.
    """
    if not names or not probability:
        return None
    low, high = severities
    branches = [
        partial(_corrupt, name, severity) for name in names for severity in range(low, high + 1)
    ]

    def augment(key: jax.Array, images: jax.Array, indices: jax.Array) -> jax.Array:
        choice = jax.random.randint(prng.stream(key, "choice"), (), 0, len(branches))
        keys = prng.index_keys(key, indices)
        corrupted = jax.lax.switch(choice, branches, prng.stream(keys, "draws"), images)
        draw = jax.vmap(lambda k: jax.random.bernoulli(k, probability))
        chosen = draw(prng.stream(keys, "chosen"))
        return jnp.where(chosen[:, None, None, None], corrupted, images)

    return augment


def _corrupt(name: str, severity: int, keys: jax.Array, images: jax.Array) -> jax.Array:
    return corruptions.corrupt(keys, images, name, severity)
