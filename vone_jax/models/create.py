"""Networks by name, in a form for ImageNet's 224 pixels or for small images of 28, 32 or 64.

A stem that divides 224 pixels by 4 leaves nothing of 32. The stems for small images divide less.
Their V1 keeps 28 to 32 pixels per degree, so that the bank's frequencies stay below the Nyquist
limit: the field of view shrinks, not the resolution. V1 has the stride of the stem it replaces.
"""

import fnmatch
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from vone_jax import arguments, names
from vone_jax.models.alexnet import AlexNetBackEnd, AlexNetStem
from vone_jax.models.cornet_s import CORnetSBackEnd, CORnetV1
from vone_jax.models.cornet_z import CORnetZBackEnd, CORnetZV1
from vone_jax.models.efficientnet import WIDTH as EFFICIENTNET_WIDTH
from vone_jax.models.efficientnet import EfficientNetBackEnd, EfficientNetStem
from vone_jax.models.layers import Dtype
from vone_jax.models.network import BaseNetwork, Network, VOneNet
from vone_jax.models.resnet import BasicBlock, Block, BottleneckBlock, ResNetBackEnd, ResNetStem
from vone_jax.v1 import FanoNoise, NeuronalNoise, SubcorticalConfig, VOneBlockConfig
from vone_jax.v1.block import check_normalisation
from vone_jax.v1.noise import Noise

# The mean and standard deviation of ImageNet's training images, RGB, which torchvision's networks
# expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Networks with another normalisation. That of Lite0 is (x - 127) / 128 for images of 0 to 255.
_NORMALISATIONS = {"efficientnet_lite0": ((127 / 255,) * 3, (128 / 255,) * 3)}


class StemForm(NamedTuple):
    """The first convolution of a stem: kernel in pixels, stride, and a max pool of stride 2."""

    kernel: int
    stride: int
    pool: bool


# From this size on, networks have their ImageNet form.
FULL_SIZE = 112
# Pixels per degree of EVNets.
_EVNET_RESOLUTION = 32


