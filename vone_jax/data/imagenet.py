"""ImageNet without ImageNet: the names of its classes, and 20 labelled photographs."""

import functools
from typing import Any

from vone_jax import files
from vone_jax.data.images import decode_image
from vone_jax.data.sources import Source
from vone_jax.names import DEMO

DEMO_SPLIT = "validation"


@functools.cache
def imagenet_class_names() -> tuple[str, ...]:
    """The 1000 WordNet ids of ImageNet's classes, such as ``"n01440764"``, in the order of labels.

    The networks of torchvision and TensorFlow have their logits in this order. The list is a file
    of TensorFlow Datasets.

    Raises:
      FileNotFoundError: if TensorFlow Datasets is not installed as this package requires.
    """
    path = "datasets/imagenet2012/labels.txt"
    file = files.installed("tensorflow_datasets", path, "tensorflow-datasets>=4.9.9")
    return tuple(file.read_text().split())


class DemoSource(Source):
    """The 20 photographs of ImageNet in the package foolbox, 512 x 512 pixels but for one.

    They are a sample to try a network on, too few to measure its accuracy. Foolbox is not imported.

    Raises:
      FileNotFoundError: without foolbox; the message has the command that installs it.
      ValueError: for another split than ``"validation"``.
    """

    def __init__(self, split: str):
        if split != DEMO_SPLIT:
            raise ValueError(f"{DEMO!r} has no split {split!r}; its split is {DEMO_SPLIT}")
        self.name = DEMO
        self.split = split
        self.class_names = imagenet_class_names()
        self.image_shape = (None, None, 3)
        folder = files.installed("foolbox", "data", "vone-jax[demo]")
        self._files = sorted(folder.glob("imagenet_*_*.jpg"))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file = self._files[index]
        # The names end with the labels: imagenet_00_243.jpg.
        label = int(file.stem.rpartition("_")[2])
        return {"image": decode_image(file, channels=3), "label": label}
