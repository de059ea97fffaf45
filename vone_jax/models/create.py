"""Create networks by name: for ImageNet's 224 pixels, or for small images (``defaults.py``)."""

import fnmatch
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vone_jax import arguments, names
from vone_jax.models.alexnet import AlexNetBackEnd, AlexNetStem
from vone_jax.models.cornet import CORnetSBackEnd, CORnetSV1, CORnetZBackEnd, CORnetZV1
from vone_jax.models.defaults import (
    FULL_SIZE,
    default_normalisation,
    default_width,
    front_end_configs,
    stem_form,
)
from vone_jax.models.efficientnet import EfficientNetBackEnd, EfficientNetStem
from vone_jax.models.layers import Dtype
from vone_jax.models.network import BaseNetwork, Model, VOneNet
from vone_jax.models.resnet import ResNetBackEnd, ResNetStem
from vone_jax.v1 import SubcorticalConfig, SurroundNormalization, VOneBlockConfig
from vone_jax.v1.divisive import Rule
from vone_jax.v1.images import PerChannel, check_normalisation
from vone_jax.v1.noise import Noise

# The classes of stem and back end.
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
}  # fmt: skip


def _fields(base: str, image_size: int, with_v1: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of stem and back end that depend on the image size and on V1."""
    form = stem_form(image_size)
    # EfficientNets, and AlexNets for small images, have a stride of 2 where ResNets have a pool.
    stride = 2 if form.pool else form.stride
    if base.startswith("efficientnet"):
        return {"stride": stride}, {}
    if base != "alexnet":
        return form._asdict(), {}
    back_end = {"conv2_stride": 2 if with_v1 else 1}
    if image_size < FULL_SIZE:
        stem = {"kernel": 5, "stride": stride, "pool_padding": 1}
        return stem, back_end | {"pool_padding": 1, "pool_size": 4}
    return {}, back_end | ({"pool_padding": 1, "pool_size": 7} if with_v1 else {})


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
        statistics and V1 stay float32.
      stem_noise: for base networks, noise behind the stem, see ``BaseNetwork``. Default: none.
      stem_gain: for base networks, multiplies the stem's output before the noise.
      mean: for base networks, subtracted from images in [0, 1], one number or one per channel.
        Default: that of ImageNet's training images (127/255 for Lite0), or 0.5 where there are not
        3 channels. VOneNets have ``v1.image_mean`` and ``v1.image_std``.
      std: for base networks, divides images after the subtraction; defaults as for ``mean``
        (128/255 for Lite0).
      subcortical: configuration of the subcortical stage, for EVNets. Default: the published one at
        32 pixels per degree.
      learned_normalization: for VOneNets and EVNets, a rule such as ``v1.GDN()`` that normalises
        the responses of V1 before the bottleneck. Default: none.
      stem_size: for base networks, the image size whose form the network has. Files of torchvision
        have 224 at any image size. Default: ``image_size``.
      front_end: for base networks, a Flax Linen module of your own in place of the stem, see
        ``BaseNetwork.stem``. Default: the stem of ``stem_size``.

    Raises:
      ValueError: for an unknown name (the message has the most similar one), or an argument that
        is out of range or contradicts ``v1`` or ``subcortical``.
    """
    arguments.choice("name", name, NAMES)
    kind = names.prefix(name)
    sizes = {"image_size": image_size, "in_channels": in_channels}
    configs = {"v1": v1, "subcortical": subcortical}
    for stage, field in itertools.product(configs, sizes):
        # The V1 of an EVNet does not read images.
        reads = (kind, stage, field) != ("ev_", "v1", "in_channels")
        if configs[stage] is not None and reads:
            value = getattr(configs[stage], field)
            if sizes[field] not in (None, value):
                raise ValueError(f"{field} is {sizes[field]}, but {stage}.{field} is {value}")
            sizes[field] = value
    image_size = 224 if sizes["image_size"] is None else sizes["image_size"]
    in_channels = 3 if sizes["in_channels"] is None else sizes["in_channels"]
    width = default_width(name) if width is None else width
    arguments.count("num_classes", num_classes)
    arguments.count("image_size", image_size, least=8)
    arguments.count("in_channels", in_channels)
    arguments.count("width", width)
    arguments.number("stem_gain", stem_gain, arguments.POSITIVE)
    arguments.instance("stem_noise", stem_noise, Noise)
    surround = isinstance(learned_normalization, SurroundNormalization)
    hint = "; give a surround as v1.normalization" if surround else ""
    arguments.instance("learned_normalization", learned_normalization, Rule | None, hint)
    if dtype not in (jnp.float32, jnp.bfloat16):
        raise ValueError(f"dtype must be float32 or bfloat16, got {dtype!r}")
    v1, subcortical = front_end_configs(name, image_size, in_channels, v1, subcortical)
    if v1 is not None and (stem_noise is not None or stem_gain != 1.0):
        raise ValueError(
            f"stem_noise and stem_gain are for base networks, but name is {name!r}; use v1.noise"
        )
    if v1 is not None and (mean is not None or std is not None):
        raise ValueError(
            f"mean and std are for base networks, but name is {name!r}; use v1.image_mean and "
            "v1.image_std"
        )
    if v1 is None and learned_normalization is not None:
        raise ValueError(
            f"learned_normalization is for VOneNets, but name is {name!r}; use 'vone_{name}'"
        )
    if stem_size is not None:
        arguments.count("stem_size", stem_size, least=8)
        if v1 is not None:
            raise ValueError(f"stem_size is for base networks, but name is {name!r}; use v1.stride")
    if front_end is not None:
        arguments.instance("front_end", front_end, nn.Module)
        if v1 is not None or stem_size is not None:
            base = names.base_network(name)
            raise ValueError(
                f"front_end takes the place of the stem; name must be {base!r} and stem_size None, "
                f"got {name!r} and {stem_size}"
            )
    base = names.base_network(name)
    make_stem, make_back_end = _NETWORKS[base]
    stem_fields, fields = _fields(base, stem_size or image_size, v1 is not None)
    back_end = make_back_end(num_classes=num_classes, width=width, dtype=dtype, **fields)
    if v1 is not None:
        return VOneNet(
            v1=v1,
            back_end=back_end,
            bottleneck_features=width,
            dtype=dtype,
            subcortical=subcortical,
            learned_normalization=learned_normalization,
        )
    default_mean, default_std = default_normalisation(name, in_channels)
    mean, std = (
        default if value is None else _per_channel(value, in_channels)
        for value, default in ((mean, default_mean), (std, default_std))
    )
    check_normalisation("mean", mean, in_channels)
    check_normalisation("std", std, in_channels, positive=True)
    return BaseNetwork(
        stem=front_end or make_stem(features=width, dtype=dtype, **stem_fields),
        back_end=back_end,
        mean=mean,
        std=std,
        dtype=dtype,
        stem_noise=stem_noise,
        stem_gain=stem_gain,
        image_size=image_size,
    )


def _per_channel(value: PerChannel, channels: int) -> tuple[float, ...]:
    """Repeat one number, or a tuple of one, for every channel; return other tuples unchanged."""
    each = tuple(value) if isinstance(value, tuple | list) else (value,)
    return each * channels if len(each) == 1 else each
