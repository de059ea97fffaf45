"""The small network of the literature on adversarial training: two convolutions, two linear layers.

It has 166,406 parameters for grey images of 28 pixels. It is the MNIST network of Wong, Rice and
Kolter (2020), arXiv:2001.03994, which Wong and Kolter (2018), arXiv:1711.00851, introduced.
"""

import dataclasses
import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vone_jax import fast
from vone_jax.models import layers
from vone_jax.models.architecture import Architecture


def _conv(
    x: layers.Maps, features: int, name: str, dtype: layers.Dtype = jnp.float32
) -> Float[Array, "n h2 w2 {features}"]:
    """A 4x4 convolution of stride 2 with bias, then ReLU; a submodule of the caller."""
    x = layers.conv(
        features, 4, 2, padding=1, use_bias=True, dtype=dtype, name=name,
        kernel_init=layers.torch_uniform, bias_init=layers.torch_bias(16 * x.shape[-1]),
    )(x)  # fmt: skip
    return fast.relu(x)


class SmallCNNStem(nn.Module):
    """The first convolution, which V1 replaces."""

    features: int = 16
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        return {"conv1": _conv(x, self.features, "conv1", self.dtype)}


class SmallCNNBackEnd(nn.Module):
    """The second convolution and two linear layers, for the image size of the training alone.

    Attributes:
      width: features of the stem; the second convolution has twice as many.
    """

    num_classes: int
    width: int = 16
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        conv2 = _conv(x, 2 * self.width, "conv2", self.dtype)
        # Channels first, so that the linear layer has the order of PyTorch's.
        flat = conv2.transpose(0, 3, 1, 2).reshape(conv2.shape[0], math.prod(conv2.shape[1:]))
        hidden = fast.relu(layers.linear(100, flat.shape[-1], name="fc1", dtype=self.dtype)(flat))
        last = layers.linear(self.num_classes, 100, name="fc2", dtype=self.dtype)
        return {"conv2": conv2, "fc1": hidden, "logits": last(hidden)}


class _Size(NamedTuple):
    label: str
    width: int


@dataclasses.dataclass(frozen=True)
class SmallCNN(Architecture):
    """The small network, the same for all image sizes."""

    SIZES = {"small_cnn": _Size("SmallCNN", 16)}
    NAMES = {
        "vone_jax": {"stem/conv1": "conv1", "conv2": "conv2", "fc1": "fc1", "fc2": "fc2"},
    }

    def stem(self, spec, dtype):
        return SmallCNNStem(spec.width, dtype)

    def back_end(self, spec, dtype):
        return SmallCNNBackEnd(spec.num_classes, spec.width, dtype)
