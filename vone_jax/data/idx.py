"""Reads the IDX files in which MNIST and its relatives are published.

Format: http://yann.lecun.com/exdb/mnist/ (two zero bytes, the type code, the number of dimensions,
the dimensions as big-endian 32-bit integers, the data), plain or gzipped.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np

# Split -> beginning of the names of its two files.
_PREFIXES = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 0x08


def read_idx_folder(folder: Path | str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads the four files of a set: images and labels for training and for testing.

    Args:
      folder: holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
        ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each plain or with ``.gz``.

    Returns:
      ``{"train": (images, labels), "test": (images, labels)}``: images uint8 (N, H, W, 1), labels
      uint8 (N,).

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file is damaged, or images and labels differ in number.
    """
    splits = {}
    for split, prefix in _PREFIXES.items():
        image_path = _find(Path(folder), f"{prefix}-images-idx3-ubyte")
        label_path = _find(Path(folder), f"{prefix}-labels-idx1-ubyte")
        images, labels = read_idx(image_path), read_idx(label_path)
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ValueError(
                f"{image_path} holds an array of shape {images.shape} and {label_path} one of "
                f"shape {labels.shape}; expected (N, height, width) and (N,)"
            )
        splits[split] = images[:, :, :, None], labels
    return splits


def read_idx(path: Path | str) -> np.ndarray:
    """Reads one IDX file of unsigned bytes, gzipped if its name ends in ``.gz``.

    Raises:
      ValueError: if the file is not such a file or is damaged; the message names it.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
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


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"neither {name}.gz nor {name} is in {folder}")
