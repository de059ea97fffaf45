"""Standard networks alone or behind V1: VOneNets and EVNets.

CNNs (ResNets, AlexNet, CORnets, EfficientNets, ConvNeXts) and vision transformers.
"""

# ruff: noqa: F401

from vone_jax.models.architecture import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PREFIXES,
    Architecture,
    base_network,
    family,
    label,
    list_models,
    prefix,
    size_of,
)
from vone_jax.models.attachment import Attachment, ConvStem
from vone_jax.models.convnext import ConvNeXt
from vone_jax.models.defaults import stem_form, v1_config
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
from vone_jax.models.spec import Spec, create
from vone_jax.models.stored import (
    PARTS,
    bank_arrays,
    bank_of,
    code_of_users,
    from_json,
    to_json,
)
from vone_jax.models.trunks import Trunk
from vone_jax.models.vit import ViT
