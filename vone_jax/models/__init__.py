"""Standard CNNs (ResNets, AlexNet, CORnets, EfficientNets) alone or behind V1: VOneNets, EVNets."""

# ruff: noqa: F401

from vone_jax.models.create import NAMES, create, list_models
from vone_jax.models.defaults import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    STEM_SIZES,
    default_normalisation,
    default_width,
    stem_form,
    v1_config,
)
from vone_jax.models.network import (
    V1_MODULES,
    BaseNetwork,
    Model,
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
