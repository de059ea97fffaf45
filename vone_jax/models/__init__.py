"""Standard CNNs (ResNets, AlexNet, CORnets, EfficientNets) alone or behind V1: VOneNets, EVNets."""

from vone_jax.models.create import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NAMES,
    create,
    default_normalisation,
    default_width,
    front_end,
    list_models,
    stem_form,
    v1_config,
)
from vone_jax.models.network import (
    BaseNetwork,
    Network,
    VOneNet,
    features_fn,
    is_stochastic,
    logits_fn,
    noise_of,
    response_fn,
    with_noise,
    without_noise,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "NAMES",
    "BaseNetwork",
    "Network",
    "VOneNet",
    "create",
    "default_normalisation",
    "default_width",
    "features_fn",
    "front_end",
    "is_stochastic",
    "list_models",
    "logits_fn",
    "noise_of",
    "response_fn",
    "stem_form",
    "v1_config",
    "with_noise",
    "without_noise",
]
