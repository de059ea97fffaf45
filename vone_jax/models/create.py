"""Create networks by name: for ImageNet's 224 pixels, or for small images (``defaults.py``).

``create`` calls the function of the kind of network: ``base``, ``vone`` or ``evnet``.
"""

import fnmatch
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vone_jax import arguments, names
from vone_jax.models import trunks
from vone_jax.models.alexnet import AlexNetBackEnd, AlexNetStem
from vone_jax.models.attachment import Form
from vone_jax.models.cornet import CORnetSBackEnd, CORnetSV1, CORnetZBackEnd, CORnetZV1
from vone_jax.models.defaults import (
    FULL_SIZE,
    default_normalisation,
    default_width,
    evnet_configs,
    stem_form,
    v1_config,
)
from vone_jax.models.efficientnet import EfficientNetBackEnd, EfficientNetStem
from vone_jax.models.layers import Dtype
from vone_jax.models.network import BaseNetwork, Model, VOneNet
from vone_jax.models.resnet import ResNetBackEnd, ResNetStem
from vone_jax.models.small_cnn import SmallCNNBackEnd, SmallCNNStem
from vone_jax.v1 import GainControl, SubcorticalConfig, SurroundNormalization, VOneBlockConfig
from vone_jax.v1.divisive import Rule
from vone_jax.v1.images import PerChannel, check_normalisation
from vone_jax.v1.noise import Noise

# The classes of stem and back end of CNNs; transformers and ConvNeXts are in ``trunks.py``.
_NETWORKS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "resnet18": (ResNetStem, partial(ResNetBackEnd, False, (2, 2, 2, 2))),
    "resnet50": (ResNetStem, partial(ResNetBackEnd, True, (3, 4, 6, 3))),
    "alexnet": (AlexNetStem, AlexNetBackEnd),
    "cornet_s": (CORnetSV1, CORnetSBackEnd),
    "cornet_z": (CORnetZV1, CORnetZBackEnd),
    "efficientnet_b0": (
        partial(EfficientNetStem, lite=False), partial(EfficientNetBackEnd, lite=False),
    ),
    "efficientnet_lite0": (
        partial(EfficientNetStem, lite=True), partial(EfficientNetBackEnd, lite=True),
    ),
    "small_cnn": (SmallCNNStem, SmallCNNBackEnd),
}  # fmt: skip

# The options of ``create`` that only some networks have: the kind of these networks, the beginnings
# of their names, and what the others have instead, where "{base}" is the name of the base network.
_OPTIONS = {
    "v1": ("VOneNets", ("vone_", "ev_"), "'vone_{base}'"),
    "learned_normalization": ("VOneNets", ("vone_", "ev_"), "'vone_{base}'"),
    "subcortical": ("EVNets", ("ev_",), "'ev_{base}'"),
    "stem_noise": ("base networks", ("",), "v1.noise"),
    "stem_gain": ("base networks", ("",), "v1.k_exc"),
    "mean": ("base networks", ("",), "v1.image_mean"),
    "std": ("base networks", ("",), "v1.image_std"),
    "stem_size": ("base networks", ("",), "v1.stride"),
    "front_end": ("base networks", ("",), "'{base}'"),
}

# The options of transformers and ConvNeXts, as they are without any.
_DEFAULT = trunks.Options()

NAMES = names.MODELS


def list_models(filter: str = "", exclude_filters: str | Sequence[str] = ()) -> list[str]:
    """List the names that ``create`` takes, as timm does.

    Args:
      filter: a pattern for names, such as ``"vone_*"``. Default: all names.
      exclude_filters: one or several patterns of names to leave out.
    """
    listed = set(fnmatch.filter(NAMES, filter or "*"))
    for pattern in [exclude_filters] if isinstance(exclude_filters, str) else exclude_filters:
        listed -= set(fnmatch.filter(NAMES, pattern))
    return sorted(listed)


