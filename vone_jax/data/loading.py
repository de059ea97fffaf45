"""Data sets by name: clean ones, and the published files of corrupted images."""

import contextlib
import os
from pathlib import Path

import numpy as np
from PIL import Image

from vone_jax import arguments, files
from vone_jax.data.images import DemoSource, FolderSource
from vone_jax.data.sources import ArraySource, DataDir, Source
from vone_jax.names import C_BAR_CORRUPTIONS, COMMON_CORRUPTIONS, DEMO, EXTRA_CORRUPTIONS

# The default set, which is part of the package: the first 1,000 training images and the first 200
# test images of each class of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747), of
# 28 x 28 pixels, in the order of the published files. Its folder has a picture for each class, the
# order of the labels, licence and origin.
EMBEDDED = "fashion_mnist_small"
_PER_CLASS = {"train": 1000, "test": 200}
# The names that TFDS and the authors use, in the order of the labels.
_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
# Images in a row of a picture.
_COLUMNS = 40
_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_EVALUATION_SPLITS = ("validation", "val", "valid", "test")


def load(name: str, split: str, *, data_dir: DataDir = None) -> Source:
    """Open a split of an image classification set, for instance ``"train"`` or ``"validation"``.

    Args:
      name: ``"fashion_mnist_small"``, the subset that is part of the package; ``"demo"``, 20
        photographs of ImageNet (split ``"validation"``), for which foolbox must be installed;
        ``"tfds:<name>"``, any TFDS image classification set that is prepared on this machine, for
        instance ``"tfds:imagenet2012"``; ``"folder:<path>"``, a directory of images
        ``<path>/<split>/<class>/<image>`` or ``<path>/<class>/<image>``, see ``FolderSource``; or
        ``"npz:<path>"``, a file of arrays in the layout of MedMNIST: ``<split>_images``, uint8
        (N, H, W) or (N, H, W, C), ``<split>_labels``, integers (N,) or (N, 1), and, if classes have
        names, ``class_names``.
      split: a split of the set.
      data_dir: directory of the prepared TFDS sets. Default: ``$TFDS_DATA_DIR`` or
        ``~/tensorflow_datasets``.

    Raises:
      FileNotFoundError: if a folder or file does not exist, a TFDS set is not prepared, or foolbox
        is not installed.
      ValueError: if the set or the split does not exist (the message lists what does), or if an
        array has another layout.
    """
    kind, _, rest = name.partition(":")
    if name == EMBEDDED:
        return _embedded(split)
    if name == DEMO:
        return DemoSource(split)
    if kind == "folder" and rest:
        return FolderSource(rest, split)
    if kind == "npz" and rest:
        return _npz(name, Path(os.path.expanduser(rest)), split)
    if kind == "tfds" and rest:
        return _tfds_source(rest, split, data_dir)
    raise ValueError(
        f"no data set {name!r}; accepted are {EMBEDDED!r}, {DEMO!r}, 'tfds:<name>', "
        "'folder:<path>' and 'npz:<path>'"
    )


def evaluation_split(name: str, *, data_dir: DataDir = None) -> str:
    """The split on which a set is evaluated by default.

    It is ``"validation"``, ``"val"``, ``"valid"`` or ``"test"``, the first that the set has;
    ``"."`` for a folder with none of them, which then holds the class folders itself. For arguments
    and errors see ``load``.
    """
    kind, _, rest = name.partition(":")
    if kind == "folder":
        folder = Path(os.path.expanduser(rest))
        return next((split for split in _EVALUATION_SPLITS if (folder / split).is_dir()), ".")
    for split in _EVALUATION_SPLITS[:-1]:
        with contextlib.suppress(ValueError):
            return load(name, split, data_dir=data_dir).split
    return load(name, _EVALUATION_SPLITS[-1], data_dir=data_dir).split


def holds_corruptions(name: str) -> bool:
    """Return True if a name is of published corrupted images, see ``load_corrupted``."""
    kind, _, rest = name.partition(":")
    folder = Path(os.path.expanduser(rest))
    known = (*COMMON_CORRUPTIONS, *EXTRA_CORRUPTIONS, *C_BAR_CORRUPTIONS)
    return kind == "npy" or (
        kind == "folder" and any((folder / each / "1").is_dir() for each in known)
    )


class MissingCorruptionError(FileNotFoundError):
    """The published images lack the corruption that was asked for."""


