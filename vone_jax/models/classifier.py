"""A trained network as a function: what attacks, corruptions and physiology work on."""

import dataclasses
from typing import Any

import jax
from jax.tree_util import Partial

from vone_jax.models.network import BaseNetwork, VOneNet


@dataclasses.dataclass(frozen=True)
class _Apply:
    """``model.apply`` for evaluation; equal for equal models, so that jitted code is shared."""

    model: BaseNetwork | VOneNet
    layer: str

    def __call__(self, variables: Any, key: jax.Array, images: jax.Array) -> jax.Array:
        features: Any = self.model.apply(
            variables, images, train=False, noise_key=key, method="features"
        )
        return features[self.layer]


def logits_fn(model: BaseNetwork | VOneNet, variables: Any) -> Partial:
    """The classifier ``logits_fn(key, images) -> logits`` of a trained network.

    Args:
      model: from ``create``.
      variables: ``{"params": ..., "batch_stats": ...}``.

    Returns:
      A function of (key, images): a typed key, or one per example, and float images (N, H, W, C)
      in [0, 1]. It is a pytree with the variables as leaves, so a jitted function takes it as an
      argument and does not compile again for other weights.
    """
    return response_fn(model, variables, "logits")


def response_fn(model: BaseNetwork | VOneNet, variables: Any, layer: str) -> Partial:
    """As ``logits_fn``, for any layer that ``method="features"`` names."""
    return Partial(_Apply(model, layer), variables)


def without_noise(model: BaseNetwork | VOneNet) -> BaseNetwork | VOneNet:
    """The same network with the noise of V1 switched off; it shares its variables."""
    if not is_stochastic(model):
        return model
    return model.clone(v1=dataclasses.replace(model.v1, noise=None))


def is_stochastic(model: BaseNetwork | VOneNet) -> bool:
    """Whether the network's logits depend on the key."""
    return isinstance(model, VOneNet) and model.v1.noise is not None
