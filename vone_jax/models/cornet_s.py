"""CORnet-S (Kubilius, Schrimpf et al. 2019): one recurrent block per visual area V2, V4, IT.

The network is cut behind its V1 stage, which the VOneBlock and its bottleneck replace.
Submodules carry the original's names, so that checkpoints convert by rule.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vone_jax.fast import convolve
from vone_jax.models.layers import (
    Activations,
    BatchNorm,
    Dtype,
    conv,
    global_average_pool,
    he_normal_fan_out,
    linear,
    max_pool,
)


class CORnetV1(nn.Module):
    """The learned V1 stage of the base network: two convolutions.

    Attributes:
      features: output channels.
      kernel: side of the first kernel in pixels.
      stride: of the first convolution.
      pool: a 3x3 max pool of stride 2 follows the first convolution.
    """

    features: int = 64
    kernel: int = 7
    stride: int = 2
    pool: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Activations:
        x = conv(self.features, self.kernel, self.stride, name="conv1", dtype=self.dtype)(x)
        x = nn.relu(BatchNorm(self.dtype, name="norm1")(x, train))
        x = max_pool(x, padding=1) if self.pool else x
        x = conv(self.features, 3, name="conv2", dtype=self.dtype)(x)
        return {"V1": nn.relu(BatchNorm(self.dtype, name="norm2")(x, train))}


class SteppedConv(nn.Module):
    """A 3x3 convolution whose stride is chosen at each application."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], stride: int) -> Float[Array, "n h2 w2 c2"]:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", he_normal_fan_out, shape, jnp.float32)
        return convolve(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (stride, stride),
            [(1, 1), (1, 1)],
        )


class CORblockS(nn.Module):
    """One area: the same convolutions applied ``steps`` times, with other batch norms each time.

    Attributes:
      features: output channels.
      steps: number of passes in time, >= 1. The first one halves the map.
    """

    features: int
    steps: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> list[Float[Array, "n h2 w2 c2"]]:
        """The output of the area after each step."""
        x = conv(self.features, 1, name="conv_input", dtype=self.dtype)(x)
        conv1 = conv(4 * self.features, 1, name="conv1", dtype=self.dtype)
        conv2 = SteppedConv(4 * self.features, dtype=self.dtype, name="conv2")
        conv3 = conv(self.features, 1, name="conv3", dtype=self.dtype)
        outputs = []
        for t in range(self.steps):
            if t == 0:
                skip = conv(self.features, 1, 2, name="skip", dtype=self.dtype)(x)
                skip = BatchNorm(self.dtype, name="norm_skip")(skip, train)
            else:
                skip = x
            y = nn.relu(BatchNorm(self.dtype, name=f"norm1_{t}")(conv1(x), train))
            y = conv2(y, stride=2 if t == 0 else 1)
            y = nn.relu(BatchNorm(self.dtype, name=f"norm2_{t}")(y, train))
            y = BatchNorm(self.dtype, name=f"norm3_{t}")(conv3(y), train)
            x = nn.relu(y + skip)
            outputs.append(x)
        return outputs


# Area -> (width relative to V1, steps in time).
AREAS = {"V2": (2, 2), "V4": (4, 4), "IT": (8, 2)}


class CORnetSBackEnd(nn.Module):
    """V2, V4, IT and the decoder.

    The layers are named after the areas (their last step); ``V4.step0`` and so on are the
    outputs of the single steps.

    Attributes:
      num_classes: number of logits.
      width: features of V1; V2, V4 and IT have 2, 4 and 8 times as many.
    """

    num_classes: int
    width: int = 64
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Activations:
        layers = {}
        for area, (widening, steps) in AREAS.items():
            outputs = CORblockS(widening * self.width, steps, self.dtype, name=area)(x, train)
            layers |= {f"{area}.step{t}": output for t, output in enumerate(outputs)}
            x = layers[area] = outputs[-1]
        x = layers["avgpool"] = global_average_pool(x)
        layers["logits"] = linear(self.num_classes, x.shape[-1], name="linear", dtype=self.dtype)(x)
        return layers