def create(
    name: str,
    num_classes: int = 1000,
    image_size: int | None = None,
    in_channels: int | None = None,
    v1: VOneBlockConfig | None = None,
    width: int | None = None,
    dtype: Dtype = jnp.float32,
    stem_noise: Noise = None,
    stem_gain: float = 1.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
    subcortical: SubcorticalConfig | None = None,
    learned_normalization: Rule | None = None,
    stem_size: int | None = None,
    front_end: nn.Module | None = None,
    depth: int | tuple[int, ...] | None = None,
    heads: int | None = None,
    patch_size: int | None = None,
    attachment: Form | None = None,
    drop_path: float = 0.0,
    stem_width: int | None = None,
) -> Model:
    """Build a network, a Flax Linen module; see ``VOneNet`` for how to apply it.

    Args:
      name: one of ``NAMES``. A VOneNet (``vone_`` in front) has a VOneBlock and a bottleneck in
        place of the stem. An EVNet (``ev_``) has a subcortical stage before the block.
      num_classes: number of logits.
      image_size: in pixels. It selects the ImageNet form (from 112 on) or the small-image form of
        the stem and of V1. Default: that of ``v1`` or ``subcortical``, else 224. The network also
        accepts images of other sizes.
      in_channels: number of image channels. Default: that of ``v1``, or in an EVNet of
        ``subcortical``, else 3.
      v1: configuration of the VOneBlock, for VOneNets and EVNets. Default: see ``v1_config``.
      width: channels behind the stem (or the bottleneck); all layers scale with it. Default: that
        of the published network, see ``default_width``.
      dtype: ``jnp.float32``, or ``jnp.bfloat16`` for mixed precision: parameters, batch
        statistics and V1 stay float32, but the products of V1 have the precision of JAX's setting.
      stem_noise: for base networks, noise behind the stem, see ``BaseNetwork``. Default: none.
      stem_gain: for base networks, multiplies the stem's output before the noise.
      mean: for base networks, subtracted from images in [0, 1], one number or one per channel.
        Default: that of ImageNet's training images (127/255 for Lite0, 0.5 for ViTs), or 0.5 where
        there are not 3 channels. VOneNets have ``v1.image_mean`` and ``v1.image_std``.
      std: for base networks, divides images after the subtraction; defaults as for ``mean``
        (128/255 for Lite0, 0.5 for ViTs).
      subcortical: configuration of the subcortical stage, for EVNets. Default: the published one at
        32 pixels per degree.
      learned_normalization: for VOneNets and EVNets, a rule such as ``v1.GDN()`` that normalises
        the responses of V1 before the bottleneck. Default: none.
      stem_size: for base networks, the image size whose form the network has. Files of torchvision
        have 224 at any image size. Default: ``image_size``.
      front_end: for base networks, a Flax Linen module of your own in place of the stem, see
        ``BaseNetwork.stem``. Default: the stem of ``stem_size``.
      depth: for transformers, the number of blocks; for ConvNeXts, that of each stage. Default:
        that of the published network.
      heads: for transformers, of attention. Default: one for 64 channels.
      patch_size: for transformers and ConvNeXts, side of the patches in pixels. Default: that of
        the published network; for the small-image form 4 in transformers, 2 in ConvNeXts.
      attachment: for transformers and ConvNeXts, how the map of V1 is brought to patches, see
        ``Attachment``. A base network with an attachment is the control without V1: a ``ConvStem``
        stands in place of V1 and the bottleneck. Default: "patches" behind V1, none in base
        networks.
      drop_path: for transformers and ConvNeXts, the rate of stochastic depth, see
        ``DropPathBackEnd``.
      stem_width: for the control, channels of the first convolution of its ``ConvStem``. Default:
        that which gives it as many parameters as the bottleneck behind ``v1_config`` has.

    Raises:
      ValueError: for an unknown name (the message has the most similar one), or an argument that
        is out of range, contradicts ``v1`` or ``subcortical``, or is for other networks.
    """
    arguments.choice("name", name, NAMES)
    kind, base_name = names.prefix(name), names.base_network(name)
    given = {
        "v1": v1, "subcortical": subcortical, "learned_normalization": learned_normalization,
        "stem_noise": stem_noise, "stem_gain": None if stem_gain == 1.0 else stem_gain,
        "mean": mean, "std": std, "stem_size": stem_size, "front_end": front_end,
    }  # fmt: skip
    given = {option: value for option, value in given.items() if value is not None}
    for option in given:
        networks, kinds, instead = _OPTIONS[option]
        if kind not in kinds:
            raise ValueError(
                f"{option} is for {networks}, but name is {name!r}; use "
                f"{instead.format(base=base_name)}"
            )
    options = trunks.Options(depth, heads, patch_size, attachment, drop_path, stem_width)
    if base_name in trunks.TRUNKS:
        given["options"] = options
    elif options != _DEFAULT:
        unknown = (field for field, x in vars(options).items() if x != getattr(_DEFAULT, field))
        raise ValueError(
            f"{next(unknown)} is for transformers and ConvNeXts, but name is {name!r}; there are "
            f"{', '.join(trunks.TRUNKS)}"
        )
    if stem_width is not None and (kind or attachment is None):
        raise ValueError(
            f"stem_width is for the control, a base network with an attachment, but name is "
            f"{name!r} and attachment is {attachment!r}"
        )
    width = default_width(base_name) if width is None else width
    arguments.count("num_classes", num_classes)
    arguments.count("width", width)
    if dtype not in (jnp.float32, jnp.bfloat16):
        raise ValueError(f"dtype must be float32 or bfloat16, got {dtype!r}")
    build = {"": base, "vone_": vone, "ev_": evnet}[kind]
    return build(base_name, num_classes, image_size, in_channels, width, dtype, **given)


