"""Networks by name, in a form for ImageNet's 224 pixels or for small images of 28, 32 or 64.

A stem that divides 224 pixels by 4 leaves nothing of 32. The stems for small images divide less.
Their V1 keeps 28 to 32 pixels per degree, so that the bank's frequencies stay below the Nyquist
limit: the field of view shrinks, not the resolution. V1 has the stride of the stem it replaces.
"""

import dataclasses
import fnmatch
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from vone_jax import arguments
from vone_jax.models.alexnet import AlexNetBackEnd, AlexNetStem
from vone_jax.models.cornet_s import CORnetSBackEnd, CORnetV1
from vone_jax.models.layers import Dtype
from vone_jax.models.network import BaseNetwork, VOneNet
from vone_jax.models.resnet import BasicBlock, BottleneckBlock, ResNetBackEnd, ResNetStem
from vone_jax.v1 import GaussianNoise, NeuronalNoise, VOneBlockConfig
from vone_jax.v1.block import check_normalisation

# The mean and standard deviation of ImageNet's training images, RGB, which torchvision's networks
# expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class StemForm:
    """The stem of a base network at some image size.

    Attributes:
      kernel: side of the first kernel in pixels.
      stride: of the first convolution.
      pool: a max pool of stride 2 follows.
    """

    kernel: int
    stride: int
    pool: bool


# From this size on, networks have their ImageNet form.
FULL_SIZE = 112


def stem_form(image_size: int) -> StemForm:
    """The stem of ResNets and CORnet-S for an image size in pixels.

    ImageNet: 7x7 of stride 2 and a pool. Tiny ImageNet (64): 7x7 of stride 1 and a pool. CIFAR
    (32): 3x3 of stride 1 and no pool (He et al. 2016, section 4.2). MNIST (28): 7x7 of stride 2
    and no pool, the size for experiments on a CPU (this project's choice).
    """
    if image_size >= FULL_SIZE:
        return StemForm(kernel=7, stride=2, pool=True)
    if image_size >= 48:
        return StemForm(kernel=7, stride=1, pool=True)
    if image_size >= 32:
        return StemForm(kernel=3, stride=1, pool=False)
    return StemForm(kernel=7, stride=2, pool=False)


def v1_config(image_size: int, in_channels: int) -> VOneBlockConfig:
    """The default VOneBlock of a VOneNet for an image size in pixels.

    From 112 pixels on, the published block at 28 pixels per degree (224 pixels: 8 degrees). At 48
    and more, the Tiny ImageNet block of Baidya et al. (2021), arXiv:2110.10645: 32 pixels per
    degree, stride 2. Below, 28 pixels per degree for 28 pixels at stride 2, 32 pixels per degree
    for 32 pixels at stride 1 (1 degree), with the published distributions, gain and noise (this
    project's choice).
    """
    if image_size >= FULL_SIZE:
        return VOneBlockConfig(
            image_size=image_size, visual_degrees=image_size / 28, in_channels=in_channels
        )
    if image_size >= 48:
        return VOneBlockConfig(
            image_size=image_size,
            visual_degrees=image_size / 32,
            stride=2,
            sf_max=11.3,
            distribution="physiological_extended",
            k_exc=23.5,
            noise=NeuronalNoise(scale=0.286, level=0.071),
            in_channels=in_channels,
        )
    return VOneBlockConfig(
        image_size=image_size,
        visual_degrees=image_size / (28 if image_size < 32 else 32),
        kernel_size=21,
        stride=2 if image_size < 32 else 1,
        in_channels=in_channels,
    )


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The builders of a network's parts.

    Attributes:
      stem: ``(image_size, width, dtype)``.
      back_end: ``(image_size, with_v1, num_classes, width, dtype)``.
    """

    stem: Callable[[int, int, Dtype], nn.Module]
    back_end: Callable[[int, bool, int, int, Dtype], nn.Module]


def _resnet_stem(image_size: int, width: int, dtype: Dtype) -> nn.Module:
    form = stem_form(image_size)
    return ResNetStem(width, form.kernel, form.stride, form.pool, dtype)


def _resnet_back_end(
    image_size: int,
    with_v1: bool,
    num_classes: int,
    width: int,
    dtype: Dtype,
    *,
    block: type[BasicBlock] | type[BottleneckBlock],
    blocks: Sequence[int],
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
    """List the names that ``create`` takes, as timm does.

    Args:
      filter: a pattern for names, such as ``"vone_*"``. Default: all names.
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
    """Build a network.

    Args:
      name: one of ``NAMES``. A VOneNet (``vone_`` in front) has a VOneBlock and a bottleneck in
        place of the stem.
      num_classes: number of logits.
      image_size: in pixels. It selects the ImageNet form (from 112 on) or the small-image form of
        the stem and of V1. Default: that of ``v1``, else 224. The network also accepts images of
        other sizes.
      in_channels: number of image channels. Default: that of ``v1``, else 3.
      v1: configuration of the VOneBlock, for VOneNets. Default: see ``v1_config``.
      width: channels behind the stem (or the bottleneck); all layers scale with it. The published
        networks have 64.
      dtype: ``jnp.float32``, or ``jnp.bfloat16`` for mixed precision: parameters, batch
        statistics and V1 stay float32.
      stem_noise: for base networks, noise behind the stem, see ``BaseNetwork``. Default: none.
      stem_gain: for base networks, multiplies the stem's output before the noise.
      mean: for base networks, subtracted from images in [0, 1], one number per channel. Default:
        that of ImageNet's training images, or 0.5 where there are not 3 channels. VOneNets have
        ``v1.image_mean`` and ``v1.image_std``.
      std: for base networks, divides images after the subtraction; defaults as for ``mean``.

    Returns:
      A Flax Linen module; see ``VOneNet`` for how to apply it.

    Raises:
      ValueError: for an unknown name (the message has the nearest one) or an argument that is out
        of range or contradicts ``v1``.
    """
    arguments.choice("name", name, NAMES)
    with_v1 = name.startswith("vone_")
    if v1 is not None:
        if not with_v1:
            raise ValueError(f"v1 is for VOneNets, but name is {name!r}; use 'vone_{name}'")
        for field, value in (("image_size", image_size), ("in_channels", in_channels)):
            if value is not None and value != getattr(v1, field):
                raise ValueError(f"{field} is {value}, but v1.{field} is {getattr(v1, field)}")
        image_size, in_channels = v1.image_size, v1.in_channels
    image_size = 224 if image_size is None else image_size
    in_channels = 3 if in_channels is None else in_channels
    for field, value, least in (
        ("num_classes", num_classes, 1),
        ("image_size", image_size, 8),
        ("in_channels", in_channels, 1),
        ("width", width, 1),
    ):
        arguments.count(field, value, least)
    arguments.number("stem_gain", stem_gain, positive=True)
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
