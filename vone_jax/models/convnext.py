"""ConvNeXts (Liu et al. 2022, arXiv:2201.03545), as in timm and torchvision.

The network is cut behind its stem, which V1 and an attachment replace.
"""

import dataclasses
import itertools
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vone_jax import arguments
from vone_jax.models import layers
from vone_jax.models.architecture import known
from vone_jax.models.attachment import Attachment
from vone_jax.models.trunks import ATTACHED, Trunk


def _conv(
    x: layers.Maps, features: int, size: int, stride: int, name: str, dtype: layers.Dtype,
    padding: int = 0, groups: int = 1,
) -> Float[Array, "n h2 w2 {features}"]:  # fmt: skip
    """A convolution with bias; a submodule of the caller."""
    return layers.conv(
        features, size, stride, padding=padding, use_bias=True, feature_group_count=groups,
        kernel_init=layers.normal_002, dtype=dtype, name=name,
    )(x)  # fmt: skip


class ConvNeXtStem(nn.Module):
    """A linear map of patches of ``stride`` pixels, and a layer norm."""

    signed = True
    features: int
    stride: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        x = _conv(x, self.features, self.stride, self.stride, "conv", self.dtype)
        return {"stem": layers.LayerNorm(self.dtype, name="norm")(x)}


class ConvNeXtBlock(nn.Module):
    """A depthwise 7x7 convolution, a layer norm and a perceptron, with a skip connection."""

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, scales: Float[Array, " n"] | None) -> layers.Maps:
        """Return the map. ``scales`` multiply the branch of each example."""
        features = x.shape[-1]
        y = _conv(x, features, 7, 1, "depthwise", self.dtype, padding=3, groups=features)
        y = layers.LayerNorm(self.dtype, name="norm")(y)
        y = layers.gelu(layers.dense(4 * features, name="fc1", dtype=self.dtype)(y))
        y = layers.dense(features, name="fc2", dtype=self.dtype)(y)
        gamma = self.param(
            "gamma", nn.initializers.constant(layers.LAYER_SCALE), (features,), jnp.float32
        )
        y *= gamma.astype(self.dtype)[None, None, None]
        return x + layers.scaled(y, scales)


class ConvNeXtBackEnd(layers.DropPathBackEnd):
    """The four stages, global average pooling, a layer norm and the classifier.

    The layers are "patches" behind an attachment, then "stage1" and so on, and "avgpool".

    Attributes:
      width: channels of the first stage; each stage doubles them.
      depth: number of blocks in each stage.
      attachment: brings the map of another front end to the first stage; None behind
        ``ConvNeXtStem``.
    """

    num_classes: int
    width: int
    depth: tuple[int, ...]
    attachment: Attachment | None = None
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: layers.Maps, train: bool, keys: Key[Array, " n"] | None = None
    ) -> layers.Activations:
        activations = {}
        if self.attachment is not None:
            x = activations["patches"] = self.attachment(x)
        scales = layers.path_scales(keys, self.drop_path, sum(self.depth), branches=1)
        number = 0
        for stage, count in enumerate(self.depth, start=1):
            if stage > 1:
                x = layers.LayerNorm(self.dtype, name=f"norm{stage}")(x)
                x = _conv(x, 2 * x.shape[-1], 2, 2, f"downsample{stage}", self.dtype)
                if 0 in x.shape[1:3]:
                    raise ValueError(
                        "images are too small for the stages; take a larger image_size"
                    )
            for i in range(count):
                block = ConvNeXtBlock(self.dtype, name=f"stage{stage}_{i}")
                x = block(x, None if scales is None else scales[:, number, 0])
                number += 1
            activations[f"stage{stage}"] = x
        x = activations["avgpool"] = layers.global_average_pool(x)
        x = layers.LayerNorm(self.dtype, name="norm")(x)
        last = layers.dense(self.num_classes, name="head", dtype=self.dtype)
        return activations | {"logits": last(x)}


