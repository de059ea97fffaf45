"""The defaults of a network, which follow from its name and its image size.

A stem that divides 224 pixels by 4 leaves too few positions of 32 pixels, so the stems for small
images divide by less. Their V1 keeps 28 to 32 pixels per degree: the field of view shrinks, not the
resolution, and the bank's frequencies stay below the Nyquist limit. V1 has the stride of the stem
that it replaces.
"""

from dataclasses import replace
from typing import Any, NamedTuple

from vone_jax.models.architecture import family, prefix
from vone_jax.v1 import FanoNoise, NeuronalNoise, SubcorticalConfig, VOneBlockConfig


class StemForm(NamedTuple):
    """The first convolution of a stem: kernel in pixels, stride, and whether a pool follows.

    The pool is a max pool of stride 2.
    """

    kernel: int
    stride: int
    pool: bool


# From this size on, networks have their ImageNet form.
FULL_SIZE = 112
# Pixels per degree of EVNets.
_EVNET_RESOLUTION = 32
# Least image size, stem, pixels per degree of V1, and its fields: see stem_form and v1_config.
_FORMS: tuple[tuple[int, StemForm, int, dict[str, Any]], ...] = (
    (FULL_SIZE, StemForm(kernel=7, stride=2, pool=True), 28, {}),
    (
        48, StemForm(kernel=7, stride=1, pool=True), 32,
        {
            "stride": 2, "sf_max": 11.3, "distribution": "physiological_extended", "k_exc": 23.5,
            "noise": NeuronalNoise(scale=0.286, level=0.071),
        },
    ),
    (32, StemForm(kernel=3, stride=1, pool=False), 32, {"kernel_size": 21, "stride": 1}),
    (0, StemForm(kernel=7, stride=2, pool=False), 28, {"kernel_size": 21, "stride": 2}),
)  # fmt: skip
_EVNET_FIELDS: dict[str, Any] = {
    "gabor_seed": 42, "sf_max": 8.0, "distribution": "evnet", "k_exc": 5.3, "noise": FanoNoise(),
    "image_mean": 0.0, "image_std": 1.0,
}  # fmt: skip


def _evnet_fields(subcortical: SubcorticalConfig | None) -> dict[str, Any]:
    """The published fields of V1 behind a subcortical stage; None is the complete stage.

    The authors scale V1 anew behind a stage without one kind of cells or without light adaptation.
    They did not combine the two; here the missing cells then decide.
    """
    if subcortical is None:
        return _EVNET_FIELDS
    if subcortical.p_cells is None:
        return _EVNET_FIELDS | {"k_exc": 4.8, "noise": FanoNoise(0.94)}
    if subcortical.m_cells is None:
        return _EVNET_FIELDS | {"k_exc": 4.5, "noise": FanoNoise(0.94)}
    return _EVNET_FIELDS if subcortical.light_adaptation else _EVNET_FIELDS | {"k_exc": 4.7}


def _form(image_size: int) -> tuple[StemForm, int, dict[str, Any]]:
    return next(form[1:] for form in _FORMS if image_size >= form[0])


def stem_form(image_size: int) -> StemForm:
    """The stem of ResNets and CORnets for an image size in pixels.

    ImageNet: 7x7 of stride 2 and a pool. Tiny ImageNet (64): 7x7 of stride 1 and a pool. CIFAR
    (32): 3x3 of stride 1 and no pool (He et al. 2016, section 4.2). MNIST (28): 7x7 of stride 2
    and no pool, the size for experiments on a CPU (this project's choice).
    """
    return _form(image_size)[0]


def stem_size(image_size: int) -> int:
    """The size that stands for all image sizes whose stems have the same form."""
    return next(size for size in (224, 64, 32, 28) if _form(size) == _form(image_size))


def v1_config(
    image_size: int,
    in_channels: int,
    name: str = "vone_resnet50",
    subcortical: SubcorticalConfig | None = None,
) -> VOneBlockConfig:
    """The default VOneBlock of a VOneNet or EVNet, one of ``NAMES``, for an image size in pixels.

    From 112 pixels on, the published block at 28 pixels per degree (224 pixels: 8 degrees). From 48
    pixels on, the Tiny ImageNet block of Baidya et al. (2021), arXiv:2110.10645: 32 pixels per
    degree, stride 2. Below 48 pixels, the published distributions, gain and noise (this project's
    choice): from 32 pixels on at 32 pixels per degree and stride 1, below at 28 pixels per degree
    and stride 2. So images of 32 and of 28 pixels span 1 degree.

    An architecture may have fields of its own, see ``Architecture.v1_fields``.

    The V1 of an EVNet reads ``in_channels`` kinds of cells of the subcortical stage, at 32 pixels
    per degree. From 112 pixels on it is the published block. Below, it has the kernels and the
    stride of a VOneNet (this project's choice). Its gain and its noise are those that the authors
    have behind ``subcortical``: other ones behind a stage without P cells, without M cells or
    without light adaptation. Default: the complete stage.
    """
    fields: dict[str, Any]
    _, resolution, fields = _form(image_size)
    if prefix(name) == "ev_":
        resolution = _EVNET_RESOLUTION
        kernels = {n: fields[n] for n in ("kernel_size", "stride") if n in fields}
        fields = _evnet_fields(subcortical) | (kernels or {"kernel_size": 31})
    fields = fields | family(name).v1_fields(image_size)
    degrees = image_size / resolution
    return VOneBlockConfig(
        image_size=image_size, visual_degrees=degrees, in_channels=in_channels, **fields
    )


def evnet_configs(
    name: str,
    image_size: int,
    in_channels: int,
    v1: VOneBlockConfig | None,
    subcortical: SubcorticalConfig | None,
) -> tuple[VOneBlockConfig, SubcorticalConfig]:
    """The configurations of V1 and of the subcortical stage of an EVNet.

    Args:
      name: of the base network.
      image_size: in pixels, for defaults.
      in_channels: number of image channels, for defaults.
      v1: configuration of V1. Default: see ``v1_config``.
      subcortical: configuration of the subcortical stage. Default: the published one, at 32 pixels
        per degree.

    Raises:
      ValueError: if the two contradict each other.
    """
    if subcortical is None:
        degrees = image_size / _EVNET_RESOLUTION if v1 is None else v1.visual_degrees
        subcortical = SubcorticalConfig(image_size, degrees, in_channels)
    if v1 is None:
        cells = subcortical.num_channels
        v1 = v1_config(subcortical.image_size, cells, f"ev_{name}", subcortical)
        v1 = replace(v1, visual_degrees=subcortical.visual_degrees)
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
