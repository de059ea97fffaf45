"""Training on noisy and corrupted images, without a look at the network.

What an image draws depends on its key, not on its place in the batch.

Reference:
  Rusak et al., 2020, arXiv:2001.06057: training with Gaussian noise, half of the images clean.
"""

import dataclasses
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp

from vone_jax import arguments, corruptions, prng
from vone_jax.arguments import Positive, Range, Share
from vone_jax.training.objective import Batch, Context, Objective


@dataclasses.dataclass(frozen=True)
class Corruptions(Objective):
    """Common corruptions of training images.

    Each step draws one corruption and one severity for the whole batch: with a draw for each image,
    all corruptions would be computed. For each image it draws whether the image is corrupted.
    """

    stream = "augmentation"

    # Names of corruptions, such as fog; all but frost.
    names: tuple[str, ...]
    # Lowest and highest severity, 1 to 5.
    severity: tuple[int, int] = (1, 3)
    # Probability that an image is corrupted. The others stay unchanged.
    probability: Share = 0.5

    def __post_init__(self):
        arguments.fields(self)
        if isinstance(self.names, str) or not self.names:
            raise ValueError(f"names must be a tuple of corruptions, got {self.names!r}")
        # Frost needs photographs that the project cannot distribute.
        available = [name for name in corruptions.NAMES if name != "frost"]
        for name in self.names:
            arguments.choice("names", name, available)
        span, levels = self.severity, corruptions.SEVERITIES
        valid = isinstance(span, tuple) and len(span) == 2 and all(s in levels for s in span)
        if not valid or span[0] > span[1]:
            raise ValueError(
                f"severity must be a pair (low, high) with {levels[0]} <= low <= high "
                f"<= {levels[-1]}, got {span!r}"
            )

    def batch(self, context: Context, batch: Batch) -> Batch:
        low, high = self.severity
        branches = [
            partial(corruptions.corrupt, name=name, severity=severity)
            for name in self.names
            for severity in range(low, high + 1)
        ]
        choice_key = prng.stream(context.key, "choice")
        choice = jax.random.randint(choice_key, (), 0, len(branches), jnp.int32)
        draws = prng.stream(context.keys, "draws")
        corrupted = jax.lax.switch(choice, branches, draws, batch["image"])
        draw = jax.vmap(lambda key: jax.random.bernoulli(key, jnp.float32(self.probability)))
        chosen = draw(prng.stream(context.keys, "chosen"))[:, None, None, None]
        return batch | {"image": jnp.where(chosen, corrupted, batch["image"])}


@dataclasses.dataclass(frozen=True)
class GaussianImageNoise(Objective):
    """Independent Gaussian noise on every pixel value, then clipping to [0, 1]."""

    by_part = True
    stream = "perturbation"

    # Standard deviation in pixel units, above 0 and at most 1.
    scale: Positive
    # Probability that an image is changed, in (0, 1].
    share: Annotated[float, Range(most=1.0, above=True)] = 0.5

    def __post_init__(self):
        arguments.fields(self)
        arguments.within_images("scale", self.scale)

    def batch(self, context: Context, batch: Batch) -> Batch:
        return batch | {"image": self.perturb(context.keys, batch["image"])}

    def perturb(self, keys: jax.Array, images: jax.Array) -> jax.Array:
        """Return noisy images, with one key for each."""

        def add_noise(key: jax.Array, image: jax.Array) -> jax.Array:
            noise = jax.random.normal(prng.stream(key, "noise"), image.shape, image.dtype)
            hit = jax.random.bernoulli(prng.stream(key, "share"), jnp.float32(self.share))
            return jnp.where(hit, jnp.clip(image + self.scale * noise, 0.0, 1.0), image)

        return jax.vmap(add_noise)(keys, images)