class _Size(NamedTuple):
    label: str
    width: int
    depth: tuple[int, ...]
    patch_size: int = 4
    small_patch_size: int = 2


# The modules of a block in timm, torchvision and Meta.
_BLOCK = {
    "depthwise": ("conv_dw", "block.0", "dwconv"),
    "norm": ("norm", "block.2", "norm"),
    "fc1": ("mlp.fc1", "block.3", "pwconv1"),
    "fc2": ("mlp.fc2", "block.5", "pwconv2"),
    "gamma": ("gamma", "layer_scale", "gamma"),
}
_ENDS = {
    "stem/conv": ("stem.0", "features.0.0", "downsample_layers.0.0"),
    "stem/norm": ("stem.1", "features.0.1", "downsample_layers.0.1"),
    "norm": ("head.norm", "classifier.0", "norm"),
    "head": ("head.fc", "classifier.2", "head"),
}
_BETWEEN = ("stages.{n-1}.downsample", "features.{2n-2}", "downsample_layers.{n-1}")
_BLOCKS = ("stages.{n-1}.blocks.{b}", "features.{2n-1}.{b}", "stages.{n-1}.{b}")


def _names(column: int) -> dict[str, str]:
    """Those of one of the three conventions."""
    return {
        **{ours: theirs[column] for ours, theirs in _ENDS.items()},
        "norm{n}": f"{_BETWEEN[column]}.0",
        "downsample{n}": f"{_BETWEEN[column]}.1",
        **{
            f"stage{{n}}_{{b}}/{ours}": f"{_BLOCKS[column]}.{theirs[column]}"
            for ours, theirs in _BLOCK.items()
        },
        **ATTACHED,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXt(Trunk):
    """ConvNeXts."""

    NAMES = {"timm": _names(0), "torchvision": _names(1), "meta": _names(2)}

    SIZES = {
        "convnext_t": _Size("ConvNeXt-T", 96, (3, 3, 9, 3)),
        "convnext_s": _Size("ConvNeXt-S", 96, (3, 3, 27, 3)),
        "convnext_b": _Size("ConvNeXt-B", 128, (3, 3, 27, 3)),
    }

    # The number of blocks in each stage. None is that of the published network.
    depth: tuple[int, ...] | None = None

    @classmethod
    def told(cls, file, known):
        width = file.length("stage1_0/depthwise.weight", 0)
        if width is None:
            return None
        counts = (file.count(f"stage{n}_*/depthwise.weight") for n in itertools.count(1))
        depth = tuple(itertools.takewhile(bool, counts))
        return cls.told_of(file, known, "stem/conv", width, depth)

    @classmethod
    def assumed(cls, file, name):
        small = (file.length("stem/conv.weight", 3) or 4) < 4
        return super().assumed(file, name) | ({"image_size": 32} if small else {})

    def layout(self, spec, name, convention):
        """The layer scale of torchvision has the shape (c, 1, 1)."""
        if convention == "torchvision" and name.endswith("/gamma"):
            return np.ravel, lambda leaf: leaf[:, None, None]
        return None

    def complete(self, spec):
        depth = self.SIZES[spec.base].depth if self.depth is None else tuple(self.depth)
        if len(depth) < 2:
            raise ValueError(
                f"depth of {spec.base} must have a number of blocks for each stage, such as "
                f"{self.SIZES[spec.base].depth}, got {depth}"
            )
        for count in depth:
            arguments.count("depth", count)
        return dataclasses.replace(super().complete(spec), depth=depth)

    def own_stem(self, spec, dtype):
        return ConvNeXtStem(known(spec.width), known(self.patch_size), dtype)

    def back_end(self, spec, dtype):
        return ConvNeXtBackEnd(
            spec.num_classes, spec.width, known(self.depth), self.attached(spec, False, dtype),
            dtype, drop_path=self.drop_path,
        )  # fmt: skip
