"""ConvNeXts (Liu et al. 2022, arXiv:2201.03545), as in timm and torchvision.

The network is cut behind its stem, which V1 and an attachment replace.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vone_jax.models import layers
from vone_jax.models.attachment import Attachment

# Factor of the residual branches before training.
_LAYER_SCALE = 1e-6


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
            "gamma", nn.initializers.constant(_LAYER_SCALE), (features,), jnp.float32
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
