"""The default set, a fixed subset of Fashion-MNIST, and the IDX files that it is made from.

The subset is part of the package. It has the first 1,000 training images and the first 200 test
images of each class, in the order of the published files: 10,000 and 2,000 images of 28 x 28
pixels. ``fashion_mnist_small/`` has a picture for each class, the order of the labels, licence and
origin. ``vone-prepare embedded`` makes it again.

MNIST and its relatives are published as IDX files: two zero bytes, the type code, the number of
dimensions, the dimensions as big-endian 32-bit integers, the data; plain or gzipped. See
http://yann.lecun.com/exdb/mnist/.

Reference: Xiao, Rasul, Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine
learning algorithms, 2017, arXiv:1708.07747.
"""

import gzip
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

# Sets that are published as four IDX files. `vone-prepare idx` reads them without TensorFlow.
IDX_SETS = ("fashion_mnist", "mnist", "kmnist")
# Images in a row of a picture.
_COLUMNS = 40
# Split -> beginning of the names of its two IDX files.
_PREFIXES = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 0x08


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
        pixels = np.asarray(picture).reshape(-1, 28, _COLUMNS, 28)
    images = pixels.swapaxes(1, 2).reshape(-1, 28, 28, 1)
    train = PER_CLASS["train"]
    return {"train": images[:train], "test": images[train:]}


def write_subset(splits: dict[str, tuple[np.ndarray, np.ndarray]], folder: Path | str) -> None:
    """Write the subset of the splits of ``read_idx_folder`` as a picture per class and labels."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {split: select(splits[split][1], count) for split, count in PER_CLASS.items()}
    for label in range(len(CLASS_NAMES)):
        parts = [
            images[indices[labels[indices] == label]]
            for (images, labels), indices in ((splits[split], chosen[split]) for split in PER_CLASS)
        ]
        pixels = np.concatenate(parts).reshape(-1, _COLUMNS, 28, 28).swapaxes(1, 2)
        picture = Image.fromarray(pixels.reshape(-1, _COLUMNS * 28))
        files.replace(
            folder / f"{label}.png", lambda file, it=picture: it.save(file, "png", optimize=True)
        )
    labels = {split: splits[split][1][indices] for split, indices in chosen.items()}
    files.replace(folder / "labels.npz", lambda file: np.savez_compressed(file, **labels))


def select(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Return the indices of the first ``per_class`` examples of each class, in file order."""
    firsts = [np.flatnonzero(labels == label)[:per_class] for label in range(len(CLASS_NAMES))]
    return np.sort(np.concatenate(firsts))


def read_idx_folder(folder: Path | str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the four IDX files of a set, such as ``t10k-images-idx3-ubyte``, plain or with ``.gz``.

    Returns:
      For ``"train"`` and ``"test"``, images uint8 (N, H, W, 1) and labels uint8 (N,).

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file is damaged, or the numbers of images and labels differ.
    """
    splits = {}
    for split, prefix in _PREFIXES.items():
        image_path = _idx_file(Path(folder), f"{prefix}-images-idx3-ubyte")
        label_path = _idx_file(Path(folder), f"{prefix}-labels-idx1-ubyte")
        images, labels = read_idx(image_path), read_idx(label_path)
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ValueError(
                f"{image_path} holds an array of shape {images.shape} and {label_path} one of "
                f"shape {labels.shape}; expected (N, height, width) and (N,)"
            )
        splits[split] = images[:, :, :, None], labels
    return splits


def read_idx(path: Path | str) -> np.ndarray:
    """Read one IDX file of unsigned bytes, gzipped if its name ends in ``.gz``.

    Raises:
      ValueError: if the file is of another type or is damaged; the message names it.
    """
    path = Path(path)
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes: it begins {content[:4]!r}")
    header = 4 + 4 * content[3]
    shape = tuple(int(n) for n in np.frombuffer(content[4:header], ">u4"))
    if len(shape) != content[3] or len(content) - header != np.prod(shape, dtype=np.int64):
        raise ValueError(
            f"{path} is damaged: its header announces the shape {shape}, "
            f"but {max(0, len(content) - header)} bytes follow"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _idx_file(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"neither {name}.gz nor {name} is in {folder}")
