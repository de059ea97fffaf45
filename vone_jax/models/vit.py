"""Vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929; DeiT: Touvron et al. 2021).

The network is that of timm and torchvision: a class token, a learned table of positions, and blocks
of attention and a perceptron with layer norms in front. It is cut behind the convolution that reads
patches, which V1 and an attachment replace.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vone_jax.models import layers
from vone_jax.models.attachment import Attachment, patches

Tokens = Float[Array, "n tokens c"]
# The parameters of ``TokenTable``, which are no kernels.
TOKEN_PARAMETERS = ("class_token", "position")


class PatchStem(nn.Module):
    """A linear map of patches of ``stride`` pixels."""

    signed = True
    features: int
    stride: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        return {"patches": patches(x, self.features, self.stride, "proj", self.dtype)}


def resize_positions(
    table: Float[Array, "1 _ c"], rows: int, columns: int
) -> Float[Array, "1 _ c"]:
    """Resize a table of positions, (1, 1 + side^2, c), to a grid, as timm does.

    The first row, that of the class token, is kept. The others are interpolated by Keys' cubic with
    antialiasing.
    """
    side, features = math.isqrt(table.shape[1] - 1), table.shape[2]
    if (rows, columns) == (side, side):
        return table
    grid = table[0, 1:].reshape(side, side, features)
    grid = jax.image.resize(grid, (rows, columns, features), "cubic", antialias=True)
    return jnp.concatenate([table[:, :1], grid.reshape(1, rows * columns, features)], axis=1)


class TokenTable(nn.Module):
    """Makes tokens of a map: a class token is put first, and the table of positions is added.

    The table is made for the first map that the network reads. It is resized for other maps.
    """

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: layers.Maps) -> Tokens:
        n, rows, columns, features = x.shape
        if rows * columns == 0:
            raise ValueError("images are smaller than a patch; take a larger image_size")
        token = self.param(
            "class_token", nn.initializers.normal(1e-6), (1, 1, features), jnp.float32
        )
        if self.has_variable("params", "position"):
            table: Any = self.get_variable("params", "position")
        else:
            shape = (1, 1 + rows * columns, features)
            table = self.param("position", layers.normal_002, shape, jnp.float32)
        table = resize_positions(jnp.asarray(table), rows, columns).astype(self.dtype)
        x = x.reshape(n, rows * columns, features)
        # A sum and no broadcast: it is split over devices as the images are.
        tokens = token.astype(self.dtype) + jnp.zeros_like(x[:, :1])
        return jnp.concatenate([tokens, x], axis=1) + table


class TransformerBlock(nn.Module):
    """Attention between all tokens, then a perceptron of each token, with skip connections."""

    heads: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Tokens, scales: Float[Array, "n 2"] | None) -> Tokens:
        """Return the tokens. ``scales`` multiply the two branches of each example."""
        n, count, features = x.shape
        y = layers.LayerNorm(self.dtype, name="norm1")(x)
        y = layers.dense(3 * features, name="qkv", dtype=self.dtype)(y)
        y = y.reshape(n, count, 3, self.heads, features // self.heads)
        # It computes its softmax in float32, which bfloat16 becomes implicitly.
        with jax.numpy_dtype_promotion("standard"):
            y = jax.nn.dot_product_attention(y[:, :, 0], y[:, :, 1], y[:, :, 2])
        y = y.reshape(n, count, features)
        y = layers.dense(features, name="proj", dtype=self.dtype)(y)
        x += layers.scaled(y, None if scales is None else scales[:, 0])
        y = layers.LayerNorm(self.dtype, name="norm2")(x)
        y = layers.gelu(layers.dense(4 * features, name="fc1", dtype=self.dtype)(y))
        y = layers.dense(features, name="fc2", dtype=self.dtype)(y)
        return x + layers.scaled(y, None if scales is None else scales[:, 1])


class ViTBackEnd(layers.DropPathBackEnd):
    """The tokens, the blocks, the last layer norm and the classifier of the class token.

    The layers are "patches" behind an attachment, then "block1" and so on, and "norm" behind the
    last layer norm. They are maps of the tokens of patches, and "class_token" is the class token
    behind the last layer norm, (n, width).

    Attributes:
      width: channels of a token.
      depth: number of blocks.
      heads: of attention; a divisor of ``width``.
      attachment: brings the map of another front end to tokens; None behind ``PatchStem``.
    """

    num_classes: int
    width: int
    depth: int
    heads: int
    attachment: Attachment | None = None
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: layers.Maps, train: bool, keys: Key[Array, " n"] | None = None
    ) -> layers.Activations:
        activations = {}
        if self.attachment is not None:
            x = activations["patches"] = self.attachment(x)
        shape = x.shape
        scales = layers.path_scales(keys, self.drop_path, self.depth, branches=2)
        x = TokenTable(self.dtype, name="tokens")(x)
        for i in range(self.depth):
            block = TransformerBlock(self.heads, self.dtype, name=f"block{i + 1}")
            x = block(x, None if scales is None else scales[:, i])
            activations[f"block{i + 1}"] = x[:, 1:].reshape(shape)
        x = layers.LayerNorm(self.dtype, name="norm")(x)
        activations |= {"norm": x[:, 1:].reshape(shape), "class_token": x[:, 0]}
        last = layers.dense(self.num_classes, name="head", dtype=self.dtype)
        return activations | {"logits": last(x[:, 0])}
