"""Mixup and CutMix: each training image is mixed with another one of its batch.

References:
  Zhang et al., mixup: beyond empirical risk minimization, ICLR 2018, arXiv:1710.09412.
  Yun et al., CutMix: regularization strategy to train strong classifiers, 2019, arXiv:1905.04899.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from vone_jax import arguments, prng
from vone_jax.arguments import Range, Share
from vone_jax.training.objective import Batch, Context, Objective


@dataclasses.dataclass(frozen=True)
class Mixing(Objective):
    """Mixup and CutMix of each image and its label with those of the example before it.

    Mixup takes the mean of the two images with weights s and 1 - s, s from Beta(alpha, alpha).
    CutMix replaces a rectangle, whose sides are sqrt(1 - s) of those of the image before it is cut
    off at the edges. The shares of the labels are those of the pixels. The draws of an example
    depend on its key alone, its partner on the order of the batch.

    The batch gets ``other_label`` (N,), the label of the smaller share, and ``share`` (N,), that of
    ``label``, from 0.5 to 1.
    """

    replaces_losses = True
    stream = "mixing"

    # Both numbers of the Beta distribution of the shares in mixup; 0 is no mixup.
    mixup: Annotated[float, Range()] = 0.2
    # The same in CutMix; 0 is no CutMix.
    cutmix: Annotated[float, Range()] = 0.0
    # Probability of CutMix where both are on.
    switch: Share = 0.5
    # Probability that an image is mixed.
    probability: Share = 1.0

    def __post_init__(self):
        arguments.fields(self)
        if not self.mixup and not self.cutmix:
            raise ValueError("mixup and cutmix must not both be 0, leave Mixing out")

    def batch(self, context: Context, batch: Batch) -> Batch:
        others, other_labels = (jnp.roll(batch[name], 1, axis=0) for name in ("image", "label"))
        images, shares = jax.vmap(self._mixed)(context.keys, batch["image"], others)
        most = shares >= 0.5
        return batch | {
            "image": images,
            "label": jnp.where(most, batch["label"], other_labels),
            "other_label": jnp.where(most, other_labels, batch["label"]),
            "share": jnp.where(most, shares, 1.0 - shares),
        }

    def losses(
        self, context: Context, batch: Batch, logits: jax.Array, losses: jax.Array
    ) -> jax.Array:
        of_labels, of_others = (
            context.cross_entropy(logits, batch[name]) for name in ("label", "other_label")
        )
        return of_others + batch["share"] * (of_labels - of_others)

    def _mixed(
        self, key: jax.Array, image: jax.Array, other: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return an image mixed with another one, and its share."""
        probability = self.switch if self.mixup and self.cutmix else float(self.cutmix > 0)
        cuts = jax.random.bernoulli(prng.stream(key, "kind"), jnp.float32(probability))
        alpha = jnp.where(cuts, jnp.float32(self.cutmix), jnp.float32(self.mixup))
        share = jax.random.beta(prng.stream(key, "share"), alpha, alpha, dtype=jnp.float32)
        sides = jnp.asarray(image.shape[:2], jnp.float32)
        middle = sides * jax.random.uniform(prng.stream(key, "place"), (2,), jnp.float32)
        half = sides * jnp.sqrt(1.0 - share) / 2
        within = [
            (places >= jnp.round(middle[axis] - half[axis]))
            & (places < jnp.round(middle[axis] + half[axis]))
            for axis, places in enumerate(
                jnp.arange(side, dtype=jnp.float32) for side in image.shape[:2]
            )
        ]
        box = (within[0][:, None] & within[1][None])[..., None]
        mixed = jnp.where(cuts, jnp.where(box, other, image), share * image + (1 - share) * other)
        share = jnp.where(cuts, 1.0 - jnp.mean(box.astype(jnp.float32)), share)
        chosen = jax.random.bernoulli(prng.stream(key, "chosen"), jnp.float32(self.probability))
        return jnp.where(chosen, mixed, image), jnp.where(chosen, share, 1.0)
