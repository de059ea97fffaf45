"""Changes of the training images on the device: corruptions, Gaussian noise, PRIME, attacks.

All randomness comes from keys, so an image's change depends on the key and on the index of the
image in the data set. It does not depend on the image's place in the batch.

References:
  Madry et al., 2018, arXiv:1706.06083: training on the images of a PGD attack.
  Wong, Rice and Kolter, 2020, arXiv:2001.03994: one step from a random start is enough if the step
    is 1.25 times the radius, ``PGD(norm, eps, steps=1, step_size=1.25 * eps, random_start=True)``.
  Rusak et al., 2020, arXiv:2001.06057: training with Gaussian noise, half of the images clean.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp

from vone_jax import arguments, corruptions, prng
from vone_jax.arguments import Positive, Range
from vone_jax.attacks import PGD
from vone_jax.attacks.classifier import LogitsFn
from vone_jax.experiments.prime import PRIME


def make_corruption(
    names: tuple[str, ...], severities: tuple[int, int], probability: float
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None:
    """Return a function that corrupts some images of a batch, or None if there is nothing to do.

    It is ``(key, images, indices) -> images`` with a scalar key, images (N, H, W, C) in [0, 1] and
    their indices in the data set (N,). It draws one corruption and one severity for the whole
    batch: with a draw for each image, all corruptions would be computed. For each image it draws
    whether the image is corrupted.
    """
    if not names or not probability:
        return None
    low, high = severities
    branches = [
        partial(corruptions.corrupt, name=name, severity=severity)
        for name in names
        for severity in range(low, high + 1)
    ]

    def corrupt(key: jax.Array, images: jax.Array, indices: jax.Array) -> jax.Array:
        choice = jax.random.randint(prng.stream(key, "choice"), (), 0, len(branches), jnp.int32)
        keys = prng.index_keys(key, indices)
        corrupted = jax.lax.switch(choice, branches, prng.stream(keys, "draws"), images)
        draw = jax.vmap(lambda k: jax.random.bernoulli(k, jnp.float32(probability)))
        chosen = draw(prng.stream(keys, "chosen"))
        return jnp.where(chosen[:, None, None, None], corrupted, images)

    return corrupt


@dataclasses.dataclass(frozen=True)
class GaussianImageNoise:
    """Independent Gaussian noise on every pixel value, then clipping to [0, 1]."""

    # Standard deviation in pixel units, > 0.
    scale: Positive
    # Probability that an image is changed, in (0, 1].
    share: Annotated[float, Range(most=1.0, above=True)] = 0.5

    def __post_init__(self):
        arguments.fields(self)

    def perturb(
        self, keys: jax.Array, logits_fn: LogitsFn, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        """Return noisy images. The signature is that of attacks; the network is not used."""

        def add_noise(key: jax.Array, image: jax.Array) -> jax.Array:
            noise = jax.random.normal(prng.stream(key, "noise"), image.shape, image.dtype)
            hit = jax.random.bernoulli(prng.stream(key, "share"), jnp.float32(self.share))
            return jnp.where(hit, jnp.clip(image + self.scale * noise, 0.0, 1.0), image)

        return jax.vmap(add_noise)(keys, images)


Perturbation = PGD | GaussianImageNoise | PRIME | None
