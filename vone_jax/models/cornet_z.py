"""CORnet-Z (Kubilius, Schrimpf et al. 2018): one convolution per visual area.

The network is cut behind its V1 stage, which the VOneBlock and its bottleneck replace.
Submodules carry the original's names, so that checkpoints convert by rule.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vone_jax.models import layers


class CORblockZ(nn.Module):
    """One area: a convolution with bias, ReLU, and a 3x3 max pool of stride 2 if ``pool``."""

    features: int
    kernel: int = 3
    stride: int = 1
    pool: bool = True
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps) -> Float[Array, "n h2 w2 c2"]:
        x = layers.conv(
            self.features, self.kernel, self.stride, use_bias=True, dtype=self.dtype, name="conv",
            kernel_init=nn.initializers.xavier_uniform(),
        )(x)  # fmt: skip
        x = nn.relu(x)
        return layers.max_pool(x, padding=1) if self.pool else x


class CORnetZV1(layers.Stem):
    """The learned V1 stage of the base network."""

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        area = CORblockZ(self.features, self.kernel, self.stride, self.pool, self.dtype, name="V1")
        return {"V1": area(x)}


class CORnetZBackEnd(nn.Module):
    """V2, V4, IT and the decoder. ``width`` is the number of features of V1."""

    num_classes: int
    width: int = 64
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        activations = {}
        for area, widening in (("V2", 2), ("V4", 4), ("IT", 8)):
            block = CORblockZ(widening * self.width, dtype=self.dtype, name=area)
            x = activations[area] = block(x)
        x = activations["avgpool"] = layers.global_average_pool(x)
        xavier = nn.initializers.xavier_uniform()
        last = nn.Dense(self.num_classes, kernel_init=xavier, dtype=self.dtype, name="linear")
        return activations | {"logits": last(x)}
