"""``Trunk``: what transformers and ConvNeXts have in common.

A trunk has a grid of positions, one for each patch of the image. Its own stem reads the patches.
The map of any other front end is brought to the grid by an ``Attachment``.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn

from vone_jax import arguments
from vone_jax.arguments import Range
from vone_jax.models.architecture import Architecture, Tensors, known
from vone_jax.models.attachment import Attachment, ConvStem, Form
from vone_jax.models.defaults import FULL_SIZE, v1_config
from vone_jax.models.layers import Dtype

# Channels of the bottleneck in front of an attachment, as in other VOneNets.
_BOTTLENECK = 64


# The names of attachments and of the control's stem, which have no original.
ATTACHED = {
    "stem/conv{n}": "conv_stem.conv{n}",
    "stem/norm{n}": "conv_stem.norm{n}",
    **{
        f"attachment/{each}": f"attachment.{each}"
        for each in ("conv{n}", "norm{n}", "norm", "proj")
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trunk(Architecture):
    """The options of every trunk; None follows from the size of the network.

    The lines of the tables of sizes also have ``depth``, ``patch_size`` and ``small_patch_size``,
    sides of patches in pixels for large and small images. Patches of small images leave a
    transformer 49 to 256 tokens, and a ConvNeXt of 28 pixels a position in its last stage.
    """

    # Side of the patches in pixels. None is that of the published network, and for small images 4
    # in transformers, 2 in ConvNeXts.
    patch_size: int | None = None
    # How the map of V1 is brought to patches, see ``Attachment``. A base network with an attachment
    # is the control without V1: a convolutional stem stands in place of V1 and the bottleneck. None
    # is "patches" behind V1, and no attachment in base networks.
    attachment: Form | None = None
    # Rate of stochastic depth, below 1, see ``DropPathBackEnd``.
    drop_path: Annotated[float, Range(0.0, 1.0, below=True)] = 0.0
    # For the control, channels of the first convolution of its stem. None gives the stem as many
    # parameters as the bottleneck behind the default V1 has.
    stem_width: int | None = None

    def __post_init__(self):
        arguments.fields(self)

    @classmethod
    def told_of(
        cls, file: Tensors, known: Mapping[str, Any], stem: str, width: int, depth: Any
    ) -> dict[str, Any]:
        """What ``told`` says of any trunk whose own stem begins with a convolution ``stem``.

        Of a network of any width and depth, the likely name is that of the same width, and of these
        that of the same depth.
        """
        sizes = sorted(
            cls.SIZES.items(), key=lambda each: (each[1].width != width, each[1].depth != depth)
        )
        convolutions = file.count("attachment/conv*.weight")
        control = "stem/conv1.weight" in file
        first = "stem/conv1.weight" if control else f"{stem}.weight"
        channels, form = file.length(first, 1), None
        patch_size = file.length(first, 3)
        if control or any(name.startswith("attachment/") for name in file.shapes):
            form = "conv_stem" if convolutions else "patches"
            ratio = 2**convolutions if convolutions else file.length("attachment/proj.weight", 3)
            size = known.get("stem_size") or 224
            before = known.get("v1") or v1_config(size, channels or 3)
            patch_size = before.stride * (ratio or 1)
        return {
            "name": [name for name, _ in sizes],
            "num_classes": file.length("head.weight", 0),
            "width": width,
            "depth": depth,
            "in_channels": channels,
            "patch_size": patch_size,
            "attachment": form,
            "stem_width": file.length("stem/conv1.weight", 0),
        }

    @classmethod
    def assumed(cls, file, name):
        found = super().assumed(file, name)
        # The kernel of its own stem shows the stride.
        if "stem/conv1.weight" not in file:
            del found["stem_size"]
        return found

    def complete(self, spec: Any) -> Any:
        if spec.front_end is not None:
            if self.attachment or self.patch_size:
                raise ValueError(
                    "attachment and patch_size must be None with front_end, whose map has the "
                    "positions of the network"
                )
            return self
        size = self.SIZES[spec.base]
        published = size.patch_size if spec.form_size >= FULL_SIZE else size.small_patch_size
        options = dataclasses.replace(
            self,
            patch_size=self.patch_size or published,
            attachment=self.attachment or ("patches" if spec.front else None),
        )
        if options.attachment is not None:
            options.ratio(spec)
        is_control = options.attachment is not None and not spec.front
        if self.stem_width is not None and not is_control:
            raise ValueError(
                "stem_width is for the control, a base network with an attachment, but name is "
                f"{spec.name!r} and attachment is {self.attachment!r}"
            )
        if not is_control or self.stem_width is not None:
            return options
        # Convolutions and biases of both stages and the first layer norm; a bottleneck has
        # cells * wide. Both end in a layer norm; the bias of the second stage is left over.
        v1, wide = _replaced(spec), options.bottleneck(spec)
        cells = v1.simple_channels + v1.complex_channels
        first = max(1, round((cells - 1) * wide / (9 * (known(spec.in_channels) + wide) + 3)))
        return dataclasses.replace(options, stem_width=first)

    def ratio(self, spec: Any) -> int:
        """The positions of the map of V1, or of the control's stem, between two patches."""
        stride = _replaced(spec).stride
        ratio, rest = divmod(known(self.patch_size), stride)
        if rest or not ratio or (self.attachment == "conv_stem" and ratio.bit_count() != 1):
            needed = "a multiple of" if rest or not ratio else "a power of 2 times"
            raise ValueError(
                f"patch_size must be {needed} the stride of V1, {stride}, got {self.patch_size}"
            )
        return ratio

    def own_stem(self, spec: Any, dtype: Dtype) -> nn.Module:
        """The stem that reads patches."""
        raise NotImplementedError

    def stem(self, spec: Any, dtype: Dtype) -> nn.Module:
        if self.attachment is None:
            return self.own_stem(spec, dtype)
        widths = known(self.stem_width), self.bottleneck(spec)
        return ConvStem(widths, _replaced(spec).stride, dtype)

    def bottleneck(self, spec: Any) -> int:
        width = known(spec.width)
        return width if self.ratio(spec) == 1 else min(_BOTTLENECK, width)

    def attached(self, spec: Any, projected: bool, dtype: Dtype) -> Attachment | None:
        """The attachment in front of the trunk; ``projected`` is for transformers."""
        form, ratio = self.attachment, 1
        if spec.front_end is not None:
            # A map of any size, each of whose positions becomes one of the trunk.
            form = "patches"
        elif form is not None:
            ratio = self.ratio(spec)
        if form is None:
            return None
        # The stem of the control ends in a layer norm of its own.
        normed = bool(spec.front) or spec.front_end is not None
        return Attachment(form, ratio, known(spec.width), projected, normed, dtype)


def _replaced(spec: Any) -> Any:
    """The V1 of a network, or that in whose place the stem of the control stands."""
    return spec.v1 or v1_config(spec.form_size, known(spec.in_channels), f"vone_{spec.base}")
