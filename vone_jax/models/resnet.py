"""ResNet-18 and ResNet-50 (He et al. 2016; stride on the 3x3 convolution, as in torchvision).

The network is cut behind its stem, which the VOneBlock and its bottleneck replace.
Submodules carry PyTorch's names, so that checkpoints convert by rule.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vone_jax import fast
from vone_jax.models import layers
from vone_jax.models.architecture import Architecture, known
from vone_jax.models.defaults import stem_form


class ResNetStem(layers.Stem):
    """A convolution, batch norm, ReLU and (optionally) max pooling."""

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        x = layers.conv(self.features, self.kernel, self.stride, name="conv1", dtype=self.dtype)(x)
        x = fast.relu(layers.BatchNorm(self.dtype, name="bn1")(x, train))
        return {"stem": layers.max_pool(x, padding=1) if self.pool else x}


class ResidualBlock(nn.Module):
    """Convolutions with a skip connection, which is projected if the block changes the shape.

    A bottleneck has kernels of 1x1, 3x3 (with the stride) and 1x1 (with four times the features).
    Any other block has two kernels of 3x3.
    """

    features: int
    stride: int
    bottleneck: bool
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> Float[Array, "n h2 w2 c2"]:
        wide, strided = self.features, (self.features, 3, self.stride)
        if self.bottleneck:
            convolutions = ((wide, 1, 1), strided, (4 * wide, 1, 1))
        else:
            convolutions = (strided, (wide, 3, 1))
        y = x
        for n, (features, kernel, stride) in enumerate(convolutions, start=1):
            y = fast.relu(y) if n > 1 else y
            y = layers.conv(features, kernel, stride, name=f"conv{n}", dtype=self.dtype)(y)
            y = layers.BatchNorm(self.dtype, name=f"bn{n}")(y, train)
        if x.shape != y.shape:
            features = y.shape[-1]
            x = layers.conv(features, 1, self.stride, name="downsample_0", dtype=self.dtype)(x)
            x = layers.BatchNorm(self.dtype, name="downsample_1")(x, train)
        return fast.relu(y + x)


class ResNetBackEnd(nn.Module):
    """The four stages, global average pooling and the classifier.

    Attributes:
      bottleneck: the kind of the blocks, see ``ResidualBlock``.
      blocks: number of blocks in each stage.
      width: features of the first stage; each stage doubles them.
    """

    bottleneck: bool
    blocks: Sequence[int]
    num_classes: int
    width: int = 64
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        activations = {}
        for stage, count in enumerate(self.blocks, start=1):
            for i in range(count):
                features, stride = self.width * 2 ** (stage - 1), 2 if stage > 1 and i == 0 else 1
                block = ResidualBlock(
                    features, stride, self.bottleneck, self.dtype, name=f"layer{stage}_{i}"
                )
                x = block(x, train)
            activations[f"layer{stage}"] = x
        x = activations["avgpool"] = layers.global_average_pool(x)
        last = layers.linear(self.num_classes, x.shape[-1], name="fc", dtype=self.dtype)
        return activations | {"logits": last(x)}


class _Size(NamedTuple):
    label: str
    bottleneck: bool
    blocks: tuple[int, ...]
    width: int = 64


@dataclasses.dataclass(frozen=True)
class ResNet(Architecture):
    """ResNets; for small images, their stems divide the image by less."""

    SIZES = {
        "resnet18": _Size("ResNet-18", False, (2, 2, 2, 2)),
        "resnet50": _Size("ResNet-50", True, (3, 4, 6, 3)),
    }
    NAMES = {
        "torchvision": {
            "stem/conv1": "conv1",
            "stem/bn1": "bn1",
            "layer{s}_{b}/conv{n}": "layer{s}.{b}.conv{n}",
            "layer{s}_{b}/bn{n}": "layer{s}.{b}.bn{n}",
            "layer{s}_{b}/downsample_{n}": "layer{s}.{b}.downsample.{n}",
            "fc": "fc",
        }
    }
    in_torch = True

    @classmethod
    def told(cls, file, known):
        if "layer1_0/conv1.weight" not in file:
            return None
        blocks = tuple(file.count(f"layer{stage}_*/conv1.weight") for stage in range(1, 5))
        form = ("layer1_0/conv3.weight" in file, blocks)
        names = [n for n, size in cls.SIZES.items() if (size.bottleneck, size.blocks) == form]
        if not names:
            known_sizes = " and ".join(size.label for size in cls.SIZES.values())
            raise ValueError(
                f"the state dict is of a ResNet with {blocks} "
                f"{'bottleneck' if form[0] else 'basic'} blocks; known are {known_sizes}"
            )
        return {"name": names, **file.ends("stem/conv1", "fc")}

    @classmethod
    def assumed(cls, file, name):
        size = file.stem_size("stem/conv1")
        return super().assumed(file, name) | {"image_size": size, "stem_size": size}

    def stem(self, spec, dtype):
        return ResNetStem(spec.width, **stem_form(spec.form_size)._asdict(), dtype=dtype)

    def back_end(self, spec, dtype):
        size = self.SIZES[spec.base]
        return ResNetBackEnd(
            size.bottleneck, size.blocks, known(spec.num_classes), known(spec.width), dtype
        )
