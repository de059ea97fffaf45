"""Standard CNNs and VOneNets: ResNet-18, ResNet-50, AlexNet, CORnet-S, plain or behind V1."""

from vone_jax.models.classifier import (
    is_stochastic,
    logits_fn,
    noise_of,
    response_fn,
    with_noise,
    without_noise,
)
from vone_jax.models.create import NAMES, create, list_models
from vone_jax.models.network import BaseNetwork, VOneNet
from vone_jax.models.small_images import v1_config

__all__ = [
    "NAMES",
    "BaseNetwork",
    "VOneNet",
    "create",
    "is_stochastic",
    "list_models",
    "logits_fn",
    "noise_of",
    "response_fn",
    "v1_config",
    "with_noise",
    "without_noise",
]
