"""Standard CNNs and VOneNets: ResNet-18, ResNet-50, AlexNet, CORnet-S, plain or behind V1."""

from vone_jax.models.create import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NAMES,
    create,
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
    "features_fn",
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