def base(
    name: str,
    num_classes: int,
    image_size: int | None,
    in_channels: int | None,
    width: int,
    dtype: Dtype,
    stem_noise: Noise = None,
    stem_gain: float = 1.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
    stem_size: int | None = None,
    front_end: nn.Module | None = None,
    options: trunks.Options = _DEFAULT,
) -> BaseNetwork:
    """Build a base network, such as ``"resnet50"``; arguments as in ``create``."""
    image_size = _agreed("image_size", image_size, 224, least=8)
    in_channels = _agreed("in_channels", in_channels, 3)
    arguments.number("stem_gain", stem_gain, arguments.POSITIVE)
    arguments.instance("stem_noise", stem_noise, Noise)
    if stem_size is not None:
        arguments.count("stem_size", stem_size, least=8)
    if front_end is not None:
        arguments.instance("front_end", front_end, nn.Module)
        if stem_size is not None:
            raise ValueError(
                f"front_end takes the place of the stem; stem_size must be None, got {stem_size}"
            )
    form_size = stem_size or image_size
    if name in trunks.TRUNKS:
        trunk = _trunk(name, options, image_size, form_size, width, dtype)
        if front_end is not None:
            stem, attachment = front_end, trunk.attachment_of_any()
        elif options.attachment is not None:
            config = v1_config(form_size, in_channels, f"vone_{name}")
            cells = config.simple_channels + config.complex_channels
            stem = trunk.control(config.stride, cells, in_channels)
            attachment = trunk.attachment(config.stride, normed=False)
        else:
            stem, attachment = trunk.stem(), None
        back_end = trunk.back_end(num_classes, attachment)
    else:
        fields = _stem_fields(name, form_size)
        stem = front_end or _NETWORKS[name][0](features=width, dtype=dtype, **fields)
        back_end = _back_end(name, num_classes, form_size, width, dtype, with_v1=False)
    default_mean, default_std = default_normalisation(name, in_channels)
    mean, std = (
        default if value is None else _per_channel(value, in_channels)
        for value, default in ((mean, default_mean), (std, default_std))
    )
    check_normalisation("mean", mean, in_channels)
    check_normalisation("std", std, in_channels, positive=True)
    return BaseNetwork(
        stem=stem,
        back_end=back_end,
        mean=mean,
        std=std,
        dtype=dtype,
        stem_noise=stem_noise,
        stem_gain=stem_gain,
        image_size=image_size,
        architecture=name,
    )


def vone(
    name: str,
    num_classes: int,
    image_size: int | None,
    in_channels: int | None,
    width: int,
    dtype: Dtype,
    v1: VOneBlockConfig | None = None,
    learned_normalization: Rule | None = None,
    options: trunks.Options = _DEFAULT,
) -> VOneNet:
    """Build the VOneNet of a base network, such as ``"resnet50"``; arguments as in ``create``."""
    image_size = _agreed("image_size", image_size, 224, {"v1": v1}, least=8)
    in_channels = _agreed("in_channels", in_channels, 3, {"v1": v1})
    _check_rule(learned_normalization)
    v1 = v1 or v1_config(image_size, in_channels, f"vone_{name}")
    back_end, channels = _behind_v1(name, num_classes, v1, width, dtype, options)
    return VOneNet(
        v1=v1,
        back_end=back_end,
        bottleneck_features=channels,
        dtype=dtype,
        learned_normalization=learned_normalization,
        architecture=f"vone_{name}",
    )


