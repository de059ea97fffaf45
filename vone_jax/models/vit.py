"""Vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929; DeiT: Touvron et al. 2021).

The network is that of timm and torchvision: a class token, a learned table of positions, and blocks
of attention and a perceptron with layer norms in front. It is cut behind the convolution that reads
patches, which V1 and an attachment replace.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vone_jax.models import layers
from vone_jax.models.architecture import IMAGENET_MEAN, IMAGENET_STD, known
from vone_jax.models.attachment import Attachment, patches
from vone_jax.models.trunks import ATTACHED, Trunk

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
    table: Float[Array, "1 _ c"], rows: int, columns: int, placed: bool = True
) -> Float[Array, "1 _ c"]:
    """Resize a table of positions, (1, 1 + side^2, c), to a grid, as timm does.

    The first row, that of the class token, is kept. The others are interpolated by Keys' cubic with
    antialiasing. A table without ``placed`` has no such row.
    """
    side, features = math.isqrt(table.shape[1] - placed), table.shape[2]
    if (rows, columns) == (side, side):
        return table
    grid = table[0, int(placed) :].reshape(side, side, features)
    grid = jax.image.resize(grid, (rows, columns, features), "cubic", antialias=True)
    grid = grid.reshape(1, rows * columns, features)
    return jnp.concatenate([table[:, : int(placed)], grid], axis=1)


class TokenTable(nn.Module):
    """Makes tokens of a map: a class token is put first, and the table of positions is added.

    The table is made for the first map that the network reads. It is resized for other maps.

    Attributes:
      placed: whether the table has a row for the class token, the first.
    """

    placed: bool = True
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
            shape = (1, self.placed + rows * columns, features)
            table = self.param("position", layers.normal_002, shape, jnp.float32)
        table = resize_positions(jnp.asarray(table), rows, columns, self.placed).astype(self.dtype)
        x = x.reshape(n, rows * columns, features)
        # A sum and no broadcast: it is split over devices as the images are.
        tokens = token.astype(self.dtype) + jnp.zeros_like(x[:, :1])
        if self.placed:
            return jnp.concatenate([tokens, x], axis=1) + table
        return jnp.concatenate([tokens, x + table], axis=1)


class TransformerBlock(nn.Module):
    """Attention between all tokens, then a perceptron of each token, with skip connections.

    With ``scaled`` each branch is multiplied by factors that are trained, one for each channel.
    """

    heads: int
    scaled: bool = False
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
        y = self._scale(layers.dense(features, name="proj", dtype=self.dtype)(y), "gamma1")
        x += layers.scaled(y, None if scales is None else scales[:, 0])
        y = layers.LayerNorm(self.dtype, name="norm2")(x)
        y = layers.gelu(layers.dense(4 * features, name="fc1", dtype=self.dtype)(y))
        y = self._scale(layers.dense(features, name="fc2", dtype=self.dtype)(y), "gamma2")
        return x + layers.scaled(y, None if scales is None else scales[:, 1])

    def _scale(self, y: Tokens, name: str) -> Tokens:
        if not self.scaled:
            return y
        initial = nn.initializers.constant(layers.LAYER_SCALE)
        gamma = self.param(name, initial, y.shape[-1:], jnp.float32)
        return y * gamma.astype(self.dtype)[None, None]


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
      third: whether it is a DeiT III (Touvron et al. 2022, arXiv:2204.07118), with a layer scale
        and without a position for the class token.
    """

    num_classes: int
    width: int
    depth: int
    heads: int
    attachment: Attachment | None = None
    third: bool = False
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
        x = TokenTable(not self.third, self.dtype, name="tokens")(x)
        for i in range(self.depth):
            block = TransformerBlock(self.heads, self.third, self.dtype, name=f"block{i + 1}")
            x = block(x, None if scales is None else scales[:, i])
            activations[f"block{i + 1}"] = x[:, 1:].reshape(shape)
        x = layers.LayerNorm(self.dtype, name="norm")(x)
        activations |= {"norm": x[:, 1:].reshape(shape), "class_token": x[:, 0]}
        last = layers.dense(self.num_classes, name="head", dtype=self.dtype)
        return activations | {"logits": last(x[:, 0])}


def default_heads(width: int) -> int:
    """The heads of the published transformer of a width: one for 64 channels, but 16 in ViT-H.

    Of other widths, the divisor that is nearest to 64 channels in a head.
    """
    divisors = [heads for heads in range(1, width + 1) if width % heads == 0]
    return {1280: 16}.get(width) or min(divisors, key=lambda heads: abs(width / heads - 64))


class _Size(NamedTuple):
    label: str
    width: int
    depth: int
    # timm's own weights were trained with 0.5, those of Meta with the normalisation of ImageNet.
    meta: bool = False
    third: bool = False
    alone: bool = False
    patch_size: int = 16
    small_patch_size: int = 4


