"""Which PyTorch tensor fills which leaf of a network's variables.

The names are those of torchvision (ResNet, AlexNet), of CORnet-S and of the published VOneNet
checkpoints, where the back end is called ``model``.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from vone_jax.models import BaseNetwork, VOneNet
from vone_jax.models.alexnet import AlexNetBackEnd
from vone_jax.models.cornet_s import CORnetSBackEnd

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_ALEXNET = ("features.0", "features.3", "features.6", "features.8", "features.10")
_VONE_ALEXNET = ("features.0", "features.3", "features.5", "features.7")
_ALEXNET_LINEAR = {"fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"}


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a leaf comes from.

    Attributes:
      name: of the tensor in the PyTorch state dict, without ``module.``.
      to_flax: from the tensor's layout to the leaf's.
      to_torch: back again.
    """

    name: str
    to_flax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


def source(model: BaseNetwork | VOneNet, path: tuple[str, ...]) -> Source:
    """The PyTorch source of one leaf.

    Args:
      model: the network.
      path: of the leaf inside its collection, e.g. ``("back_end", "fc", "kernel")``.
    """
    part, *modules, leaf = path
    if part == "bottleneck":
        name = "bottleneck"
    elif isinstance(model.back_end, AlexNetBackEnd):
        name = _alexnet_module(modules[0], isinstance(model, VOneNet))
    else:
        name = ".".join(_module(m) for m in modules)
    if isinstance(model.back_end, CORnetSBackEnd):
        name = {"stem": f"V1.{name}", "back_end": name}.get(part, name)
        name = f"decoder.{name}" if name == "linear" else name
    if isinstance(model, VOneNet) and part == "back_end":
        name = f"model.{name}"
    flattened = isinstance(model.back_end, AlexNetBackEnd) and path[1:] == ("fc6", "kernel")
    layouts = _after_flatten(model.back_end.pool_size) if flattened else (_to_flax, _to_torch)
    return Source(f"{name}.{_LEAVES[leaf]}", *layouts)


def _module(name: str) -> str:
    """layer1_0 -> layer1.0, downsample_0 -> downsample.0; CORnet's norm1_0 stays."""
    return name.replace("_", ".") if name.startswith(("layer", "downsample")) else name


def _alexnet_module(name: str, with_v1: bool) -> str:
    if name in _ALEXNET_LINEAR:
        return _ALEXNET_LINEAR[name]
    number = int(name.removeprefix("conv"))
    return _VONE_ALEXNET[number - 2] if with_v1 else _ALEXNET[number - 1]


def _to_flax(tensor: np.ndarray) -> np.ndarray:
    """OIHW -> HWIO for convolutions, (out, in) -> (in, out) for linear layers."""
    return tensor.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.ndim, range(tensor.ndim)))


def _to_torch(leaf: np.ndarray) -> np.ndarray:
    """HWIO -> OIHW for convolutions, (in, out) -> (out, in) for linear layers."""
    return leaf.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim, range(leaf.ndim)))


def _after_flatten(size: int) -> tuple[Callable[[np.ndarray], np.ndarray], ...]:
    """The linear layer behind a flattened size x size map: PyTorch flattens CHW, Flax HWC."""

    def to_flax(tensor: np.ndarray) -> np.ndarray:
        if tensor.ndim != 2 or tensor.shape[1] % size**2:
            return tensor  # The shape check reports it.
        maps = tensor.reshape(tensor.shape[0], -1, size, size)
        return maps.transpose(2, 3, 1, 0).reshape(tensor.shape[1], tensor.shape[0])

    def to_torch(leaf: np.ndarray) -> np.ndarray:
        maps = leaf.reshape(size, size, -1, leaf.shape[1])
        return maps.transpose(3, 2, 0, 1).reshape(leaf.shape[1], leaf.shape[0])

    return to_flax, to_torch
