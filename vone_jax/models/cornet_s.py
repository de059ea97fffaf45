"""CORnet-S (Kubilius, Schrimpf et al. 2019): one recurrent block per visual area V2, V4, IT.

The network is cut behind its V1 stage, which the VOneBlock and its bottleneck replace.
Submodules carry the original's names, so that checkpoints convert by rule.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vone_jax.fast import convolve
from vone_jax.models import layers


class CORnetV1(layers.Stem):
    """The learned V1 stage of the base network: two convolutions."""

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        x = layers.conv(self.features, self.kernel, self.stride, name="conv1", dtype=self.dtype)(x)
        x = nn.relu(layers.BatchNorm(self.dtype, name="norm1")(x, train))
        x = layers.max_pool(x, padding=1) if self.pool else x
        x = layers.conv(self.features, 3, name="conv2", dtype=self.dtype)(x)
        return {"V1": nn.relu(layers.BatchNorm(self.dtype, name="norm2")(x, train))}


class SteppedConv(nn.Module):
    """A 3x3 convolution whose stride is chosen at each application."""

    features: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, stride: int) -> Float[Array, "n h2 w2 c2"]:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", layers.he_normal_fan_out, shape, jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        return convolve(x, kernel, (stride, stride), [(1, 1), (1, 1)])


class CORblockS(nn.Module):
    """One area: the same convolutions applied ``steps`` times, each time with its own batch norms.

    The first step halves the height and the width of the map.
    """

    features: int
    steps: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> list[Float[Array, "n h2 w2 c2"]]:
        """The output of the area after each step."""
        x = layers.conv(self.features, 1, name="conv_input", dtype=self.dtype)(x)
        conv1 = layers.conv(4 * self.features, 1, name="conv1", dtype=self.dtype)
        conv2 = SteppedConv(4 * self.features, dtype=self.dtype, name="conv2")
        conv3 = layers.conv(self.features, 1, name="conv3", dtype=self.dtype)
        outputs = []
        for t in range(self.steps):
            skip = x
            if t == 0:
                skip = layers.conv(self.features, 1, 2, name="skip", dtype=self.dtype)(x)
                skip = layers.BatchNorm(self.dtype, name="norm_skip")(skip, train)
            y = nn.relu(layers.BatchNorm(self.dtype, name=f"norm1_{t}")(conv1(x), train))
            y = conv2(y, stride=2 if t == 0 else 1)
            y = nn.relu(layers.BatchNorm(self.dtype, name=f"norm2_{t}")(y, train))
            y = layers.BatchNorm(self.dtype, name=f"norm3_{t}")(conv3(y), train)
            x = nn.relu(y + skip)
            outputs.append(x)
        return outputs


# Area -> (width relative to V1, steps in time).
AREAS = {"V2": (2, 2), "V4": (4, 4), "IT": (8, 2)}


class CORnetSBackEnd(nn.Module):
    """V2, V4, IT and the decoder. ``width`` is the number of features of V1.

    The layers are named after the areas (their last step); ``V4.step0`` and so on are the
    outputs of the single steps.
    """

    num_classes: int
    width: int = 64
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        activations = {}
        for area, (widening, steps) in AREAS.items():
            outputs = CORblockS(widening * self.width, steps, self.dtype, name=area)(x, train)
            activations |= {f"{area}.step{t}": output for t, output in enumerate(outputs)}
            x = activations[area] = outputs[-1]
        x = activations["avgpool"] = layers.global_average_pool(x)
        last = layers.linear(self.num_classes, x.shape[-1], name="linear", dtype=self.dtype)
        return activations | {"logits": last(x)}
