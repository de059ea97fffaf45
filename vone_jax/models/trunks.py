"""Transformers and ConvNeXts by name: their sizes, and how they meet the image, V1 or a stem.

A trunk has a grid of positions, one for each patch of the image. Its own stem reads the patches.
The map of any other front end is brought to the grid by an ``Attachment``.
"""

import dataclasses
from typing import Any, NamedTuple, get_args

import flax.linen as nn

from vone_jax import arguments, names
from vone_jax.models.attachment import Attachment, ConvStem, Form
from vone_jax.models.convnext import ConvNeXtBackEnd, ConvNeXtStem
from vone_jax.models.layers import Dtype
from vone_jax.models.network import Model, VOneNet
from vone_jax.models.vit import PatchStem, ViTBackEnd
from vone_jax.v1 import VOneBlockConfig


class Size(NamedTuple):
    """The published width and depth, and the sides of patches in pixels of large and small images.

    Patches of small images leave a transformer 49 to 256 tokens, and a ConvNeXt of 28 pixels a
    position in its last stage.
    """

    width: int
    depth: tuple[int, ...]
    patch_size: int
    small_patch_size: int


TRUNKS = {
    "vit_ti16": Size(192, (12,), 16, 4),
    "vit_s16": Size(384, (12,), 16, 4),
    "vit_b16": Size(768, (12,), 16, 4),
    "deit_s16": Size(384, (12,), 16, 4),
    "convnext_t": Size(96, (3, 3, 9, 3), 4, 2),
}
# Channels of the bottleneck in front of an attachment, as in other VOneNets.
_BOTTLENECK = 64
# The width of published transformers whose heads do not have 64 channels, and their heads.
_HEADS = {1280: 16}


@dataclasses.dataclass(frozen=True)
class Options:
    """The arguments of ``models.create`` that only trunks have; None is the default of the name."""

    depth: int | tuple[int, ...] | None = None
    heads: int | None = None
    patch_size: int | None = None
    attachment: Form | None = None
    drop_path: float = 0.0
    stem_width: int | None = None


def back_end_of(name: str) -> type[nn.Module] | None:
    """The class of a trunk's back end; None for a network that is no trunk."""
    size = TRUNKS.get(names.base_network(name))
    if size is None:
        return None
    return ViTBackEnd if len(size.depth) == 1 else ConvNeXtBackEnd


def default_heads(width: int) -> int:
    """The heads of the published transformer of a width: one for 64 channels, but 16 in ViT-H.

    Of other widths, the divisor that is nearest to 64 channels in a head.
    """
    divisors = [heads for heads in range(1, width + 1) if width % heads == 0]
    return _HEADS.get(width) or min(divisors, key=lambda heads: abs(width / heads - 64))


