"""What changes between ImageNet's 224 pixels and small images of 28, 32 or 64.

A stem that divides 224 pixels by 4 leaves nothing of 32. Small-image networks divide less, and
their V1 keeps 28 to 32 pixels per degree, so that the bank's frequencies stay below the Nyquist
limit: the field of view shrinks, not the resolution. V1 has the stride of the stem it replaces.
"""

import dataclasses

from vone_jax.v1 import NeuronalNoise, VOneBlockConfig


@dataclasses.dataclass(frozen=True)
class StemForm:
    """The stem of a base network at some image size.

    Attributes:
      kernel: side of the first kernel in pixels.
      stride: of the first convolution.
      pool: whether a max pool of stride 2 follows.
    """

    kernel: int
    stride: int
    pool: bool


# From this size on, networks have their ImageNet form.
FULL_SIZE = 112


def stem_form(image_size: int) -> StemForm:
    """The stem of ResNets and CORnet-S.

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
    """The VOneBlock that a VOneNet gets for an image size unless one is given.

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
