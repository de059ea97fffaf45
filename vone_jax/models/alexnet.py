"""AlexNet (Krizhevsky 2014, as in torchvision) and the back end that VOneAlexNet uses.

The VOneNet's back end differs from torchvision's: its second convolution has stride 2 and its
pools are padded, so that the maps are 56, 28, 14, 7, 7 pixels wide.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from vone_jax import fast
from vone_jax.models import layers


def _conv(
    x: Array, features: int, kernel: int, stride: int, padding: int, name: str, dtype: layers.Dtype
) -> Array:
    """A convolution with bias, initialised as in PyTorch, then ReLU; a submodule of the caller."""
    x = layers.conv(
        features, kernel, stride, padding=padding, use_bias=True, dtype=dtype, name=name,
        kernel_init=layers.torch_uniform,
        bias_init=layers.torch_bias(kernel * kernel * x.shape[-1]),
    )(x)  # fmt: skip
    return fast.relu(x)


class AlexNetStem(nn.Module):
    """The first convolution, ReLU, and a 3x3 max pool of stride 2."""

    features: int = 64
    kernel: int = 11
    stride: int = 4
    padding: int = 2
    pool_padding: int = 0
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        x = _conv(x, self.features, self.kernel, self.stride, self.padding, "conv1", self.dtype)
        return {"conv1": layers.max_pool(x, self.pool_padding)}


class AlexNetBackEnd(nn.Module):
    """The convolutions 2 to 5 and the three fully connected layers.

    Attributes:
      conv2_stride: 1 in AlexNet, 2 in VOneAlexNet.
      pool_padding: of the max pools: 0 in AlexNet, 1 in VOneAlexNet.
      pool_size: side of the adaptive average pool: 6 in AlexNet, 7 in VOneAlexNet.
      width: features of the stem; all layers scale with width / 64.
    """

    num_classes: int
    conv2_stride: int = 1
    pool_padding: int = 0
    pool_size: int = 6
    width: int = 64
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        activations = {}
        w = self.width
        x = _conv(x, 3 * w, 5, self.conv2_stride, 2, "conv2", self.dtype)
        x = activations["conv2"] = layers.max_pool(x, self.pool_padding)
        x = activations["conv3"] = _conv(x, 6 * w, 3, 1, 1, "conv3", self.dtype)
        x = activations["conv4"] = _conv(x, 4 * w, 3, 1, 1, "conv4", self.dtype)
        x = _conv(x, 4 * w, 3, 1, 1, "conv5", self.dtype)
        x = activations["conv5"] = layers.max_pool(x, self.pool_padding)
        x = layers.adaptive_average_pool(x, self.pool_size)
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))  # -1 fails for a batch of 0.
        for name in ("fc6", "fc7"):
            x = nn.Dropout(0.5, deterministic=not train)(x)
            x = layers.linear(64 * w, x.shape[-1], name=name, dtype=self.dtype)(x)
            x = activations[name] = fast.relu(x)
        last = layers.linear(self.num_classes, x.shape[-1], name="fc8", dtype=self.dtype)
        return activations | {"logits": last(x)}
