"""Neural-similarity regularisation: two images that a brain finds alike, the network should too.

The loss gets the term

    alpha * mean over pairs of (atanh S_network - atanh S_target)^2,
    S_network = sum_k gamma_k S_k,   gamma = softmax of trained weights,

where S_k is the similarity of the two images in layer k: the cosine of their flattened features,
each image's mean subtracted.

References:
  Li et al., Learning from brains how to regularize machines, NeurIPS 2019, arXiv:1911.05072.
  Attias, Pehlevan and Obeid, 2024, arXiv:2410.03952: pixel similarity in place of neural data.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from vone_jax.training.checks import check_at_least, check_choice, check_number
from vone_jax.v1 import VOneBlockConfig

Target = Literal["neural", "v1", "pixels"]

# The inverse hyperbolic tangent has no value at 1. Its largest value here is 4.95.
_LARGEST = 0.9999


@dataclasses.dataclass(frozen=True)
class Similarity:
    """What similarities a network is drawn to, and how strongly.

    Attributes:
      target: "neural" reads a measured matrix from ``path``; "v1" compares noise-free responses
        of a VOneBlock, "pixels" the images themselves.
      path: NPZ file for "neural", see ``similarity_targets.load_matrix``.
      alpha: weight of the term; Li et al. use 20.
      layers: of the network, as ``features`` names them, that are compared. Li et al. take
        five convolutions of ResNet-18 spread over its depth.
      source: images to compare, by a name that ``data.load`` knows; None takes the training images.
      split: of ``source``.
      images: number of images, every k-th of the split. The matrix is images x images.
      batch: images in a training step; all their pairs are compared.
      threshold: of "pixels": similarities whose size is below it become 0.
      shuffled: permute the target's images, the control that keeps its distribution alone.
      v1: the block of "v1"; None takes that of ``models.v1_config``.

    Raises:
      ValueError: naming the field that is out of range.
    """

    target: Target
    path: str | None = None
    alpha: float = 20.0
    layers: tuple[str, ...] = ("stem", "layer1", "layer2", "layer3", "layer4")
    source: str | None = None
    split: str = "train"
    images: int = 1000
    batch: int = 32
    threshold: float = 0.8
    shuffled: bool = False
    v1: VOneBlockConfig | None = None

    def __post_init__(self):
        check_choice("target", self.target, Target)
        if (self.target == "neural") != (self.path is not None):
            raise ValueError(
                f"path is the file of target 'neural' and of no other; got target "
                f"{self.target!r} and path {self.path!r}"
            )
        check_number("alpha", self.alpha)
        check_number("threshold", self.threshold, most=1.0)
        if not self.layers or len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers must be different names, at least one, got {self.layers}")
        check_at_least("images", self.images, 2)
        check_at_least("batch", self.batch, 2)
        if self.batch > self.images:
            raise ValueError(f"batch must be <= images, {self.images}, got {self.batch}")
        if self.v1 is not None and self.target != "v1":
            raise ValueError(f"v1 is for target 'v1', got target {self.target!r}")


def correlation(features: jax.Array) -> jax.Array:
    """Similarity of each pair of images.

    Args:
      features: (B, ...), of any shape behind.

    Returns:
      float32 (B, B) in [-1, 1]: cosines of the flattened features, each image's mean subtracted.
      An image of constant features has similarity 0 with all.
    """
    flat = features.reshape(features.shape[0], -1).astype(jnp.float32)
    flat = flat - jnp.mean(flat, axis=1, keepdims=True)
    power = jnp.sum(jnp.square(flat), axis=1, keepdims=True)
    # Both branches are differentiated, so the root must not see a zero in either of them.
    unit = jnp.where(power > 0, flat / jnp.sqrt(jnp.where(power > 0, power, 1.0)), 0.0)
    return jnp.clip(jnp.matmul(unit, unit.T, precision="highest"), -1.0, 1.0)


def loss(
    features: Mapping[str, jax.Array],
    layers: Sequence[str],
    weights: jax.Array,
    target: jax.Array,
) -> jax.Array:
    """The regularisation term without its weight alpha.

    Args:
      features: of a batch of B images, by layer.
      layers: those to compare.
      weights: one per layer, before the softmax.
      target: (B, B) similarities.

    Returns:
      Mean over the B (B - 1) / 2 pairs, a scalar.
    """
    gamma = jax.nn.softmax(weights)
    similarities = jnp.stack([correlation(features[layer]) for layer in layers])
    ours = jnp.tensordot(gamma, similarities, axes=1)
    squares = jnp.square(_atanh(ours) - _atanh(target))
    pairs = jnp.triu(jnp.ones(target.shape, bool), k=1)
    return jnp.sum(jnp.where(pairs, squares, 0.0)) / jnp.sum(pairs, dtype=squares.dtype)


def _atanh(similarity: jax.Array) -> jax.Array:
    return jnp.arctanh(jnp.clip(similarity, -_LARGEST, _LARGEST))
