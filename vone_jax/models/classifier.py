"""A trained network as a function, for attacks, corruptions and physiology."""

import dataclasses
from typing import Any

from jax.tree_util import Partial
from jaxtyping import Array, Float

from vone_jax.models.layers import Images, NoiseKey
from vone_jax.models.network import BaseNetwork, VOneNet
from vone_jax.v1 import GaussianNoise, NeuronalNoise


@dataclasses.dataclass(frozen=True)
class _Apply:
    """``model.apply`` for evaluation; equal for equal models, so that jitted code is shared."""

    model: BaseNetwork | VOneNet
    layer: str

    def __call__(self, variables: Any, key: NoiseKey, images: Images) -> Float[Array, "n ..."]:
        features: Any = self.model.apply(
            variables, images, train=False, noise_key=key, method="features"
        )
        return features[self.layer]


def logits_fn(model: BaseNetwork | VOneNet, variables: Any) -> Partial:
    """The classifier ``logits_fn(keys, images) -> logits`` of a trained network.

    Args:
      model: from ``create``.
      variables: ``{"params": ..., "batch_stats": ...}``.

    Returns:
      A function of (keys, images): one typed key per example, or a single key that numbers the
      examples by position, and float images (N, H, W, C) in [0, 1]. It is a pytree with the
      variables as leaves, so a jitted function takes it as an argument and does not compile
      again for other weights.
    """
    return response_fn(model, variables, "logits")


def response_fn(model: BaseNetwork | VOneNet, variables: Any, layer: str) -> Partial:
    """The function ``response_fn(keys, images) -> responses`` of a layer of a trained network.

    Args:
      model: from ``create``.
      variables: ``{"params": ..., "batch_stats": ...}``.
      layer: a name from ``method="features"``, such as ``"v1"`` or ``"layer3"``.
    """
    return Partial(_Apply(model, layer), variables)


def without_noise(model: BaseNetwork | VOneNet) -> BaseNetwork | VOneNet:
    """The same network without noise; its variables are valid for both."""
    return with_noise(model, None) if is_stochastic(model) else model


def with_noise(
    model: BaseNetwork | VOneNet, noise: NeuronalNoise | GaussianNoise | None
) -> BaseNetwork | VOneNet:
    """The same network with other noise in V1, or behind the stem of a base network.

    Use it to evaluate a network that was trained without noise with it, or the reverse.
    """
    if isinstance(model, VOneNet):
        return model.clone(v1=dataclasses.replace(model.v1, noise=noise))
    return model.clone(stem_noise=noise)


def noise_of(model: BaseNetwork | VOneNet) -> NeuronalNoise | GaussianNoise | None:
    """The noise of a network's V1 or stem."""
    return model.v1.noise if isinstance(model, VOneNet) else model.stem_noise


def is_stochastic(model: BaseNetwork | VOneNet) -> bool:
    """Return True if the network's logits depend on the key."""
    return noise_of(model) is not None
