"""``Architecture``: a kind of network, such as ResNets. Each is one file beside this one.

A name is made of what stands in front, "", "vone_" or "ev_", and of a line of a table of sizes.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import numpy as np

from vone_jax import arguments
from vone_jax.models.layers import Dtype

# The mean and standard deviation of ImageNet's training images, RGB, which torchvision's networks
# expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Networks with a simulated V1 in place of their stem, by the beginning of their names, and how
# papers write them: VOneNets, and EVNets, which have a subcortical stage before V1.
PREFIXES = {"vone_": "VOne", "ev_": "EV"}


# A function of a tensor of PyTorch that gives a leaf of this project, and its inverse.
Layout = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]
# The names of a network in a kind of files: those of this project, "stem/conv1" or
# "layer1_0/conv1", to those of the file, "conv1" or "layer1.0.conv1". {n}, {n-1} and {2n+1} are
# numbers, the same on both sides. The names are of modules, or of tensors: "head.weight",
# "tokens/position". Where a file may have one of several names, the first is written.
Names = Mapping[str, str | tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Tensors:
    """The tensors of somebody else's file by the names of this project, "layer1_0/conv1.weight".

    Attributes:
      shapes: those of PyTorch, (out, in, height, width).
      convention: a key of ``Architecture.names``.
      file_name: that of the file, which may say what the tensors do not.
    """

    shapes: Mapping[str, tuple[int, ...]]
    convention: str = ""
    file_name: str = ""

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def length(self, name: str, axis: int) -> int | None:
        """The length of an axis. None if the file lacks the tensor, or this the axis."""
        shape = self.shapes.get(name, ())
        return shape[axis] or None if len(shape) > axis else None

    def count(self, name: str) -> int:
        """The number of tensors of a name in which * stands for a number."""
        pattern = re.escape(name).replace(r"\*", r"\d+")
        return sum(bool(re.fullmatch(pattern, each)) for each in self.shapes)

    def ends(self, first: str, last: str) -> dict[str, Any]:
        """The fields of ``Spec`` that the weights of the first and the last layer tell."""
        return {
            "num_classes": self.length(f"{last}.weight", 0),
            "width": self.length(f"{first}.weight", 0),
            "in_channels": self.length(f"{first}.weight", 1),
        }

    def stem_size(self, first: str) -> int:
        """The likely ``Spec.stem_size``: kernels below 7 pixels are of stems for small images."""
        return 224 if (self.length(f"{first}.weight", 2) or 7) >= 7 else 32


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A kind of network. The fields of a subclass are its options; None follows from the size.

    Where a method takes a ``spec``, it is a ``Spec``, which stands above all architectures.

    Attributes:
      SIZES: name -> what a network of this name is. Each line has at least a ``label``, as papers
        write the name, and a ``width``, the published number of channels behind the stem. With
        ``alone`` it has no name behind V1, since there it would be another network of the table.
      NAMES: convention -> names in files of this convention, see ``names``.
      in_torch: whether ``convert.save_torch_module`` has the back end in PyTorch.
    """

    SIZES: ClassVar[Mapping[str, Any]] = {}
    NAMES: ClassVar[Mapping[str, Names]] = {}
    in_torch: ClassVar[bool] = False

    def complete(self, spec: Any) -> Any:
        """The options with nothing left open, for a specification whose other fields are complete.

        Raises:
          ValueError: for options that do not fit the specification.
        """
        del spec
        return self

    @classmethod
    def normalisation(cls, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The mean and the standard deviation of RGB images with which a size was published."""
        del name
        return IMAGENET_MEAN, IMAGENET_STD

    @classmethod
    def v1_fields(cls, image_size: int) -> dict[str, Any]:
        """The fields in which the default V1 in front of these networks differs from others'."""
        del image_size
        return {}

    # What follows is for files of other people. The default is for networks that nobody publishes.

    @classmethod
    def names(cls, name: str, front: str) -> Mapping[str, Names]:
        """The names of a size in files, by convention. The first convention is the default.

        Behind V1, ``front`` is "vone_" or "ev_". The names of V1 and the bottleneck, and "model."
        in front of all others, are not among them.
        """
        del name, front
        return cls.NAMES

    @classmethod
    def told(cls, file: Tensors, known: Mapping[str, Any]) -> dict[str, Any] | None:
        """The fields that the tensors of a file tell, or None for a file of other networks.

        They are fields of ``Spec`` and options, and "name": the names of the table that the network
        may have, the most likely first. A field of None is not told.

        Args:
          file: the tensors.
          known: fields that are known otherwise, such as ``v1``.

        Raises:
          ValueError: for a network of this kind that is not in the table.
        """
        del file, known
        return None

    @classmethod
    def assumed(cls, file: Tensors, name: str) -> dict[str, Any]:
        """The most likely values of fields that no tensor tells; None is the default.

        They hold for a file that does not say them, and are said as assumptions.
        """
        del file, name
        return {"mean": None, "std": None, "image_size": 224, "stem_size": 224}

    def layout(self, spec: Any, name: str, convention: str) -> Layout | None:
        """How a tensor of a file becomes a leaf, and back, if it is not the usual way."""
        del spec, name, convention

    def stem(self, spec: Any, dtype: Dtype) -> nn.Module:
        """The stem of a base network, see ``BaseNetwork``."""
        raise NotImplementedError

    def bottleneck(self, spec: Any) -> int:
        """The channels of the bottleneck behind V1."""
        return known(spec.width)

    def back_end(self, spec: Any, dtype: Dtype) -> nn.Module:
        """The back end, see ``BaseNetwork``."""
        raise NotImplementedError


def known(value: Any) -> Any:
    """A field of a specification that is complete, so that it is not None."""
    assert value is not None
    return value


def kinds(cls: type[Architecture] = Architecture) -> Iterator[type[Architecture]]:
    """All architectures, those of users too."""
    for each in cls.__subclasses__():
        yield each
        yield from kinds(each)


def family(name: str) -> type[Architecture]:
    """The architecture of a name that is known."""
    base = base_network(name)
    # A class that was defined again, for instance in a notebook, replaces the earlier one.
    return [cls for cls in kinds() if base in cls.SIZES][-1]


def size_of(name: str) -> Any:
    """The line of a name in the table of its architecture."""
    return family(name).SIZES[base_network(name)]


def list_models(filter: str = "", exclude_filters: str | Sequence[str] = ()) -> list[str]:
    """List the names of networks, as timm does.

    Args:
      filter: a pattern for names, such as ``"vone_*"``. Default: all names.
      exclude_filters: one or several patterns of names to leave out.
    """
    sizes = {name: line for cls in kinds() for name, line in cls.SIZES.items()}
    behind = [name for name, line in sizes.items() if not getattr(line, "alone", False)]
    every = [*sizes, *(each + name for each in PREFIXES for name in behind)]
    listed = set(fnmatch.filter(every, filter or "*"))
    for pattern in [exclude_filters] if isinstance(exclude_filters, str) else exclude_filters:
        listed -= set(fnmatch.filter(every, pattern))
    return sorted(listed)


def check_name(name: Any) -> None:
    """Check that there is a network of a name."""
    arguments.choice("name", name, list_models())


def prefix(name: str) -> str:
    """The beginning of a network's name, a key of ``PREFIXES``; empty for a base network."""
    return next((each for each in PREFIXES if name.startswith(each)), "")


def base_network(name: str) -> str:
    """The name of the network behind the front end: ``vone_resnet18`` has ``resnet18``."""
    return name.removeprefix(prefix(name))


def label(name: str) -> str:
    """The name of a network as papers write it: ``vone_resnet18`` is VOneResNet-18."""
    return PREFIXES.get(prefix(name), "") + size_of(name).label
