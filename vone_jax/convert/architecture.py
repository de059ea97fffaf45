"""Which network a state dict belongs to, told from the names and shapes of its tensors."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

BANK = ("vone_block.simple_conv_q0.weight", "vone_block.simple_conv_q1.weight")

# Architecture -> first convolution, last layer.
_ENDS = {
    "resnet18": ("conv1.weight", "fc.weight"),
    "resnet50": ("conv1.weight", "fc.weight"),
    "cornet_s": ("V1.conv1.weight", "decoder.linear.weight"),
    "alexnet": ("features.0.weight", "classifier.6.weight"),
}
_MOST_CHANNELS = 1024
_RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), True): "resnet50",
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The arguments of ``models.create`` that tensors determine.

    Attributes:
      name: of the network.
      num_classes: rows of the last layer.
      width: channels behind the stem or the bottleneck.
      in_channels: of images.
      image_size: 224 or 32, told from the size of the first kernel; None for a VOneNet.
    """

    name: str
    num_classes: int
    width: int
    in_channels: int
    image_size: int | None


def recognise(state_dict: Mapping[str, np.ndarray], name: str | None = None) -> Architecture | str:
    """Recognises a network.

    Args:
      state_dict: arrays by PyTorch name, without prefixes.
      name: of the network, if it is known.

    Returns:
      The architecture, or the problem in words if the names are of none that is known.
    """
    with_v1 = any(tensor in state_dict for tensor in BANK)
    if name is None:
        trunk = _trunk({n.removeprefix("model.") for n in state_dict} if with_v1 else state_dict)
        if trunk not in _ENDS:
            return trunk
        name = f"vone_{trunk}" if with_v1 else trunk
    trunk = name.removeprefix("vone_")
    if trunk not in _ENDS:
        return f"name must be a network of models.NAMES, got {name!r}"

    def length(tensor: str, axis: int, default: int) -> int:
        # A missing tensor, or one of a wrong rank, is reported when leaves are filled. An empty
        # one could claim any length.
        shape = np.shape(state_dict.get(tensor, 0))
        return shape[axis] if len(shape) > axis and 0 not in shape else default

    first, last = _ENDS[trunk]
    channels = length(BANK[0] if name.startswith("vone_") else first, 1, 3)
    if channels > _MOST_CHANNELS:
        return f"the first layer reads {channels} channels, more than {_MOST_CHANNELS}"
    if name.startswith("vone_"):
        return Architecture(
            name=name,
            num_classes=length(f"model.{last}", 0, 1000),
            width=length("bottleneck.weight", 0, 64),
            in_channels=channels,
            image_size=None,
        )
    return Architecture(
        name=name,
        num_classes=length(last, 0, 1000),
        width=length(first, 0, 64),
        in_channels=channels,
        image_size=224 if length(first, 2, 7) >= 7 else 32,
    )


def _trunk(names: Any) -> str:
    """The architecture of the back end, or a sentence that there is none."""
    if "layer1.0.conv1.weight" in names:
        blocks = tuple(
            sum(f"layer{stage}.{i}.conv1.weight" in names for i in range(100))
            for stage in range(1, 5)
        )
        bottlenecks = "layer1.0.conv3.weight" in names
        kind = "bottleneck" if bottlenecks else "basic"
        return _RESNETS.get(
            (blocks, bottlenecks),
            f"the state dict is of a ResNet with {blocks} {kind} blocks; known are ResNet-18 "
            f"and ResNet-50",
        )
    if "V2.conv_input.weight" in names:
        return "cornet_s"
    if "features.0.weight" in names and any(n.startswith("classifier.") for n in names):
        return "alexnet"
    some = ", ".join(sorted(names)[:8])
    return (
        f"the state dict is of no known architecture ({', '.join(_ENDS)}, each also behind a "
        f"VOneBlock); its tensors begin with: {some[:400]}"
    )