def load_corrupted(files: str, name: str, severity: int) -> Source:
    """Open the published images of one corruption at one severity.

    Evaluate the images as they are: do not resize or crop them again.

    Args:
      files: ``"folder:<path>"``, a directory in the layout of ImageNet-C and Tiny-ImageNet-C,
        ``<path>/<name>/<severity>/<class>/<image>``; or ``"npy:<path>"``, a directory in the layout
        of CIFAR-10-C, ``<path>/<name>.npy`` and ``<path>/labels.npy``. For NPY files of the size of
        CIFAR-10-C, up to ten classes get CIFAR-10's names; other classes are numbered.
      name: name of the corruption, as in the files.
      severity: 1 to 5.

    Raises:
      FileNotFoundError: if a directory or file is missing. It is a ``MissingCorruptionError`` if
        only the corruption is missing.
      ValueError: if ``files`` or the severity is wrong, or an array does not have the published
        layout.
    """
    arguments.count("severity", severity, most=5)
    kind, _, rest = files.partition(":")
    folder = Path(os.path.expanduser(rest))
    if kind not in ("folder", "npy") or not rest:
        raise ValueError(
            f"no corrupted images {files!r}; accepted are 'folder:<path>' and 'npy:<path>'"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a directory")
    file = name if kind == "folder" else f"{name}.npy"
    if not (folder / file).exists():
        known = ", ".join(sorted(path.name for path in folder.iterdir()))
        raise MissingCorruptionError(f"{folder} has no {file}; it has {known or 'nothing'}")
    if kind == "npy":
        return _rows(folder, name, severity)
    return FolderSource(folder / name, str(severity))


def _embedded(split: str) -> ArraySource:
    """Open a split of the set that is part of the package."""
    if split not in _PER_CLASS:
        known = ", ".join(_PER_CLASS)
        raise ValueError(f"{EMBEDDED!r} has no split {split!r}; its splits are {known}")
    folder = Path(__file__).with_name(EMBEDDED)
    labels = files.read_npz(folder / "labels.npz", split.__eq__)[split]
    images = np.empty((len(labels), 28, 28, 1), np.uint8)
    train = _PER_CLASS["train"]
    for label in range(len(_FASHION)):
        with Image.open(folder / f"{label}.png") as picture:
            rows = np.asarray(picture).reshape(-1, 28, _COLUMNS, 28)
        # The training images come first.
        of_class = rows.swapaxes(1, 2).reshape(-1, 28, 28, 1)
        images[labels == label] = of_class[:train] if split == "train" else of_class[train:]
    return ArraySource(images, labels, class_names=_FASHION, name=EMBEDDED, split=split)


def _tfds_source(name: str, split: str, data_dir: DataDir) -> Source:
    # TFDS is an extra, and takes a second to import.
    try:
        from vone_jax.data.tfds_sets import TfdsSource
    except ImportError as error:
        raise FileNotFoundError(
            f"'tfds:{name}' needs TFDS: pip install \"vone-jax[tfds]\" ({error})"
        ) from error
    return TfdsSource(name, split, data_dir)


def _npz(name: str, path: Path, split: str) -> ArraySource:
    """Open a split of a file in the layout of MedMNIST, see ``load``."""
    image_key, label_key = f"{split}_images", f"{split}_labels"
    # Some classes may be in the labels of another split only.
    arrays = files.read_npz(
        path, lambda key: key in (image_key, "class_names") or key.endswith("_labels")
    )
    labels = {
        key: array[:, 0] if array.shape[1:] == (1,) else array
        for key, array in arrays.items()
        if key.endswith("_labels")
    }
    if image_key not in arrays or label_key not in labels:
        splits = ", ".join(key.removesuffix("_labels") for key in labels) or "none"
        raise ValueError(
            f"{name!r} has no split {split!r} of arrays {image_key} and {label_key}; its splits "
            f"are {splits}"
        )
    images = arrays[image_key]
    if images.ndim == 3:
        images = images[..., None]
    try:
        numbers = [_class_numbers(array) for array in labels.values()]
        names = np.ravel(arrays.get("class_names", max(numbers, key=len))).astype(str)
        class_names = tuple(names.tolist())
        return ArraySource(
            images, labels[label_key], class_names=class_names, name=name, split=split
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _class_numbers(labels: np.ndarray) -> tuple[str, ...]:
    """The names of classes that have none: the numbers up to the largest label."""
    return tuple(map(str, range(int(labels.max(initial=0)) + 1)))


def _rows(folder: Path, name: str, severity: int) -> ArraySource:
    """Return one fifth of ``<name>.npy``, whose rows are ordered by severity first."""
    images = np.load(folder / f"{name}.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy")
    if not images.size or len(images) % 5 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{folder / name}.npy must have the same number of images at each of 5 severities and "
            f"labels.npy a label for each, got images {images.shape} and labels {labels.shape}"
        )
    numbers = _class_numbers(labels)
    count = len(images) // 5
    rows = slice((severity - 1) * count, severity * count)
    # The files hold no names. Other sets are kept in this layout, too.
    cifar = len(numbers) <= len(_CIFAR10) and images.shape == (50_000, 32, 32, 3)
    return ArraySource(
        images[rows],
        labels[rows],
        class_names=_CIFAR10 if cifar else numbers,
        name=f"npy:{folder}/{name}",
        split=str(severity),
    )
