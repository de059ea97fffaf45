"""The default set: a fixed subset of Fashion-MNIST that comes with the package.

Of the published files it holds the first 1,000 training and the first 200 test images of each
class, kept in file order: 10,000 and 2,000 images of 28 x 28 px. Rebuild it with
``python -m vone_jax.data.prepare embedded``. Licence and origin: ``fashion_mnist_small/``.

Reference: Xiao, Rasul, Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine
learning algorithms, 2017, arXiv:1708.07747.
"""

from importlib import resources
from pathlib import Path

import numpy as np

from vone_jax.data.sources import ArraySource

NAME = "fashion_mnist_small"
ARCHIVE = "fashion_mnist_small/fashion_mnist_small.npz"
PER_CLASS = {"train": 1000, "test": 200}
# The names of TFDS and of the authors' repository, in the order of the labels.
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def embedded_source(split: str) -> ArraySource:
    """The embedded subset of Fashion-MNIST.

    Args:
      split: ``"train"`` (10,000 images) or ``"test"`` (2,000).

    Raises:
      ValueError: for another split.
    """
    if split not in PER_CLASS:
        raise ValueError(f"{NAME!r} has no split {split!r}; its splits are {', '.join(PER_CLASS)}")
    with resources.files("vone_jax.data").joinpath(ARCHIVE).open("rb") as file:
        with np.load(file) as archive:
            images, labels = archive[f"{split}_images"], archive[f"{split}_labels"]
    return ArraySource(images, labels, class_names=CLASS_NAMES, name=NAME, split=split)


def select(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Indices of the first ``per_class`` examples of each class, in file order.

    Raises:
      ValueError: if a class has fewer examples.
    """
    firsts = [np.flatnonzero(labels == label)[:per_class] for label in range(len(CLASS_NAMES))]
    for label, first in enumerate(firsts):
        if len(first) < per_class:
            raise ValueError(
                f"class {CLASS_NAMES[label]!r} has {len(first)} examples, {per_class} are needed"
            )
    return np.sort(np.concatenate(firsts))


def write_archive(splits: dict[str, tuple[np.ndarray, np.ndarray]], path: Path | str) -> None:
    """Writes the subset of the full set's ``read_idx_folder`` to an ``.npz`` file."""
    arrays = {}
    for split, per_class in PER_CLASS.items():
        images, labels = splits[split]
        chosen = select(labels, per_class)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[chosen], labels[chosen]
    np.savez_compressed(path, **arrays)
