"""ResNet-18 and ResNet-50 (He et al. 2016; stride on the 3x3 convolution, as in torchvision).

The network is cut behind its stem, which the VOneBlock and its bottleneck replace.
Submodules carry PyTorch's names, so that checkpoints convert by rule.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vone_jax import fast
from vone_jax.models import layers


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
