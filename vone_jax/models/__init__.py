"""Standard CNNs (ResNets, AlexNet, CORnets, EfficientNets) alone or behind V1: VOneNets, EVNets."""

from vone_jax.models.create import NAMES, create, list_models
from vone_jax.models.defaults import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    default_normalisation,
    default_width,
    front_end,
    stem_form,
    v1_config,
)
from vone_jax.models.network import (
    FRONT_END,
    BaseNetwork,
    Network,
    VOneNet,
    features_fn,
    init,
    is_stochastic,
    logits_fn,
    noise_of,
    response_fn,
    with_fixed_bank,
    with_noise,
    without_noise,
)

__all__ = [
    "FRONT_END",
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
    "init",
    "is_stochastic",
    "list_models",
    "logits_fn",
    "noise_of",
    "response_fn",
    "stem_form",
    "v1_config",
    "with_noise",
    "with_fixed_bank",
    "without_noise",
]
