"""Names of transformers and ConvNeXts in files of timm, torchvision and Meta.

The conventions differ in names alone, and torchvision's in the shape of the layer scale. Meta has
timm's names for transformers (DeiT). An attachment and a convolutional stem have no original; their
names are those of this project in every convention.
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from vone_jax.models.convnext import ConvNeXtBackEnd
from vone_jax.models.trunks import TRUNKS, back_end_of
from vone_jax.models.vit import ViTBackEnd

Convention = Literal["timm", "torchvision", "meta"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)

# A tensor of the first block, by which a network and its convention are recognised.
_FIRST: dict[tuple[bool, Convention], str] = {
    (True, "timm"): "blocks.0.norm1.weight",
    (True, "torchvision"): "encoder.layers.encoder_layer_0.ln_1.weight",
    (False, "timm"): "stages.0.blocks.0.conv_dw.weight",
    (False, "torchvision"): "features.1.0.block.0.weight",
    (False, "meta"): "stages.0.0.dwconv.weight",
}
# Our module -> those of timm and torchvision.
_VIT = {
    "norm1": ("norm1", "ln_1"),
    "qkv": ("attn.qkv", "self_attention.in_proj"),
    "proj": ("attn.proj", "self_attention.out_proj"),
    "norm2": ("norm2", "ln_2"),
    "fc1": ("mlp.fc1", "mlp.0"),
    "fc2": ("mlp.fc2", "mlp.3"),
}
_VIT_ENDS = {
    "stem/proj": ("patch_embed.proj", "conv_proj"),
    "norm": ("norm", "encoder.ln"),
    "head": ("head", "heads.head"),
}
_VIT_TABLES = {
    "class_token": ("cls_token", "class_token"),
    "position": ("pos_embed", "encoder.pos_embedding"),
}
# Our module -> those of timm, torchvision and Meta.
_CONVNEXT = {
    "depthwise": ("conv_dw", "block.0", "dwconv"),
    "norm": ("norm", "block.2", "norm"),
    "fc1": ("mlp.fc1", "block.3", "pwconv1"),
    "fc2": ("mlp.fc2", "block.5", "pwconv2"),
    "gamma": ("gamma", "layer_scale", "gamma"),
}
_CONVNEXT_ENDS = {
    "stem/conv": ("stem.0", "features.0.0", "downsample_layers.0.0"),
    "stem/norm": ("stem.1", "features.0.1", "downsample_layers.0.1"),
    "norm": ("head.norm", "classifier.0", "norm"),
    "head": ("head.fc", "classifier.2", "head"),
}
# The first files of torchvision's transformers.
_EARLIER = {"mlp.linear_1": "mlp.0", "mlp.linear_2": "mlp.3"}


class Found(NamedTuple):
    """What tensors say of a network: arguments of ``models.create``, None where they say nothing.

    Attributes:
      names: those of networks that it may be, the most likely first.
      ratio: of the attachment; ``patch_size`` is this times the stride in front of it.
      grid: side of the table of positions.
      stem_width: channels of the first convolution of the control.
    """

    convention: Convention
    names: tuple[str, ...]
    num_classes: int
    width: int
    depth: int | tuple[int, ...]
    in_channels: int
    patch_size: int | None
    attachment: str | None
    ratio: int
    grid: int | None
    stem_width: int | None


def tensor_name(back_end: Any, path: tuple[str, ...], convention: Convention) -> str:
    """The name of the tensor for a leaf of a trunk or its stem: ``("stem", "proj", "bias")``."""
    part, *modules, leaf = path
    ending = "bias" if leaf == "bias" else "weight"
    is_convnext = isinstance(back_end, ConvNeXtBackEnd)
    column = CONVENTIONS.index(convention)
    if not is_convnext:
        column %= 2
    if part == "stem" and re.fullmatch(r"(conv|norm)\d", modules[0]):
        return f"conv_stem.{modules[0]}.{ending}"
    if modules[0] == "attachment":
        return f"attachment.{modules[1]}.{ending}"
    if leaf in _VIT_TABLES:
        return _VIT_TABLES[leaf][column]
    ends = _CONVNEXT_ENDS if is_convnext else _VIT_ENDS
    if (
        len(modules) == 1
        and (end := f"stem/{modules[0]}" if part == "stem" else modules[0]) in ends
    ):
        return f"{ends[end][column]}.{ending}"
    place, numbers = re.sub(r"[\d_]", "", modules[0]), [*map(int, re.findall(r"\d+", modules[0]))]
    if place == "block":
        block = ("blocks", "encoder.layers.encoder_layer")[column]
        joint = (".", "_")[column]
        name = f"{block}{joint}{numbers[0] - 1}.{_VIT[modules[1]][column]}"
        # PyTorch's attention holds its first product as in_proj_weight and in_proj_bias.
        return f"{name}{'_' if name.endswith('in_proj') else '.'}{ending}"
    stage = numbers[0] - 1
    if place in ("norm", "downsample"):
        number = int(place == "downsample")
        return (
            f"stages.{stage}.downsample.{number}.{ending}",
            f"features.{2 * stage}.{number}.{ending}",
            f"downsample_layers.{stage}.{number}.{ending}",
        )[column]
    block = (
        f"stages.{stage}.blocks.{numbers[1]}",
        f"features.{2 * stage + 1}.{numbers[1]}",
        f"stages.{stage}.{numbers[1]}",
    )[column]
    if leaf == "gamma":
        return f"{block}.{_CONVNEXT['gamma'][column]}"
    return f"{block}.{_CONVNEXT[modules[1]][column]}.{ending}"


def convention_of(tensors: Collection[str]) -> tuple[bool, Convention] | None:
    """Whether a file is of a transformer, and its convention; None for other networks."""
    return next((key for key, name in _FIRST.items() if name in tensors), None)


def current(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors under the names that the libraries have today, linear layers without the 1x1 axes."""
    renamed = {}
    for name, tensor in tensors.items():
        for earlier, now in _EARLIER.items():
            name = name.replace(earlier, now)
        # Small ConvNeXts of timm compute their perceptrons as 1x1 convolutions.
        if re.search(r"\.mlp\.fc\d\.weight$", name) and np.shape(tensor)[2:] == (1, 1):
            tensor = np.reshape(tensor, np.shape(tensor)[:2])
        renamed[name] = tensor
    return renamed