def stem_form(image_size: int) -> StemForm:
    """The stem of ResNets and CORnets for an image size in pixels.

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


def v1_config(image_size: int, in_channels: int, name: str = "vone_resnet50") -> VOneBlockConfig:
    """The default VOneBlock of a VOneNet or EVNet, one of ``NAMES``, for an image size in pixels.

    From 112 pixels on, the published block at 28 pixels per degree (224 pixels: 8 degrees). At 48
    and more, the Tiny ImageNet block of Baidya et al. (2021), arXiv:2110.10645: 32 pixels per
    degree, stride 2. Below, 28 pixels per degree for 28 pixels at stride 2, 32 pixels per degree
    for 32 pixels at stride 1 (1 degree), with the published distributions, gain and noise (this
    project's choice).

    An EfficientNet has a stem of stride 2. From 112 pixels on, its V1 has stride 2 and half of the
    cells, as in EVNet (Piper et al. 2025, arXiv:2506.03089).

    The V1 of an EVNet reads ``in_channels`` kinds of cells of the subcortical stage, at 32 pixels
    per degree. From 112 pixels on it is the published block. Below, it has the kernels and the
    stride of a VOneNet (this project's choice).
    """
    config = partial(VOneBlockConfig, image_size=image_size, in_channels=in_channels)
    if image_size >= FULL_SIZE and _is_efficientnet(name):
        config = partial(config, stride=2, simple_channels=128, complex_channels=128)
    if names.front_end(name) == "ev_":
        config = partial(
            config,
            visual_degrees=image_size / _EVNET_RESOLUTION,
            gabor_seed=42,
            sf_max=8.0,
            distribution="evnet",
            k_exc=5.3,
            noise=FanoNoise(),
            image_mean=0.0,
            image_std=1.0,
        )
        if image_size >= FULL_SIZE:
            return config(kernel_size=31)
        form = v1_config(image_size, in_channels)
        return config(kernel_size=form.kernel_size, stride=form.stride)
    if image_size >= FULL_SIZE:
        return config(visual_degrees=image_size / 28)
    if image_size >= 48:
        return config(
            visual_degrees=image_size / 32,
            stride=2,
            sf_max=11.3,
            distribution="physiological_extended",
            k_exc=23.5,
            noise=NeuronalNoise(scale=0.286, level=0.071),
        )
    if image_size >= 32:
        return config(visual_degrees=image_size / 32, kernel_size=21, stride=1)
    return config(visual_degrees=image_size / 28, kernel_size=21, stride=2)


def front_end(
    name: str,
    image_size: int,
    in_channels: int,
    v1: VOneBlockConfig | None = None,
    subcortical: SubcorticalConfig | None = None,
) -> tuple[VOneBlockConfig | None, SubcorticalConfig | None]:
    """The configurations of V1 and of the subcortical stage of a network.

    Args:
      name: one of ``NAMES``. A base network has neither, a VOneNet has no subcortical stage.
      image_size: in pixels, for defaults.
      in_channels: number of image channels, for defaults.
      v1: that of V1. Default: see ``v1_config``.
      subcortical: that of the subcortical stage. Default: the published one, at 32 pixels per
        degree.

    Raises:
      ValueError: for a configuration of a stage that the network lacks, or if the two contradict
        each other.
    """
    kind = names.front_end(name)
    if v1 is not None and not kind:
        raise ValueError(f"v1 is for VOneNets, but name is {name!r}; use 'vone_{name}'")
    if kind != "ev_":
        if subcortical is not None:
            base = names.base_network(name)
            raise ValueError(f"subcortical is for EVNets, but name is {name!r}; use 'ev_{base}'")
        return v1_config(image_size, in_channels, name) if kind and v1 is None else v1, None
    if subcortical is None:
        degrees = image_size / _EVNET_RESOLUTION if v1 is None else v1.visual_degrees
        subcortical = SubcorticalConfig(image_size, degrees, in_channels)
    if v1 is None:
        v1 = v1_config(image_size, subcortical.num_channels, name)
    if v1.in_channels != subcortical.num_channels:
        raise ValueError(
            f"v1.in_channels must be the number of kinds of cells of the subcortical stage, "
            f"{subcortical.num_channels}, got {v1.in_channels}"
        )
    for field in ("image_size", "visual_degrees"):
        ours, before = getattr(v1, field), getattr(subcortical, field)
        if ours != before:
            raise ValueError(
                f"v1.{field} and subcortical.{field} must be equal, got {ours} and {before}"
            )
    return v1, subcortical


def default_width(name: str) -> int:
    """The published number of channels behind the stem: 32 in EfficientNets, 64 in the others."""
    return EFFICIENTNET_WIDTH if _is_efficientnet(name) else 64


def default_normalisation(
    name: str, in_channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation per channel that ``create`` gives a base network."""
    if in_channels != 3:
        return (0.5,) * in_channels, (0.5,) * in_channels
    return _NORMALISATIONS.get(name, (IMAGENET_MEAN, IMAGENET_STD))


def _is_efficientnet(name: str) -> bool:
    return names.base_network(name).startswith("efficientnet_")


# The classes of stem and back end, with the arguments that depend on the network and its form.
_Parts = tuple[Callable[..., nn.Module], Callable[..., nn.Module]]


def _resnet(block: Block, blocks: Sequence[int], image_size: int, with_v1: bool) -> _Parts:
    stem = partial(ResNetStem, **stem_form(image_size)._asdict())
    return stem, partial(ResNetBackEnd, block, blocks)


def _cornet_s(image_size: int, with_v1: bool) -> _Parts:
    return partial(CORnetV1, **stem_form(image_size)._asdict()), CORnetSBackEnd


def _cornet_z(image_size: int, with_v1: bool) -> _Parts:
    return partial(CORnetZV1, **stem_form(image_size)._asdict()), CORnetZBackEnd


def _alexnet(image_size: int, with_v1: bool) -> _Parts:
    stride = 2 if with_v1 else 1
    if image_size >= FULL_SIZE:
        padding, size = (1, 7) if with_v1 else (0, 6)
        back_end = partial(AlexNetBackEnd, conv2_stride=stride, pool_padding=padding)
        return AlexNetStem, partial(back_end, pool_size=size)
    form = stem_form(image_size)
    stem_stride = form.stride * (2 if form.pool else 1)
    stem = partial(AlexNetStem, kernel=5, stride=stem_stride, pool_padding=1)
    return stem, partial(AlexNetBackEnd, conv2_stride=stride, pool_padding=1, pool_size=4)


def _efficientnet(lite: bool, image_size: int, with_v1: bool) -> _Parts:
    form = stem_form(image_size)
    stem = partial(EfficientNetStem, lite=lite, stride=2 if form.pool else form.stride)
    return stem, partial(EfficientNetBackEnd, lite=lite)


_NETWORKS: dict[str, Callable[[int, bool], _Parts]] = {
    "resnet18": partial(_resnet, BasicBlock, (2, 2, 2, 2)),
    "resnet50": partial(_resnet, BottleneckBlock, (3, 4, 6, 3)),
    "alexnet": _alexnet,
    "cornet_s": _cornet_s,
    "cornet_z": _cornet_z,
    "efficientnet_b0": partial(_efficientnet, False),
    "efficientnet_lite0": partial(_efficientnet, True),
}

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
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    subcortical: SubcorticalConfig | None = None,
) -> Network:
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
      mean: for base networks, subtracted from images in [0, 1], one number per channel. Default:
        that of ImageNet's training images (127/255 for Lite0), or 0.5 where there are not 3
        channels. VOneNets have ``v1.image_mean`` and ``v1.image_std``.
      std: for base networks, divides images after the subtraction; defaults as for ``mean``
        (128/255 for Lite0).
      subcortical: configuration of the subcortical stage, for EVNets. Default: the published one at
        32 pixels per degree.

    Raises:
      ValueError: for an unknown name (the message has the nearest one) or an argument that is out
        of range or contradicts ``v1`` or ``subcortical``.
    """
    arguments.choice("name", name, NAMES)
    kind = names.front_end(name)
    stages: dict[str, VOneBlockConfig | SubcorticalConfig | None] = {
        "v1": v1,
        "subcortical": subcortical,
    }
    for stage, config in stages.items():
        if config is None:
            continue
        if image_size not in (None, config.image_size):
            raise ValueError(
                f"image_size is {image_size}, but {stage}.image_size is {config.image_size}"
            )
        image_size = config.image_size
        if stage == "v1" and kind == "ev_":
            continue  # It does not read images.
        if in_channels not in (None, config.in_channels):
            raise ValueError(
                f"in_channels is {in_channels}, but {stage}.in_channels is {config.in_channels}"
            )
        in_channels = config.in_channels
    image_size = 224 if image_size is None else image_size
    in_channels = 3 if in_channels is None else in_channels
    width = default_width(name) if width is None else width
    arguments.count("num_classes", num_classes)
    arguments.count("image_size", image_size, least=8)
    arguments.count("in_channels", in_channels)
    arguments.count("width", width)
    arguments.number("stem_gain", stem_gain, positive=True)
    v1, subcortical = front_end(name, image_size, in_channels, v1, subcortical)
    if v1 is not None and (stem_noise is not None or stem_gain != 1.0):
        raise ValueError(f"stem_noise and stem_gain are for base networks; {name!r} has v1.noise")
    if v1 is not None and (mean is not None or std is not None):
        raise ValueError(
            f"mean and std are for base networks; {name!r} has v1.image_mean and v1.image_std"
        )
    base = names.base_network(name)
    make_stem, make_back_end = _NETWORKS[base](image_size, v1 is not None)
    back_end = make_back_end(num_classes=num_classes, width=width, dtype=dtype)
    if v1 is not None:
        return VOneNet(
            v1=v1,
            back_end=back_end,
            bottleneck_features=width,
            dtype=dtype,
            subcortical=subcortical,
        )
    default_mean, default_std = default_normalisation(name, in_channels)
    mean = tuple(default_mean if mean is None else mean)
    std = tuple(default_std if std is None else std)
    check_normalisation("mean", mean, in_channels)
    check_normalisation("std", std, in_channels, positive=True)
    return BaseNetwork(
        stem=make_stem(features=width, dtype=dtype),
        back_end=back_end,
        mean=mean,
        std=std,
        dtype=dtype,
        stem_noise=stem_noise,
        stem_gain=stem_gain,
    )
