"""ResNet-18 and ResNet-50 (He et al. 2016; stride on the 3x3 convolution, as in torchvision).

The network is cut behind its stem, which the VOneBlock and its bottleneck replace.
Submodules carry PyTorch's names, so that checkpoints convert by rule.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vone_jax.models import layers


class ResNetStem(layers.Stem):
    """A convolution, batch norm, ReLU and (optionally) max pooling."""

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        x = layers.conv(self.features, self.kernel, self.stride, name="conv1", dtype=self.dtype)(x)
        x = nn.relu(layers.BatchNorm(self.dtype, name="bn1")(x, train))
        return {"stem": layers.max_pool(x, padding=1) if self.pool else x}


class BasicBlock(nn.Module):
    """A residual block: two 3x3 convolutions around a skip connection."""

    features: int
    stride: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> Float[Array, "n h2 w2 c2"]:
        y = layers.conv(self.features, 3, self.stride, name="conv1", dtype=self.dtype)(x)
        y = nn.relu(layers.BatchNorm(self.dtype, name="bn1")(y, train))
        y = layers.conv(self.features, 3, name="conv2", dtype=self.dtype)(y)
        y = layers.BatchNorm(self.dtype, name="bn2")(y, train)
        return nn.relu(y + _shortcut(x, self.features, self.stride, train, self.dtype))


class BottleneckBlock(nn.Module):
    """A residual block: 1x1, 3x3 (with the stride), 1x1 convolutions around a skip connection."""

    features: int
    stride: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> Float[Array, "n h2 w2 c2"]:
        y = layers.conv(self.features, 1, name="conv1", dtype=self.dtype)(x)
        y = nn.relu(layers.BatchNorm(self.dtype, name="bn1")(y, train))
        y = layers.conv(self.features, 3, self.stride, name="conv2", dtype=self.dtype)(y)
        y = nn.relu(layers.BatchNorm(self.dtype, name="bn2")(y, train))
        y = layers.conv(4 * self.features, 1, name="conv3", dtype=self.dtype)(y)
        y = layers.BatchNorm(self.dtype, name="bn3")(y, train)
        return nn.relu(y + _shortcut(x, 4 * self.features, self.stride, train, self.dtype))


def _shortcut(x: Array, features: int, stride: int, train: bool, dtype: layers.Dtype) -> Array:
    """The input itself, projected where the block changes its shape (in the caller's scope)."""
    if stride == 1 and x.shape[-1] == features:
        return x
    x = layers.conv(features, 1, stride, name="downsample_0", dtype=dtype)(x)
    return layers.BatchNorm(dtype, name="downsample_1")(x, train)


Block = type[BasicBlock] | type[BottleneckBlock]


class ResNetBackEnd(nn.Module):
    """The four stages, global average pooling and the classifier.

    Attributes:
      block: ``BasicBlock`` or ``BottleneckBlock``.
      blocks: number of blocks in each stage.
      num_classes: number of logits.
      width: features of the first stage; each stage doubles them.
    """

    block: Block
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
                x = self.block(features, stride, self.dtype, name=f"layer{stage}_{i}")(x, train)
            activations[f"layer{stage}"] = x
        x = activations["avgpool"] = layers.global_average_pool(x)
        last = layers.linear(self.num_classes, x.shape[-1], name="fc", dtype=self.dtype)
        activations["logits"] = last(x)
        return activations
