"""The default set, a fixed subset of Fashion-MNIST.

The subset is part of the package. It has the first 1,000 training images and the first 200 test
images of each class, in the order of the published files: 10,000 and 2,000 images of 28 x 28
pixels. ``fashion_mnist_small/`` has a picture for each class, the order of the labels, licence and
origin.

Reference: Xiao, Rasul, Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine
learning algorithms, 2017, arXiv:1708.07747.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from vone_jax import files
from vone_jax.data.sources import ArraySource

NAME = "fashion_mnist_small"
FOLDER = Path(__file__).with_name(NAME)
PER_CLASS = {"train": 1000, "test": 200}
# The names that TFDS and the authors use, in the order of the labels.
CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

# Images in a row of a picture.
COLUMNS = 40


def embedded_source(split: str) -> ArraySource:
    """Open the split ``"train"`` or ``"test"`` of the embedded subset of Fashion-MNIST.

    Raises:
      ValueError: for another split.
    """
    if split not in PER_CLASS:
        raise ValueError(f"{NAME!r} has no split {split!r}; its splits are {', '.join(PER_CLASS)}")
    labels = files.read_npz(FOLDER / "labels.npz", split.__eq__)[split]
    images = np.empty((len(labels), 28, 28, 1), np.uint8)
    for label in range(len(CLASS_NAMES)):
        images[labels == label] = _read_mosaic(label)[split]
    return ArraySource(images, labels, class_names=CLASS_NAMES, name=NAME, split=split)


def _read_mosaic(label: int) -> dict[str, np.ndarray]:
    """The images of a class, by split: rows of a picture with the training images first."""
    with Image.open(FOLDER / f"{label}.png") as picture:
        pixels = np.asarray(picture).reshape(-1, 28, COLUMNS, 28)
    images = pixels.swapaxes(1, 2).reshape(-1, 28, 28, 1)
    train = PER_CLASS["train"]
    return {"train": images[:train], "test": images[train:]}
