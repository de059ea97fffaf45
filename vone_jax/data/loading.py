"""Data sets by name: clean ones, and the published files of corrupted images."""

import contextlib
import os
from pathlib import Path

import numpy as np

from vone_jax import arguments, files
from vone_jax.data.embedded import NAME as EMBEDDED
from vone_jax.data.embedded import embedded_source
from vone_jax.data.images import DemoSource, FolderSource
from vone_jax.data.sources import ArraySource, DataDir, Source
from vone_jax.names import C_BAR_CORRUPTIONS, COMMON_CORRUPTIONS, DEMO, EXTRA_CORRUPTIONS

_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
# A larger label cannot be a class, and the names of so many classes would fill the memory.
_MOST_CLASSES = 100_000
_EVALUATION_SPLITS = ("validation", "val", "valid", "test")
# Corrupted sets of TFDS and the only split of each.
_TFDS_SPLITS = {"imagenet2012_corrupted": "validation", "cifar10_corrupted": "test"}
# Corruptions of CIFAR-10-C -> their names in TFDS.
_TFDS_NAMES = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}


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
      data_dir: directory of the prepared TFDS sets. Only for ``"tfds:"``. Default:
        ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.

    Raises:
      FileNotFoundError: if a folder or file does not exist, a TFDS set is not prepared, or foolbox
        is not installed.
      ValueError: if the set or the split does not exist (the message lists what does), or if an
        array has another layout.
    """
    kind, rest = _kind(name, data_dir)
    if name == EMBEDDED:
        return embedded_source(split)
    if name == DEMO:
        return DemoSource(split)
    if kind == "folder" and rest:
        return FolderSource(rest, split)
    if kind == "npz" and rest:
        return _npz(name, Path(os.path.expanduser(rest)), split)
    if kind == "tfds" and rest:
        return _tfds_source(rest, split, data_dir)
    meant = arguments.nearest(name, [EMBEDDED, DEMO], cutoff=0.6)
    if os.sep in name or os.path.isdir(os.path.expanduser(name)):
        meant = f"; did you mean '{'npz' if name.endswith('.npz') else 'folder'}:{name}'?"
    raise ValueError(
        f"no data set {name!r}; accepted are {EMBEDDED!r}, {DEMO!r}, 'tfds:<name>', "
        f"'folder:<path>' and 'npz:<path>'{meant}"
    )


def evaluation_split(name: str, *, data_dir: DataDir = None) -> str:
    """The split on which a set is evaluated by default.

    It is ``"validation"``, ``"val"``, ``"valid"`` or ``"test"``, the first that the set has;
    ``"."`` for a folder with none of them, which then holds the class folders itself. For arguments
    and errors see ``load``.
    """
    kind, rest = _kind(name, data_dir)
    if kind == "folder":
        folder = Path(os.path.expanduser(rest))
        return next((split for split in _EVALUATION_SPLITS if (folder / split).is_dir()), ".")
    for split in _EVALUATION_SPLITS[:-1]:
        with contextlib.suppress(ValueError):
            return load(name, split, data_dir=data_dir).split
    return load(name, _EVALUATION_SPLITS[-1], data_dir=data_dir).split


def holds_corruptions(name: str) -> bool:
    """Return True if a name is of published corrupted images, see ``load_corrupted``."""
    kind, rest = _kind(name, None)
    if kind == "folder":
        folder = Path(os.path.expanduser(rest))
        known = (*COMMON_CORRUPTIONS, *EXTRA_CORRUPTIONS, *C_BAR_CORRUPTIONS)
        return any((folder / each / "1").is_dir() for each in known)
    return kind == "npy" or (kind == "tfds" and rest in _TFDS_SPLITS)


class MissingCorruptionError(FileNotFoundError):
    """The published images lack the corruption that was asked for."""


def load_corrupted(files: str, name: str, severity: int, *, data_dir: DataDir = None) -> Source:
    """Open the published images of one corruption at one severity.

    Evaluate the images as they are: do not resize or crop them again.

    Args:
      files: ``"folder:<path>"``, a directory in the layout of ImageNet-C and Tiny-ImageNet-C,
        ``<path>/<name>/<severity>/<class>/<image>``; ``"npy:<path>"``, a directory in the layout of
        CIFAR-10-C, ``<path>/<name>.npy`` and ``<path>/labels.npy``; or
        ``"tfds:imagenet2012_corrupted"`` or ``"tfds:cifar10_corrupted"``, if prepared. For NPY
        files of the size of CIFAR-10-C, up to ten classes get CIFAR-10's names; other classes are
        numbered. TFDS makes its ImageNet-C itself, with other pixels than the published files.
      name: name of the corruption, as in the files.
      severity: 1 to 5.
      data_dir: directory of the prepared TFDS sets. Only for ``"tfds:"``.

    Raises:
      FileNotFoundError: if a directory or file is missing; the message has the most similar name.
        It is a ``MissingCorruptionError`` if only the corruption is missing, or its TFDS set is not
        prepared.
      ValueError: if ``files`` or the severity is wrong, an array does not have the published
        layout, or a prepared TFDS set is damaged.
    """
    arguments.count("severity", severity, most=5)
    kind, rest = _kind(files, data_dir)
    if kind == "folder" and rest:
        folder = Path(os.path.expanduser(rest))
        _check_corruption(folder, name, "/")
        return FolderSource(folder / name, str(severity))
    if kind == "npy" and rest:
        return _rows(Path(os.path.expanduser(rest)), name, severity)
    if kind == "tfds" and rest in _TFDS_SPLITS:
        if rest == "cifar10_corrupted":
            name = _TFDS_NAMES.get(name, name)
        try:
            return _tfds_source(f"{rest}/{name}_{severity}", _TFDS_SPLITS[rest], data_dir)
        except FileNotFoundError as error:
            raise MissingCorruptionError(str(error)) from error
    raise ValueError(
        f"no corrupted images {files!r}; accepted are 'folder:<path>', 'npy:<path>', "
        + " and ".join(f"'tfds:{known}'" for known in _TFDS_SPLITS)
    )


def _kind(name: str, data_dir: DataDir) -> tuple[str, str]:
    """Split a name at its first colon."""
    kind, _, rest = name.partition(":")
    if data_dir is not None and kind != "tfds":
        raise ValueError(f"data_dir is for 'tfds:' sets, got {data_dir!r} for {name!r}")
    return kind, rest


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
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if labels.size and (labels.min() < 0 or labels.max() >= _MOST_CLASSES):
        raise ValueError(
            f"labels must be from 0 to {_MOST_CLASSES - 1}, got {labels.min()} to {labels.max()}"
        )
    return tuple(map(str, range(int(labels.max(initial=0)) + 1)))


def _rows(folder: Path, name: str, severity: int) -> ArraySource:
    """Return one fifth of ``<name>.npy``, whose rows are ordered by severity first."""
    _check_corruption(folder, name, ".npy")
    if not (folder / "labels.npy").is_file():
        raise FileNotFoundError(f"{folder} has no labels.npy, the labels of its images")
    images = np.load(folder / f"{name}.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy")
    if not images.size or len(images) % 5 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{folder / name}.npy must have the same number of images at each of 5 severities and "
            f"labels.npy a label for each, got images {images.shape} and labels {labels.shape}"
        )
    try:
        numbers = _class_numbers(labels)
    except ValueError as error:
        raise ValueError(f"{folder}/labels.npy: {error}") from error
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


def _check_corruption(folder: Path, name: str, ending: str) -> None:
    """Check that ``name`` plus an ending, "/" for a folder, is in a folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a directory")
    existing = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))
    if ending == ".npy":
        existing = [found for found in existing if found != "labels"]
    if name not in existing:
        known = f"It has {', '.join(existing)}; ask for one of these"
        raise MissingCorruptionError(
            f"{folder} has no corruption {name!r}{arguments.nearest(name, existing) or '.'} "
            f"{known if existing else 'It has none; name another directory'}"
        )
