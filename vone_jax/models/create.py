"""Networks by name."""

import dataclasses
import difflib
import fnmatch
import math
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from vone_jax.models.alexnet import AlexNetBackEnd, AlexNetStem
from vone_jax.models.cornet_s import CORnetSBackEnd, CORnetV1
from vone_jax.models.layers import Dtype
from vone_jax.models.network import BaseNetwork, VOneNet
from vone_jax.models.resnet import BasicBlock, BottleneckBlock, ResNetBackEnd, ResNetStem
from vone_jax.models.small_images import FULL_SIZE, stem_form, v1_config
from vone_jax.v1 import GaussianNoise, NeuronalNoise, VOneBlockConfig
from vone_jax.v1.block import check_normalisation

# The mean and standard deviation of ImageNet's training images, RGB, which torchvision's networks
# expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Builders of a network's parts: ``stem(image_size, width, dtype)`` and
    ``back_end(image_size, with_v1, num_classes, width, dtype)``."""

    stem: Callable[[int, int, Dtype], nn.Module]
    back_end: Callable[[int, bool, int, int, Dtype], nn.Module]


def _resnet_stem(image_size: int, width: int, dtype: Dtype) -> nn.Module:
    form = stem_form(image_size)
    return ResNetStem(width, form.kernel, form.stride, form.pool, dtype)


def _resnet_back_end(
    image_size: int, with_v1: bool, num_classes: int, width: int, dtype: Dtype, *, block, blocks
) -> nn.Module:
    return ResNetBackEnd(block, blocks, num_classes, width, dtype)


def _cornet_s_stem(image_size: int, width: int, dtype: Dtype) -> nn.Module:
    form = stem_form(image_size)
    return CORnetV1(width, form.kernel, form.stride, form.pool, dtype)


def _cornet_s_back_end(
    image_size: int, with_v1: bool, num_classes: int, width: int, dtype: Dtype
) -> nn.Module:
    return CORnetSBackEnd(num_classes, width, dtype)


def _alexnet_stem(image_size: int, width: int, dtype: Dtype) -> nn.Module:
    if image_size >= FULL_SIZE:
        return AlexNetStem(width, dtype=dtype)
    stride = stem_form(image_size).stride * (2 if stem_form(image_size).pool else 1)
    return AlexNetStem(width, kernel=5, stride=stride, padding=2, pool_padding=1, dtype=dtype)


def _alexnet_back_end(
    image_size: int, with_v1: bool, num_classes: int, width: int, dtype: Dtype
) -> nn.Module:
    small = image_size < FULL_SIZE
    return AlexNetBackEnd(
        num_classes,
        conv2_stride=2 if with_v1 else 1,
        pool_padding=1 if with_v1 or small else 0,
        pool_size=4 if small else (7 if with_v1 else 6),
        width=width,
        dtype=dtype,
    )


_NETWORKS = {
    "resnet18": _Parts(
        _resnet_stem, partial(_resnet_back_end, block=BasicBlock, blocks=(2, 2, 2, 2))
    ),
    "resnet50": _Parts(
        _resnet_stem, partial(_resnet_back_end, block=BottleneckBlock, blocks=(3, 4, 6, 3))
    ),
    "alexnet": _Parts(_alexnet_stem, _alexnet_back_end),
    "cornet_s": _Parts(_cornet_s_stem, _cornet_s_back_end),
}

NAMES = (*_NETWORKS, *(f"vone_{name}" for name in _NETWORKS))


def list_models(filter: str = "", exclude_filters: str | Sequence[str] = ()) -> list[str]:
    """Names that ``create`` takes, as timm lists them.

    Args:
      filter: pattern in the style of file names, such as ``"vone_*"``. Default: all.
      exclude_filters: one or several patterns of names to leave out.

    Returns:
      The names, sorted.
    """
    excluded = (exclude_filters,) if isinstance(exclude_filters, str) else exclude_filters
    return sorted(
        name
        for name in NAMES
        if fnmatch.fnmatchcase(name, filter or "*")
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in excluded)
    )


def create(
    name: str,
    num_classes: int = 1000,
    image_size: int | None = None,
    in_channels: int | None = None,
    v1: VOneBlockConfig | None = None,
    width: int = 64,
    dtype: Dtype = jnp.float32,
    stem_noise: NeuronalNoise | GaussianNoise | None = None,
    stem_gain: float = 1.0,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> BaseNetwork | VOneNet:
    """Builds a network.

    Args:
      name: one of ``NAMES``; ``vone_`` in front puts a VOneBlock and a bottleneck in the place
        of the stem.
      num_classes: number of logits.
      image_size: in pixels; selects the ImageNet form (from 112 on) or the small-image form of
        the stem and of V1. Default: that of ``v1``, else 224. The network accepts images of
        other sizes too.
      in_channels: number of image channels. Default: that of ``v1``, else 3.
      v1: configuration of the VOneBlock, for VOneNets. Default: see
        ``small_images.v1_config``.
      width: channels behind the stem (the bottleneck); all layers scale with it. The published
        networks have 64.
      dtype: ``jnp.float32``, or ``jnp.bfloat16`` for mixed precision: parameters, batch
        statistics and V1 stay float32.
      stem_noise: for base networks, see ``BaseNetwork``. Default: none, as published.
      stem_gain: the same.
      mean: for base networks, subtracted from images in [0, 1], one number per channel. Default:
        that of ImageNet's training images, or 0.5 where there are not 3 channels. VOneNets have
        ``v1.image_mean`` and ``v1.image_std``.
      std: for base networks, divides images after the subtraction; defaults as for ``mean``.

    Returns:
      A Flax Linen module; see ``VOneNet`` for how to apply it.

    Raises:
      ValueError: for an unknown name (the nearest is named) or an argument that is out of range
        or contradicts ``v1``.
    """
    if name not in NAMES:
        close = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}{hint}")
    with_v1 = name.startswith("vone_")
    if v1 is not None:
        if not with_v1:
            raise ValueError(f"v1 is for VOneNets, but name is {name!r}; use 'vone_{name}'")
        for field, given in (("image_size", image_size), ("in_channels", in_channels)):
            if given is not None and given != getattr(v1, field):
                raise ValueError(f"{field} is {given}, but v1.{field} is {getattr(v1, field)}")
        image_size, in_channels = v1.image_size, v1.in_channels
    image_size = 224 if image_size is None else image_size
    in_channels = 3 if in_channels is None else in_channels
    for field, value, least in (
        ("num_classes", num_classes, 1),
        ("image_size", image_size, 8),
        ("in_channels", in_channels, 1),
        ("width", width, 1),
    ):
        if value < least:
            raise ValueError(f"{field} must be >= {least}, got {value}")
    if not (math.isfinite(stem_gain) and stem_gain > 0):
        raise ValueError(f"stem_gain must be > 0, got {stem_gain}")
    if with_v1 and (stem_noise is not None or stem_gain != 1.0):
        raise ValueError(f"stem_noise and stem_gain are for base networks; {name!r} has v1.noise")
    if with_v1 and (mean is not None or std is not None):
        raise ValueError(
            f"mean and std are for base networks; {name!r} has v1.image_mean and v1.image_std"
        )
    parts = _NETWORKS[name.removeprefix("vone_")]
    back_end = parts.back_end(image_size, with_v1, num_classes, width, dtype)
    if with_v1:
        v1 = v1_config(image_size, in_channels) if v1 is None else v1
        return VOneNet(v1=v1, back_end=back_end, bottleneck_features=width, dtype=dtype)
    rgb = in_channels == 3
    if mean is None:
        mean = IMAGENET_MEAN if rgb else (0.5,) * in_channels
    if std is None:
        std = IMAGENET_STD if rgb else (0.5,) * in_channels
    mean, std = tuple(mean), tuple(std)
    check_normalisation("mean", mean, in_channels)
    check_normalisation("std", std, in_channels, positive=True)
    return BaseNetwork(
        stem=parts.stem(image_size, width, dtype),
        back_end=back_end,
        mean=mean,
        std=std,
        dtype=dtype,
        stem_noise=stem_noise,
        stem_gain=stem_gain,
    )
