"""Standard networks alone or behind V1: VOneNets and EVNets.

CNNs (ResNets, AlexNet, CORnets, EfficientNets, ConvNeXts) and vision transformers.
"""

# ruff: noqa: F401

from vone_jax.models.attachment import Attachment, ConvStem
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
    with_image_size,
    with_noise,
    without_noise,
)
from vone_jax.models.trunks import trunk_options