@dataclasses.dataclass(frozen=True)
class Trunk:
    """The makers of a trunk's parts, for images of one size.

    Attributes:
      name: one of ``TRUNKS``.
      options: as they were given.
      image_size: in pixels.
      width: channels of a token, or of the first stage.
      small: whether the network has the form for small images.
      dtype: type in which the layers compute.
    """

    name: str
    options: Options
    image_size: int
    width: int
    small: bool
    dtype: Dtype

    def __post_init__(self):
        options = self.options
        if options.attachment is not None:
            arguments.choice("attachment", options.attachment, get_args(Form))
        arguments.count("patch_size", self.patch_size)
        if options.stem_width is not None:
            arguments.count("stem_width", options.stem_width)
        arguments.number("drop_path", options.drop_path, arguments.Range(0.0, 1.0, below=True))
        for count in self.depth:
            arguments.count("depth", count)
        if self.is_vit:
            if len(self.depth) != 1:
                raise ValueError(f"depth of {self.name} must be one integer, got {options.depth}")
            if self.image_size % self.patch_size:
                raise ValueError(
                    f"image_size must be a multiple of patch_size, {self.patch_size}, got "
                    f"{self.image_size}"
                )
            arguments.count("heads", self.heads)
            if self.width % self.heads:
                raise ValueError(f"heads must divide width, {self.width}, got {self.heads}")
        elif len(self.depth) < 2:
            raise ValueError(
                f"depth of {self.name} must have a number of blocks for each stage, such as "
                f"{TRUNKS[self.name].depth}, got {options.depth}"
            )
        elif options.heads is not None:
            raise ValueError(f"heads is for transformers, but name is {self.name!r}")

    @property
    def is_vit(self) -> bool:
        """True for a transformer."""
        return back_end_of(self.name) is ViTBackEnd

    @property
    def depth(self) -> tuple[int, ...]:
        """The number of blocks, for each stage."""
        depth = self.options.depth
        if depth is None:
            return TRUNKS[self.name].depth
        return tuple(depth) if isinstance(depth, tuple | list) else (depth,)

    @property
    def heads(self) -> int:
        """The heads of a transformer."""
        heads = self.options.heads
        return default_heads(self.width) if heads is None else heads

    @property
    def patch_size(self) -> int:
        """The side of a patch in pixels."""
        if self.options.patch_size is not None:
            return self.options.patch_size
        size = TRUNKS[self.name]
        return size.small_patch_size if self.small else size.patch_size

    def stem(self) -> nn.Module:
        """The trunk's own stem."""
        make = PatchStem if self.is_vit else ConvNeXtStem
        return make(self.width, self.patch_size, self.dtype)

    def control(self, stride: int, cells: int, in_channels: int) -> nn.Module:
        """The convolutional stem with ``stem_width``, or as many parameters as V1's bottleneck.

        Args:
          stride: of V1.
          cells: channels of V1.
          in_channels: channels of images.
        """
        wide, first = self.bottleneck_features(stride), self.options.stem_width
        if first is None:
            # Convolutions and biases of both stages and the first layer norm; a bottleneck has
            # cells * wide. Both end in a layer norm; the bias of the second stage is left over.
            first = max(1, round((cells - 1) * wide / (9 * (in_channels + wide) + 3)))
        return ConvStem((first, wide), stride, self.dtype)

    def bottleneck_features(self, stride: int) -> int:
        """The channels of the bottleneck behind a V1 of a stride."""
        return self.width if self._ratio(stride) == 1 else min(_BOTTLENECK, self.width)

    def back_end(self, num_classes: int, attachment: Attachment | None) -> nn.Module:
        """The back end."""
        fields: dict[str, Any] = {
            "num_classes": num_classes, "width": self.width, "attachment": attachment,
            "drop_path": self.options.drop_path, "dtype": self.dtype,
        }  # fmt: skip
        if self.is_vit:
            return ViTBackEnd(depth=self.depth[0], heads=self.heads, **fields)
        return ConvNeXtBackEnd(depth=self.depth, **fields)

    def attachment(self, stride: int, normed: bool = True) -> Attachment:
        """The attachment of a map with a stride in pixels, see ``Attachment.normed``."""
        return self._attachment(self.options.attachment or "patches", self._ratio(stride), normed)

    def attachment_of_any(self) -> Attachment:
        """The attachment of a map of any size, each of whose positions becomes one of the trunk."""
        if self.options.attachment or self.options.patch_size:
            raise ValueError(
                "attachment and patch_size must be None with front_end, whose map has the "
                "positions of the network"
            )
        return self._attachment("patches", 1, normed=True)

    def _attachment(self, form: Form, ratio: int, normed: bool) -> Attachment:
        return Attachment(form, ratio, self.width, self.is_vit, normed, self.dtype)

    def _ratio(self, stride: int) -> int:
        ratio, rest = divmod(self.patch_size, stride)
        if rest or (self.options.attachment == "conv_stem" and ratio.bit_count() != 1):
            needed = "a multiple of" if rest else "a power of 2 times"
            raise ValueError(
                f"patch_size must be {needed} the stride of V1, {stride}, got {self.patch_size}"
            )
        return ratio


def trunk_options(model: Model) -> dict[str, Any]:
    """The options of ``models.create`` that a network with a trunk has; none for others."""
    back_end = model.back_end
    if not isinstance(back_end, ViTBackEnd | ConvNeXtBackEnd):
        return {}
    options: dict[str, Any] = {"depth": back_end.depth, "drop_path": back_end.drop_path}
    if isinstance(back_end, ViTBackEnd):
        options["heads"] = back_end.heads
    front = model.v1 if isinstance(model, VOneNet) else model.stem
    attachment = back_end.attachment
    if attachment is None:
        # The trunk's own stem.
        if isinstance(front, PatchStem | ConvNeXtStem):
            options["patch_size"] = front.stride
    # A front end of a user may be a ``ConvStem``, too. Its attachment follows from it.
    elif isinstance(front, VOneBlockConfig) or (
        isinstance(front, ConvStem) and not attachment.normed
    ):
        options |= {"patch_size": front.stride * attachment.ratio, "attachment": attachment.form}
        if isinstance(front, ConvStem):
            options["stem_width"] = front.features[0]
    return options
