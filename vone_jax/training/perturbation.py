"""What is done to training images on the device: adversarial training, Gaussian-noise training.

References:
  Madry et al., 2018, arXiv:1706.06083: training on the images of a PGD attack.
  Wong, Rice and Kolter, 2020, arXiv:2001.03994: one step from a random start is enough if the step
    is 1.25 times the radius, ``PGD(norm, eps, steps=1, step_size=1.25 * eps, random_start=True)``.
  Rusak et al., 2020, arXiv:2001.06057: training with Gaussian noise, half of the images clean.
"""

import dataclasses
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vone_jax import prng
from vone_jax.attacks import PGD
from vone_jax.attacks.classifier import LogitsFn
from vone_jax.training.checks import check_number


@dataclasses.dataclass(frozen=True)
class GaussianImageNoise:
    """Independent Gaussian noise in every value, then clipped to [0, 1].

    Attributes:
      scale: standard deviation in pixel units.
      share: probability that an image is changed at all.

    Raises:
      ValueError: if a field is out of range; the message names it.
    """

    scale: float
    share: float = 0.5

    def __post_init__(self):
        check_number("scale", self.scale, positive=True)
        check_number("share", self.share, positive=True, most=1.0)

    def perturb(
        self, keys: jax.Array, logits_fn: LogitsFn, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        """Noisy images, in the form of ``attacks.Attack.perturb``; the network is not asked."""

        def one(key, image):
            noise = jax.random.normal(prng.stream(key, "noise"), image.shape, image.dtype)
            hit = jax.random.bernoulli(prng.stream(key, "share"), self.share)
            return jnp.where(hit, jnp.clip(image + self.scale * noise, 0.0, 1.0), image)

        return jax.vmap(one)(keys, images)


Perturbation = PGD | GaussianImageNoise | None


def perturbed(
    perturbation: PGD | GaussianImageNoise,
    model: nn.Module,
    variables: Any,
    keys: jax.Array,
    images: jax.Array,
    labels: jax.Array,
) -> jax.Array:
    """The images to train on.

    Args:
      perturbation: what is done.
      model: see ``models.create``.
      variables: the network as it is; batch norm uses its running values.
      keys: one per example, shape (N,).
      images: (N, H, W, C) in [0, 1].
      labels: int (N,).
    """

    def logits_fn(keys: jax.Array, images: jax.Array) -> jax.Array:
        return cast(jax.Array, model.apply(variables, images, train=False, noise_key=keys))

    return perturbation.perturb(keys, logits_fn, images, labels)