_TIMM_BLOCK = {
    "norm1": "norm1", "qkv": "attn.qkv", "proj": "attn.proj", "gamma1": "ls1.gamma",
    "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2", "gamma2": "ls2.gamma",
}  # fmt: skip
# PyTorch's attention holds its first product as in_proj_weight and in_proj_bias. The first files of
# torchvision called the layers of the perceptron linear_1 and linear_2.
_TORCHVISION_BLOCK = {
    "norm1": "ln_1",
    "qkv.weight": "self_attention.in_proj_weight",
    "qkv.bias": "self_attention.in_proj_bias",
    "proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "fc1": ("mlp.0", "mlp.linear_1"),
    "fc2": ("mlp.3", "mlp.linear_2"),
}


def _in_torchvision(theirs: str | tuple[str, ...]) -> tuple[str, ...]:
    names = (theirs,) if isinstance(theirs, str) else theirs
    return tuple(f"encoder.layers.encoder_layer_{{n-1}}.{name}" for name in names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViT(Trunk):
    """Vision transformers."""

    # Meta has the names of timm.
    NAMES = {
        "timm": {
            "stem/proj": "patch_embed.proj",
            "tokens/class_token": "cls_token",
            "tokens/position": "pos_embed",
            **{f"block{{n}}/{ours}": f"blocks.{{n-1}}.{x}" for ours, x in _TIMM_BLOCK.items()},
            "norm": "norm",
            "head": "head",
            **ATTACHED,
        },
        "torchvision": {
            "stem/proj": "conv_proj",
            "tokens/class_token": "class_token",
            "tokens/position": "encoder.pos_embedding",
            **{f"block{{n}}/{k}": _in_torchvision(x) for k, x in _TORCHVISION_BLOCK.items()},
            "norm": "encoder.ln",
            "head": "heads.head",
            **ATTACHED,
        },
    }

    SIZES = {
        "vit_ti16": _Size("ViT-Ti", 192, 12),
        "vit_s16": _Size("ViT-S", 384, 12),
        "vit_b16": _Size("ViT-B", 768, 12),
        "vit_l16": _Size("ViT-L", 1024, 24),
        # It differs from ViT-S in the normalisation of images alone, so not behind V1.
        "deit_s16": _Size("DeiT-S", 384, 12, meta=True, alone=True),
        "deit3_s16": _Size("DeiT III-S", 384, 12, meta=True, third=True),
    }

    # The number of blocks. None is that of the published network.
    depth: int | None = None
    # Heads of attention, a divisor of the width. None is one for 64 channels.
    heads: int | None = None

    @classmethod
    def normalisation(cls, name):
        if cls.SIZES[name].meta:
            return IMAGENET_MEAN, IMAGENET_STD
        return (0.5,) * 3, (0.5,) * 3

    @classmethod
    def told(cls, file, known):
        width = file.length("block1/norm1.weight", 0)
        if width is None:
            return None
        found = cls.told_of(file, known, "stem/proj", width, file.count("block*/norm1.weight"))
        third = "block1/gamma1" in file
        found["name"] = [name for name in found["name"] if cls.SIZES[name].third == third]
        grid = math.isqrt(max(0, (file.length("tokens/position", 1) or 0) - (not third)))
        return found | {"image_size": grid * (found["patch_size"] or 16) or None}

    @classmethod
    def assumed(cls, file, name):
        found = super().assumed(file, name)
        found["heads"] = default_heads(
            file.length("block1/norm1.weight", 0) or cls.SIZES[name].width
        )
        of_meta = file.convention == "torchvision" or "deit" in file.file_name.lower()
        if of_meta and file.length("stem/proj.weight", 1) == 3:
            found |= {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
        return found

    def complete(self, spec):
        depth, width = self.SIZES[spec.base].depth, known(spec.width)
        heads = default_heads(width) if self.heads is None else self.heads
        options = dataclasses.replace(
            super().complete(spec), depth=self.depth or depth, heads=heads
        )
        if width % heads:
            raise ValueError(f"heads must divide width, {width}, got {heads}")
        if options.patch_size is not None and spec.image_size % options.patch_size:
            raise ValueError(
                f"image_size must be a multiple of patch_size, {options.patch_size}, got "
                f"{spec.image_size}"
            )
        return options

    def own_stem(self, spec, dtype):
        return PatchStem(known(spec.width), known(self.patch_size), dtype)

    def back_end(self, spec, dtype):
        return ViTBackEnd(
            spec.num_classes, spec.width, known(self.depth), known(self.heads),
            self.attached(spec, True, dtype), self.SIZES[spec.base].third, dtype,
            drop_path=self.drop_path,
        )  # fmt: skip
