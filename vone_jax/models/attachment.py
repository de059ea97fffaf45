"""Attachments: the layers between the map of V1 and a transformer or a ConvNeXt.

These networks read an image in patches, by one convolution. V1 stands in its place, and its map is
attached in one of two forms. The control without V1 begins with a convolutional stem, that of Singh
et al. (2023), arXiv:2303.01870.
"""

import math
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vone_jax.models import layers

Form = Literal["patches", "conv_stem"]


def patches(
    x: layers.Maps, features: int, size: int, name: str, dtype: layers.Dtype
) -> Float[Array, "n h2 w2 {features}"]:
    """A linear map with bias of patches that do not overlap; a submodule of the caller."""
    return layers.conv(
        features, size, size, padding=0, use_bias=True, dtype=dtype, name=name,
        kernel_init=layers.torch_uniform, bias_init=layers.torch_bias(size * size * x.shape[-1]),
    )(x)  # fmt: skip


def _stage(
    x: layers.Maps, features: int, stride: int, number: int, dtype: layers.Dtype
) -> Float[Array, "n h2 w2 {features}"]:
    """A 3x3 convolution with bias, a layer norm and a GELU; submodules of the caller."""
    x = layers.conv(
        features, 3, stride, use_bias=True, dtype=dtype, name=f"conv{number}",
        kernel_init=layers.torch_uniform, bias_init=layers.torch_bias(9 * x.shape[-1]),
    )(x)  # fmt: skip
    return layers.gelu(layers.LayerNorm(dtype, name=f"norm{number}")(x))


class ConvStem(nn.Module):
    """Two stages of a 3x3 convolution, a layer norm and a GELU: the control without V1.

    Attributes:
      features: output channels of the stages.
      stride: pixels of the image between two positions of the map: 1, 2 or 4.
    """

    signed = True
    features: tuple[int, int]
    stride: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        first = min(self.stride, 2)
        x = _stage(x, self.features[0], first, 1, self.dtype)
        return {"stem": _stage(x, self.features[1], self.stride // first, 2, self.dtype)}


class Attachment(nn.Module):
    """A layer norm, and the convolutions that bring a map to the grid and channels of a trunk.

    "patches" reads patches of the map by one convolution with bias. "conv_stem" is the end of a
    convolutional stem: a 3x3 convolution of stride 2, a layer norm and a GELU for each factor of 2,
    with channels that double up to ``features``. A map that has the grid and the channels already
    is only normalised.

    Attributes:
      form: "patches" or "conv_stem".
      ratio: positions of the map between two positions of the trunk.
      features: channels of the trunk.
      projected: whether "conv_stem" ends in a 1x1 convolution with bias, as before a transformer.
      normed: whether there is a layer norm. A ``ConvStem`` ends in one of its own.
    """

    form: Form
    ratio: int
    features: int
    projected: bool
    normed: bool = True
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps) -> Float[Array, "n h2 w2 c2"]:
        if self.normed:
            x = layers.LayerNorm(self.dtype, name="norm")(x)
        if self.form == "patches":
            if self.ratio == 1 and x.shape[-1] == self.features:
                return x
            return patches(x, self.features, self.ratio, "proj", self.dtype)
        stages = round(math.log2(self.ratio))
        for i in range(1, stages + 1):
            x = _stage(x, max(1, self.features >> (stages - i)), 2, i, self.dtype)
        if stages and self.projected:
            x = patches(x, self.features, 1, "proj", self.dtype)
        return x
