"""EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946) and EfficientNet-Lite0 (TensorFlow, 2020).

Lite0 is B0 for integer arithmetic: ReLU6 in place of SiLU, and no squeeze-and-excitation. B0 has
the padding and the constants of torchvision, and Lite0 those of TensorFlow, because their published
weights were trained with them.

The network is cut behind its stem, which the VOneBlock and its bottleneck replace. The stem halves
the image, so the VOneBlock in its place has stride 2, as in EVNet (arXiv:2506.03089).
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float, Key

from vone_jax.models import layers
from vone_jax.models.architecture import Architecture
from vone_jax.models.defaults import FULL_SIZE, stem_form

# For each stage: expansion, channels, side of the kernel, stride of the first block, blocks.
STAGES = (
    (1, 16, 3, 1, 1),
    (6, 24, 3, 2, 2),
    (6, 40, 5, 2, 2),
    (6, 80, 3, 2, 3),
    (6, 112, 5, 1, 3),
    (6, 192, 5, 2, 4),
    (6, 320, 3, 1, 1),
)
BLOCKS = sum(stage[-1] for stage in STAGES)
# Channels behind the stem, and behind the last convolution.
WIDTH, HEAD = 32, 1280
_DROPOUT = 0.2
# In training, an example skips block i of n with a probability of i / n times this.
_DROP_CONNECT = 0.2


class _Part(nn.Module):
    """The base class of the parts of both networks: of Lite0 if ``lite``, else of B0."""

    lite: bool
    dtype: layers.Dtype

    @nn.nowrap
    def conv(
        self, x: layers.Maps, features: int, name: str, kernel: int = 1, stride: int = 1,
        groups: int = 1, bias: bool = False,
    ) -> Float[Array, "n h2 w2 c2"]:  # fmt: skip
        """A padded convolution: the size of its maps is divided by the stride and rounded up."""
        before = after = (kernel // 2, kernel // 2)
        if self.lite:
            # TensorFlow pads no more than it must, and puts an odd pixel at the end.
            total = [max((n - 1) // stride * stride + kernel - n, 0) for n in x.shape[1:3]]
            before, after = [n // 2 for n in total], [n - n // 2 for n in total]
        padding = tuple(zip(before, after, strict=True))
        return layers.conv(
            features, kernel, stride, padding=padding, feature_group_count=groups, use_bias=bias,
            dtype=self.dtype, name=name,
        )(x)  # fmt: skip

    @nn.nowrap
    def norm(self, x: layers.Maps, name: str, train: bool) -> layers.Maps:
        return layers.BatchNorm(self.dtype, eps=1e-3 if self.lite else 1e-5, name=name)(x, train)

    @nn.nowrap
    def activate(self, x: layers.Maps) -> layers.Maps:
        return nn.relu6(x) if self.lite else nn.silu(x)


class EfficientNetStem(_Part):
    """A 3x3 convolution, batch norm and the nonlinearity."""

    features: int
    stride: int

    @property
    def signed(self) -> bool:
        """Whether responses may be negative, as those of SiLU."""
        return not self.lite

    @nn.compact
    def __call__(self, x: layers.Maps, train: bool) -> layers.Activations:
        x = self.conv(x, self.features, "conv", kernel=3, stride=self.stride)
        return {"stem": self.activate(self.norm(x, "conv_norm", train))}


class MBConv(_Part):
    """An inverted residual block: 1x1, depthwise and 1x1 convolutions with a skip connection.

    In B0, squeeze-and-excitation scales each channel of the depthwise convolution by a gate, a
    function of the means of all channels.

    Attributes:
      features: output channels.
      expansion: channels of the depthwise convolution relative to those of the input.
      kernel, stride: of the depthwise convolution.
    """

    features: int
    expansion: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(
        self, x: layers.Maps, train: bool, scales: Float[Array, " n"] | None
    ) -> Float[Array, "n h2 w2 c2"]:
        """Return the map. ``scales`` multiply what the block adds to the map of each example.

        A block whose output has another shape adds nothing, and is never skipped.
        """
        inputs = x.shape[-1]
        wide = self.expansion * inputs
        y = x
        if self.expansion > 1:
            y = self.norm(self.conv(y, wide, "expand"), "expand_norm", train)
            y = self.activate(y)
        y = self.conv(y, wide, "depthwise", self.kernel, self.stride, groups=wide)
        y = self.activate(self.norm(y, "depthwise_norm", train))
        if not self.lite:
            gate = layers.global_average_pool(y)[:, None, None]
            gate = self.activate(self.conv(gate, max(1, inputs // 4), "squeeze", bias=True))
            y = y * nn.sigmoid(self.conv(gate, wide, "excite", bias=True))
        y = self.norm(self.conv(y, self.features, "project"), "project_norm", train)
        if self.stride > 1 or inputs != self.features:
            return y
        return x + layers.scaled(y, scales)


class EfficientNetBackEnd(_Part, layers.DropPathBackEnd):
    """The seven stages, the last convolution, global average pooling and the classifier.

    All layers scale with ``width``, the features of the stem.
    """

    num_classes: int
    width: int = WIDTH
    drop_path: float = dataclasses.field(
        default=_DROP_CONNECT * (BLOCKS - 1) / BLOCKS, kw_only=True
    )

    @nn.compact
    def __call__(
        self, x: layers.Maps, train: bool, keys: Key[Array, " n"] | None = None
    ) -> layers.Activations:
        activations = {}
        scales = layers.path_scales(keys, self.drop_path, BLOCKS, branches=1)
        numbers = iter(range(BLOCKS))
        for stage, (expansion, channels, kernel, stride, count) in enumerate(STAGES, start=1):
            for i in range(count):
                number = next(numbers)
                x = MBConv(
                    self.lite,
                    self.dtype,
                    features=self._scaled(channels),
                    expansion=expansion,
                    kernel=kernel,
                    stride=stride if i == 0 else 1,
                    name=f"stage{stage}_{i}",
                )(x, train, None if scales is None else scales[:, number, 0])
            activations[f"stage{stage}"] = x
        x = self.norm(self.conv(x, self._scaled(HEAD), "head"), "head_norm", train)
        x = activations["head"] = self.activate(x)
        x = activations["avgpool"] = layers.global_average_pool(x)
        x = nn.Dropout(_DROPOUT, deterministic=not train)(x)
        last = layers.linear(self.num_classes, x.shape[-1], name="fc", dtype=self.dtype)
        return activations | {"logits": last(x)}

    @nn.nowrap
    def _scaled(self, channels: int) -> int:
        return max(1, channels * self.width // WIDTH)


# The modules of a block, and their numbers in B0. In a block without expansion these are smaller by
# one. Below, the names of the PyTorch port of Lite0.
_B0 = {
    "expand": (0, "0"), "expand_norm": (0, "1"), "depthwise": (1, "0"), "depthwise_norm": (1, "1"),
    "squeeze": (2, "fc1"), "excite": (2, "fc2"), "project": (3, "0"), "project_norm": (3, "1"),
}  # fmt: skip
_LITE0 = {
    "expand": "_expand_conv", "expand_norm": "_bn0", "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1", "project": "_project_conv", "project_norm": "_bn2",
}  # fmt: skip
# Stages and blocks in the order in which Lite0 numbers them.
_PLACES = [(stage, i) for stage, each in enumerate(STAGES, start=1) for i in range(each[-1])]


def _names_of_b0(first: int) -> dict[str, str]:
    """Those of torchvision, in which the first stage has a number."""
    last = first + len(STAGES)
    names = {"stem/conv": "features.0.0", "stem/conv_norm": "features.0.1"} if first else {}
    for stage, (expansion, *_) in enumerate(STAGES, start=1):
        for module, (number, inner) in _B0.items():
            theirs = f"block.{number - (expansion == 1)}.{inner}"
            if expansion > 1 or number:
                names[f"stage{stage}_{{b}}/{module}"] = (
                    f"features.{first + stage - 1}.{{b}}.{theirs}"
                )
    return names | {
        "head": f"features.{last}.0", "head_norm": f"features.{last}.1", "fc": "classifier.1",
    }  # fmt: skip


class _Size(NamedTuple):
    label: str
    lite: bool
    width: int = WIDTH


@dataclasses.dataclass(frozen=True)
class EfficientNet(Architecture):
    """EfficientNets. Their stems have stride 2, and so has V1 in their place, with half the cells.

    That V1 is the one of EVNet (Piper et al. 2025, arXiv:2506.03089), from 112 pixels on.
    """

    SIZES = {
        "efficientnet_b0": _Size("EfficientNet-B0", lite=False),
        "efficientnet_lite0": _Size("EfficientNet-Lite0", lite=True),
    }
    _ALONE, _BEHIND_V1 = ({"torchvision": _names_of_b0(first)} for first in (1, 0))
    NAMES = {
        "port": {
            "stem/conv": "_conv_stem",
            "stem/conv_norm": "_bn0",
            **{
                f"stage{stage}_{i}/{ours}": f"_blocks.{number}.{theirs}"
                for number, (stage, i) in enumerate(_PLACES)
                for ours, theirs in _LITE0.items()
            },
            "head": "_conv_head",
            "head_norm": "_bn1",
            "fc": "_fc",
        }
    }

    @classmethod
    def names(cls, name, front):
        if cls.SIZES[name].lite:
            return cls.NAMES
        return cls._BEHIND_V1 if front else cls._ALONE

    @classmethod
    def told(cls, file, known):
        blocks = file.count("stage*_*/depthwise.weight")
        if not blocks:
            return None
        if blocks != BLOCKS:
            raise ValueError(
                f"the state dict is of an EfficientNet with {blocks} blocks; known are B0 and "
                f"Lite0, with {BLOCKS}"
            )
        lite = not file.count("stage*_*/squeeze.weight")
        names = [name for name, size in cls.SIZES.items() if size.lite == lite]
        return {"name": names, **file.ends("stem/conv", "fc")}

    @classmethod
    def assumed(cls, file, name):
        found = super().assumed(file, name)
        if not cls.SIZES[name].lite:
            return found
        # All files of Lite0 are of the one publication.
        return {field: found[field] for field in ("image_size", "stem_size")}

    @classmethod
    def normalisation(cls, name):
        """That of Lite0 is (x - 127) / 128 for images of 0 to 255."""
        if cls.SIZES[name].lite:
            return (127 / 255,) * 3, (128 / 255,) * 3
        return super().normalisation(name)

    @classmethod
    def v1_fields(cls, image_size):
        fields = {"stride": 2, "simple_channels": 128, "complex_channels": 128}
        return fields if image_size >= FULL_SIZE else {}

    def stem(self, spec, dtype):
        form = stem_form(spec.form_size)
        # Where ResNets have a pool, this stem has a stride of 2 more.
        stride = 2 if form.pool else form.stride
        lite = self.SIZES[spec.base].lite
        return EfficientNetStem(lite, dtype, features=spec.width, stride=stride)

    def back_end(self, spec, dtype):
        lite = self.SIZES[spec.base].lite
        return EfficientNetBackEnd(
            lite=lite, dtype=dtype, num_classes=spec.num_classes, width=spec.width
        )
