"""AlexNet (Krizhevsky 2014, as in torchvision) and the back end that VOneAlexNet uses.

The VOneNet's back end differs from torchvision's: its second convolution has stride 2 and its
pools are padded, so that the maps are 56, 28, 14, 7, 7 pixels wide.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from vone_jax import fast
from vone_jax.models import layers
from vone_jax.models.architecture import Architecture
from vone_jax.models.defaults import FULL_SIZE, stem_form


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


def _pool(spec: Any) -> dict[str, Any]:
    """The fields of the pools of a back end."""
    published = spec.form_size >= FULL_SIZE
    if published and not spec.front:
        return {"pool_padding": 0, "pool_size": 6}
    return {"pool_padding": 1, "pool_size": 7 if published else 4}


class _Size(NamedTuple):
    label: str
    width: int = 64


@dataclasses.dataclass(frozen=True)
class AlexNet(Architecture):
    """AlexNet, and the back end of VOneAlexNet."""

    SIZES = {"alexnet": _Size("AlexNet")}
    in_torch = True

    @classmethod
    def names(cls, name, front):
        # Behind V1, the numbers begin at the second convolution.
        first = 3 if front else 0
        places = {"stem/conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
        linear = {"fc6": 1, "fc7": 4, "fc8": 6}
        table = {ours: f"features.{place - first}" for ours, place in places.items()}
        return {"torchvision": table | {ours: f"classifier.{n}" for ours, n in linear.items()}}

    @classmethod
    def told(cls, file, known):
        # The first convolution of the file, which is the second one behind V1.
        first = "stem/conv1.weight" in file or "conv2.weight" in file
        if not first or not file.count("fc*.weight"):
            return None
        return {"name": ["alexnet"], **file.ends("stem/conv1", "fc8")}

    @classmethod
    def assumed(cls, file, name):
        size = file.stem_size("stem/conv1")
        return super().assumed(file, name) | {"image_size": size, "stem_size": size}

    def layout(self, spec, name, convention):
        """Behind the last map, PyTorch flattens channels first."""
        if name != "fc6.weight":
            return None
        side = _pool(spec)["pool_size"]

        def to_ours(tensor):
            if tensor.ndim != 2 or tensor.shape[1] % side**2:
                return tensor  # The shape check reports the misfit.
            maps = tensor.reshape(tensor.shape[0], -1, side, side)
            return maps.transpose(2, 3, 1, 0).reshape(tensor.shape[1], tensor.shape[0])

        def to_theirs(leaf):
            maps = leaf.reshape(side, side, -1, leaf.shape[1])
            return maps.transpose(3, 2, 0, 1).reshape(leaf.shape[1], leaf.shape[0])

        return to_ours, to_theirs

    def stem(self, spec, dtype):
        if spec.form_size >= FULL_SIZE:
            return AlexNetStem(spec.width, dtype=dtype)
        form = stem_form(spec.form_size)
        # Where ResNets have a pool, this stem has a stride of 2 more.
        stride = 2 if form.pool else form.stride
        return AlexNetStem(spec.width, kernel=5, stride=stride, pool_padding=1, dtype=dtype)

    def back_end(self, spec, dtype):
        stride = 2 if spec.front else 1
        return AlexNetBackEnd(
            spec.num_classes, stride, width=spec.width, dtype=dtype, **_pool(spec)
        )
