"""Data sets as random-access sequences of uint8 images with labels."""

import copy
import functools
import hashlib
import json
import math
import os
import re
import unicodedata
import zlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vone_jax.data.transforms import Preprocessing

# The directory of prepared TFDS sets. None is $TFDS_DATA_DIR or ~/tensorflow_datasets.
DataDir = str | os.PathLike | None
# Bytes of images that are kept in memory, see ``Prepared``.
_MOST_KEPT = 2**31
# Examples whose pixels are part of ``describe``.
_MOST_READ = 1000
# The number of a noun in WordNet, by which ImageNet names its classes.
_WORDNET = re.compile(r"n\d{8}(?!\d)")
# Gives a name the shorter of its two forms in Unicode. macOS writes a letter with an accent in the
# longer one.
composed = functools.partial(unicodedata.normalize, "NFC")


@runtime_checkable
class Source(Protocol):
    """A split of an image classification set.

    ``source[i]`` is ``{"image": uint8 array (H, W, C), "label": int}`` for
    ``0 <= i < len(source)``. Sources are pickled when worker processes read them.
    """

    # Name of the set, as passed to ``load``.
    name: str
    split: str
    # One name per class, in the order of the labels.
    class_names: tuple[str, ...]
    # (H, W, C); H and W are None if they differ between images. C is 1 or 3.
    image_shape: tuple[int | None, int | None, int]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def checksums(self, indices: np.ndarray) -> np.ndarray:
        """A CRC-32 of each of some examples, from its pixels and its label, uint32 (N,)."""
        examples = (self[int(index)] for index in indices)
        return np.array([checksum(each["image"], each["label"]) for each in examples], np.uint32)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.split!r}, {len(self)} images)"


def are_numbers(class_names: Sequence[str]) -> bool:
    """Return True if the names are the positions, as in a source without names."""
    return list(class_names) == [str(position) for position in range(len(class_names))]


def class_identifier(name: str) -> str:
    """Return the WordNet number at the beginning of a class name, as in ImageNet, else the name."""
    number = _WORDNET.match(name)
    return composed(name) if number is None else number[0]


def checksum(image: Any, label: int, name: str = "") -> int:
    """The CRC-32 of an example: the name of its file, its label, and its pixels or their file."""
    if not isinstance(image, bytes):
        # The bytes of 16 x 4 pixels may be those of 8 x 8.
        name, image = f"{name} {np.shape(image)}", np.ascontiguousarray(image).tobytes()
    return zlib.crc32(image, zlib.crc32(f"{name} {label}\n".encode(errors="surrogateescape")))


def fingerprint(source: Source, checksums: np.ndarray | None = None) -> str:
    """A digest of all examples of a split: names of files, labels, pixels and their number.

    The place where the files lie is no part of it. Files are read but not decoded, and a set of
    TFDS is read record by record, so it takes as long as reading the split once.

    Args:
      source: the split.
      checksums: its ``checksums``, where they are known already.
    """
    if checksums is None:
        checksums = source.checksums(np.arange(len(source)))
    digest = hashlib.sha256(json.dumps([len(source), list(source.class_names)]).encode())
    digest.update(np.asarray(checksums, ">u4").tobytes())
    return digest.hexdigest()[:16]


def describe(source: Source) -> str:
    """Describe the images of a split in words: their number, and a checksum.

    It has the names of all files of a folder. But of a large set, which takes hours to be read, it
    has the pixels of 1,000 examples only, evenly spread over the split.
    """
    digest = hashlib.sha256(json.dumps(getattr(source, "files", None)).encode())
    digest.update(fingerprint(Subset(source, min(_MOST_READ, len(source)))).encode())
    return f"{len(source):,} with checksum {digest.hexdigest()[:16]}"


class ArraySource(Source):
    """Images that fit in memory.

    Args:
      images: uint8, shape (N, H, W, C) with C = 1 or 3.
      labels: integers in ``[0, len(class_names))``, shape (N,).
      class_names: one name per class.
      name: name of the set, for messages and result files.
      split: name of the split.

    Raises:
      ValueError: if a shape, a dtype or a label is wrong, or if there are no images.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        class_names: tuple[str, ...],
        name: str = "arrays",
        split: str = "train",
    ):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise ValueError(
                f"images must be uint8 of shape (N, H, W, C) with C = 1 or 3, "
                f"got {images.dtype} of shape {images.shape}"
            )
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"labels must be {len(images)} integers, one per image, "
                f"got {labels.dtype} of shape {labels.shape}"
            )
        if len(images) == 0:
            raise ValueError(f"split {split!r} of {name!r} has no images")
        if labels.min() < 0 or labels.max() >= len(class_names):
            raise ValueError(
                f"labels must be in [0, {len(class_names)}), one per class name, "
                f"got {labels.min()} to {labels.max()}"
            )
        self.name = name
        self.split = split
        self.class_names = tuple(class_names)
        self.image_shape = images.shape[1:]
        self._images = images
        self._labels = labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self._images[index], "label": int(self._labels[index])}


class Prepared(Source):
    """The images of a split as a network takes them, for a split that is read several times.

    If all images together take at most 2 GiB, each is read and prepared once and ``kept``.

    Args:
      source: the split.
      size: side of the images, in pixels.
      preprocessing: resizing and cropping to that size. Default: ``Preprocessing()``.
    """

    def __init__(self, source: Source, size: int, preprocessing: Preprocessing | None = None):
        self.name = source.name
        self.split = source.split
        self.class_names = source.class_names
        self.image_shape = (size, size, source.image_shape[-1])
        self.kept = len(source) * math.prod(self.image_shape) <= _MOST_KEPT
        self.source, self._size = source, size
        self._preprocessing = (preprocessing or Preprocessing()).resolved(source.image_shape, size)
        self._examples: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._examples.get(index)
        if example is None:
            example = self.source[index]
            image = self._preprocessing(example["image"], self._size)
            example = {**example, "image": image}
            if self.kept:
                self._examples[index] = example
        return example


class Subset(Source):
    """Every k-th example of a split, k = ``len(source) / count``. A count of None takes all.

    If k is not an integer, positions are rounded down, so that the examples still come from the
    whole split. This matters, since a folder is sorted by class.

    Raises:
      ValueError: if ``count`` is not between 1 and ``len(source)``.
    """

    def __init__(self, source: Source, count: int | None = None):
        total = len(source)
        count = total if count is None else count
        if not 1 <= count <= total:
            raise ValueError(
                f"examples must be between 1 and the {total} of {source.name!r} "
                f"{source.split!r}, got {count}"
            )
        self.name = source.name
        self.split = source.split
        self.class_names = source.class_names
        self.image_shape = source.image_shape
        self.stride = total / count if total % count else total // count
        self.total = total
        self.indices = np.arange(count) * total // count
        self._source = source

    def pick(self, positions: np.ndarray) -> "Subset":
        """Return only the examples at some positions. They keep their indices in the split."""
        picked = copy.copy(self)
        picked.indices = self.indices[positions]
        return picked

    def checksums(self, indices: np.ndarray) -> np.ndarray:
        return self._source.checksums(self.indices[indices])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[int(self.indices[index])]
