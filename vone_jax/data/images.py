"""Image files: their decoder, data sets in folders, and 20 labelled photographs of ImageNet."""

import functools
import hashlib
import io
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vone_jax import files
from vone_jax.data.sources import Source, checksum, composed
from vone_jax.names import DEMO

# Files that are read at a time.
_READERS = 16
_EXTENSIONS = (
    ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"
)  # fmt: skip
_GREY_MODES = ("1", "L", "LA")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def decode_image(encoded: bytes | str | os.PathLike, channels: int, name: str = "") -> np.ndarray:
    """Decode an image file, given by its content or its path, to uint8 (H, W, channels).

    ``channels`` is 1 or 3. With 3, grey images become RGB. As in torchvision, an alpha channel is
    dropped and the EXIF orientation is ignored. Pillow itself reduces RGB of 16 bits to 8. A
    ValueError, which names the image by ``name`` or path, is raised if the image cannot be decoded,
    if Pillow reads it in another mode than those above, such as grey of 16 bits, floating point or
    CIELAB, or if it has colours and ``channels`` is 1.
    """
    if not isinstance(encoded, bytes):
        name = name or str(encoded)
        encoded = _read(Path(encoded))
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
    # Pillow's decoders raise almost anything on damaged files: OSError, SyntaxError, struct.error,
    # zlib.error, OverflowError, DecompressionBombError, ...
    except Exception as error:
        reason = f"{type(error).__name__}, {len(encoded)} bytes"
        raise ValueError(
            f"image {name} cannot be decoded ({reason}); repair or replace it"
        ) from error
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        raise ValueError(
            f"image {name} has Pillow mode {image.mode!r}; accepted are "
            f"{', '.join(_GREY_MODES + _COLOUR_MODES)}; store it as RGB or grey of 8 bits"
        )
    if channels == 1:
        if image.mode not in _GREY_MODES:
            raise ValueError(f"image {name} has colours (mode {image.mode!r}), expected 1 channel")
        return np.asarray(image.convert("L"))[:, :, None]
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _read(path: Path) -> bytes:
    """Read a file. A pipe or a device may never end, and is refused."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"image {path} is no regular file; remove it")
    return path.read_bytes()


# Names of folders that are splits, and those that are probably splits.
_SPLITS = {"train", "validation", "val", "valid", "test"}
_LIKE_SPLITS = _SPLITS | {"training", "validate", "eval", "evaluation", "dev", "testing"}
# The parts of a directory without splits: about one image of five is for validation.
_PARTS = ("train", "validation")
_SHARE = 5


class FolderSource(Source):
    """Images in class folders, as torchvision's ImageFolder reads them; grey ones become RGB.

    Classes are numbered in the sorted order of their names. If ``<path>/train`` exists, its
    classes number the other splits too, so a split that lacks a class has the same labels. Images
    may lie deeper inside a class folder. Symbolic links are followed, each real directory once per
    class. Hidden files and folders, other types of files, pipes and devices are left out. Neither a
    rotation in the metadata of a photograph nor transparency is applied, as in torchvision.

    A directory without splits, ``<path>/<class>/<image>``, is divided by the names of the files:
    about one image of five is in ``"validation"``, the others are in ``"train"``. So an image stays
    in its part when others are added or removed.

    Args:
      path: directory that holds the splits, or the classes.
      split: name of the split's directory; ``"."`` if ``path`` itself holds the class folders, as
        one severity of ImageNet-C does.

    Attributes:
      files: the files in the order of the examples, by their paths below the folder of the classes.

    Raises:
      FileNotFoundError: if ``path`` is not a directory.
      ValueError: if the split, its class folders or the images of a class are missing, if a class
        to be divided has no image for training, or none of them one for validation, if the split
        has a class that ``train`` lacks, or if splits would be taken for classes.
    """

    def __init__(self, path: str | os.PathLike, split: str):
        root = Path(os.path.expanduser(path))
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is not a directory")
        splits = _subfolders(root) if split != "." else ["."]
        has_splits = not _SPLITS.isdisjoint(splits)
        divided = split in _PARTS and not has_splits
        if not divided and split not in splits:
            divisions = f"folders of classes are divided into {' and '.join(_PARTS)}"
            cure = "name one of these" if has_splits else divisions
            raise ValueError(
                f"{root} has no split {split!r}; its folders are {', '.join(splits) or 'none'}; "
                f"{cure}"
            )
        folder = root if divided else root / split
        classes = _subfolders(folder)
        if len(classes) > 1 and {name.lower() for name in classes} <= _LIKE_SPLITS:
            raise ValueError(
                f"the folders {', '.join(classes)} of {folder} look like splits, not like classes; "
                "rename them to train, validation and test, or give their names: "
                "--data.train-split and --data.eval-split in training, --split in evaluation"
            )
        if not classes:
            raise ValueError(f"{folder} has no class folders; expected {folder}/<class>/<image>")
        # Normalised, because shells complete the name of a directory with a slash.
        self.name = f"folder:{os.path.normpath(path)}"
        self.split = split
        known = _subfolders(root / "train") if "train" in splits else classes
        self.class_names = tuple(map(composed, known))
        self.image_shape = (None, None, 3)
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self._root = folder
        self.files: list[str] = []
        self._labels: list[int] = []
        for name in classes:
            if composed(name) not in numbers:
                raise ValueError(f"{folder} has the class {name!r}, which {root / 'train'} lacks")
            chosen = _images(folder / name)
            if divided:
                chosen = [file for file in chosen if _part(file) == split]
            self.files.extend(os.path.relpath(file, folder) for file in chosen)
            self._labels.extend([numbers[composed(name)]] * len(chosen))
            if not (chosen if split == "train" else self.files or name != classes[-1]):
                raise ValueError(
                    f"{folder / name} is too small to be divided by the names of its files: none "
                    f"is for {split}; add images, or make folders {' and '.join(_PARTS)} of classes"
                )

    def checksums(self, indices: np.ndarray) -> np.ndarray:
        def one(index: int) -> int:
            file = self.files[index]
            return checksum(_read(self._root / file), self._labels[index], file)

        # Threads, because a file system of a cluster answers slowly and many requests at a time.
        with ThreadPoolExecutor(_READERS) as readers:
            return np.array(list(readers.map(one, indices)), np.uint32)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = decode_image(self._root / self.files[index], channels=3)
        return {"image": image, "label": self._labels[index]}


def _part(file: str) -> str:
    """Return the part of an image in a directory without splits, by the name of its file."""
    name = os.fsencode(composed(os.path.basename(file)))
    number = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
    return "train" if number % _SHARE else "validation"


def _subfolders(folder: Path) -> list[str]:
    return sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."
    )


def _images(folder: Path) -> list[str]:
    """Return the images of a class in order."""
    visited: set[str] = set()
    images = []
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        # Changed in place, which tells os.walk where to go.
        folders[:] = [] if real in visited else sorted(name for name in folders if name[0] != ".")
        # Links that lead nowhere stay, and are an error when they are read.
        special = {
            entry.name
            for entry in (os.scandir(place) if real not in visited else ())
            if not entry.is_file() and os.path.exists(entry.path)
        }
        for name in names if real not in visited else ():
            image = name[0] != "." and Path(name).suffix.lower() in _EXTENSIONS
            if image and name not in special:
                images.append((place, name))
        visited.add(real)
    if not images:
        raise ValueError(
            f"class folder {folder} holds no image; accepted endings are {' '.join(_EXTENSIONS)}"
        )
    return [os.path.join(place, name) for place, name in sorted(images)]


@functools.cache
def imagenet_class_names() -> tuple[str, ...]:
    """The 1000 WordNet ids of ImageNet's classes, such as ``"n01440764"``, in the order of labels.

    The networks of torchvision and TensorFlow have their logits in this order.
    """
    return tuple(Path(__file__).with_name("imagenet_classes.txt").read_text().split())


class DemoSource(Source):
    """The 20 photographs of ImageNet in the package foolbox; all but one have 512 x 512 pixels.

    They are a sample to try a network on, too few to measure its accuracy. Foolbox is not imported.
    """

    def __init__(self, split: str):
        if split != "validation":
            raise ValueError(f"{DEMO!r} has no split {split!r}; its split is validation")
        self.name = DEMO
        self.split = split
        self.class_names = imagenet_class_names()
        self.image_shape = (None, None, 3)
        folder = files.in_package("foolbox", "data", "vone-jax[demo]")
        self._files = sorted(folder.glob("imagenet_*_*.jpg"))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file = self._files[index]
        # The names end with the labels: imagenet_00_243.jpg.
        label = int(file.stem.rpartition("_")[2])
        return {"image": decode_image(file, channels=3), "label": label}