def evnet(
    name: str,
    num_classes: int,
    image_size: int | None,
    in_channels: int | None,
    width: int,
    dtype: Dtype,
    v1: VOneBlockConfig | None = None,
    subcortical: SubcorticalConfig | None = None,
    learned_normalization: Rule | None = None,
    options: trunks.Options = _DEFAULT,
) -> VOneNet:
    """Build the EVNet of a base network, such as ``"resnet50"``; arguments as in ``create``."""
    stages = {"v1": v1, "subcortical": subcortical}
    image_size = _agreed("image_size", image_size, 224, stages, least=8)
    # V1 does not read images here.
    in_channels = _agreed("in_channels", in_channels, 3, {"subcortical": subcortical})
    _check_rule(learned_normalization)
    v1, subcortical = evnet_configs(name, image_size, in_channels, v1, subcortical)
    back_end, channels = _behind_v1(name, num_classes, v1, width, dtype, options)
    return VOneNet(
        v1=v1,
        back_end=back_end,
        bottleneck_features=channels,
        dtype=dtype,
        subcortical=subcortical,
        learned_normalization=learned_normalization,
        architecture=f"ev_{name}",
    )


def _behind_v1(
    name: str, num_classes: int, v1: VOneBlockConfig, width: int, dtype: Dtype,
    options: trunks.Options,
) -> tuple[nn.Module, int]:  # fmt: skip
    """The back end of a network with V1, and the channels of its bottleneck."""
    size = v1.image_size
    if name not in trunks.TRUNKS:
        return _back_end(name, num_classes, size, width, dtype, with_v1=True), width
    trunk = _trunk(name, options, size, size, width, dtype)
    back_end = trunk.back_end(num_classes, trunk.attachment(v1.stride))
    return back_end, trunk.bottleneck_features(v1.stride)


def _trunk(
    name: str, options: trunks.Options, image_size: int, form_size: int, width: int, dtype: Dtype
) -> trunks.Trunk:
    return trunks.Trunk(name, options, image_size, width, form_size < FULL_SIZE, dtype)


def _agreed(
    field: str,
    value: int | None,
    default: int,
    stages: dict[str, Any] | None = None,
    least: int = 1,
) -> int:
    """Return the value of a field on which the argument and the configurations of stages agree."""
    for stage, config in (stages or {}).items():
        if config is not None:
            theirs = getattr(config, field)
            if value not in (None, theirs):
                raise ValueError(f"{field} is {value}, but {stage}.{field} is {theirs}")
            value = theirs
    value = default if value is None else value
    arguments.count(field, value, least=least)
    return value


def _check_rule(learned_normalization: Any) -> None:
    of_v1 = isinstance(learned_normalization, (GainControl, SurroundNormalization))
    hint = "; give it as v1.normalization" if of_v1 else ""
    arguments.instance("learned_normalization", learned_normalization, Rule | None, hint)


def _stem_fields(name: str, image_size: int) -> dict[str, Any]:
    """The fields of a stem that depend on the image size."""
    form = stem_form(image_size)
    # EfficientNets, and AlexNets for small images, have a stride of 2 where ResNets have a pool.
    stride = 2 if form.pool else form.stride
    if name == "small_cnn":
        return {}
    if name.startswith("efficientnet"):
        return {"stride": stride}
    if name != "alexnet":
        return form._asdict()
    small = {"kernel": 5, "stride": stride, "pool_padding": 1}
    return small if image_size < FULL_SIZE else {}


def _back_end(
    name: str, num_classes: int, image_size: int, width: int, dtype: Dtype, with_v1: bool
) -> nn.Module:
    """The back end of a network; that of AlexNet depends on the image size and on V1."""
    fields = {}
    if name == "alexnet":
        fields = {"conv2_stride": 2 if with_v1 else 1}
        if with_v1 or image_size < FULL_SIZE:
            pool_size = 7 if image_size >= FULL_SIZE else 4
            fields |= {"pool_padding": 1, "pool_size": pool_size}
    return _NETWORKS[name][1](num_classes=num_classes, width=width, dtype=dtype, **fields)


def _per_channel(value: PerChannel, channels: int) -> tuple[float, ...]:
    """Repeat one number, or a tuple of one, for every channel; return other tuples unchanged."""
    each = tuple(value) if isinstance(value, tuple | list) else (value,)
    return each * channels if len(each) == 1 else each