def find(tensors: Mapping[str, np.ndarray]) -> Found | None:
    """Recognise a transformer or a ConvNeXt by its tensors behind V1; None for other networks."""
    found = convention_of(tensors)
    if found is None:
        return None
    is_vit, convention = found
    column = CONVENTIONS.index(convention)

    def length(tensor: str, axis: int) -> int:
        # A missing tensor, or one of a wrong rank, is reported when leaves are filled.
        shape = np.shape(tensors.get(tensor, 0))
        return shape[axis] if len(shape) > axis else 0

    def count(pattern: str) -> int:
        return sum(bool(re.fullmatch(pattern, name)) for name in tensors)

    grid = None
    if is_vit:
        ends, first = _VIT_ENDS, _VIT_ENDS["stem/proj"][column]
        width = length(_FIRST[found], 0)
        depth = count(re.escape(_FIRST[found]).replace("0", r"\d+", 1))
        grid = math.isqrt(max(0, length(_VIT_TABLES["position"][column], 1) - 1)) or None
    else:
        ends, first = _CONVNEXT_ENDS, _CONVNEXT_ENDS["stem/conv"][column]
        width = length(_FIRST[found], 0)
        block = (
            r"stages\.{}\.blocks\.\d+\.conv_dw",
            r"features\.{}\.\d+\.block\.0",
            r"stages\.{}\.\d+\.dwconv",
        )
        numbers = [2 * stage + 1 if convention == "torchvision" else stage for stage in range(16)]
        counts = [count(block[column].format(number) + r"\.weight") for number in numbers]
        depth = tuple(counts[: [*counts, 0].index(0)])
    convolutions = count(r"attachment\.conv\d+\.weight")
    attached = any(name.startswith("attachment.") for name in tensors)
    ratio = 2**convolutions if convolutions else length("attachment.proj.weight", 3) or 1
    control = "conv_stem.conv1.weight"
    if control in tensors:
        first = control.removesuffix(".weight")
        attached = True
    form = ("conv_stem" if convolutions else "patches") if attached else None
    return Found(
        convention,
        _names(is_vit, width),
        length(f"{ends['head'][column]}.weight", 0) or 1000,
        width or 64,
        depth or 1,
        length(f"{first}.weight", 1) or 3,
        None if attached else length(f"{first}.weight", 3) or None,
        form,
        ratio,
        grid,
        length(control, 0) or None,
    )


def named(found: Found, stored: str, file_name: str) -> str:
    """The network of tensors: the one that a flag names, DeiT by the name of a file, or the first.

    ``stored`` is the name in the flags without underscores, or empty.
    """
    by_flag = (name for name in found.names if name.replace("_", "") == stored)
    deit = "deit_s16" if is_deit(file_name) and found.width == TRUNKS["deit_s16"].width else None
    deit = deit if deit in found.names else None
    return next(by_flag, deit or found.names[0])


def is_deit(file_name: str) -> bool:
    """Whether a file is named after DeiT, whose tensors are those of a ViT."""
    return "deit" in file_name.lower()


def _names(is_vit: bool, width: int) -> tuple[str, ...]:
    """The networks of a family. Those of the width come first, and ViT-S before DeiT-S."""
    family = [name for name in TRUNKS if (back_end_of(name) is ViTBackEnd) == is_vit]
    return tuple(sorted(family, key=lambda name: TRUNKS[name].width != width))
