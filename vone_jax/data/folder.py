"""A directory of images, one folder per class: ``<path>/<split>/<class>/<image>``."""

import os
from pathlib import Path
from typing import Any

from vone_jax.data.images import decode_image

_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


class FolderSource:
    """Images in class folders, as torchvision's ImageFolder reads them.

    Classes are numbered in the sorted order of their names. Where ``<path>/train`` exists, its
    classes number the other splits too, so that a split that lacks a class keeps the labels of
    the others. Images may lie deeper inside a class folder; hidden files and other file types are
    passed over.

    Args:
      path: directory that holds the splits.
      split: name of the split's directory; ``"."`` if ``path`` itself holds the class folders, as
        one severity of ImageNet-C does.
      channels: 3 (grey images become RGB) or 1 (every image must be grey).

    Raises:
      FileNotFoundError: if ``path`` is not a directory.
      ValueError: if the split, its class folders or the images of a class are missing, or if the
        split has a class that ``train`` lacks.
    """

    def __init__(self, path: str | os.PathLike, split: str, channels: int = 3):
        root = Path(path).expanduser()
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {channels!r}")
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is not a directory")
        splits = _subfolders(root) if split != "." else ["."]
        if split not in splits:
            raise ValueError(
                f"{root} has no split {split!r}; its folders are {', '.join(splits) or 'none'}"
            )
        classes = _subfolders(root / split)
        if not classes:
            raise ValueError(
                f"{root / split} has no class folders; expected {root / split}/<class>/<image>"
            )
        self.name = f"folder:{path}"
        self.split = split
        # The folders under train/ number the classes of every split.
        self.class_names = tuple(_subfolders(root / "train") if "train" in splits else classes)
        self.image_shape: tuple[int | None, int | None, int] = (None, None, channels)
        unknown = sorted(set(classes) - set(self.class_names))
        if unknown:
            raise ValueError(
                f"{root / split} has the class {unknown[0]!r}, which {root / 'train'} lacks"
            )
        self._root = root / split
        self._files: list[str] = []
        self._labels: list[int] = []
        for label, name in enumerate(self.class_names):
            if name in classes:
                files = _images(self._root, name)
                self._files.extend(files)
                self._labels.extend([label] * len(files))

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = decode_image(self._root / self._files[index], self.image_shape[-1])
        return {"image": image, "label": self._labels[index]}

    def __repr__(self) -> str:
        return f"FolderSource({str(self._root)!r}, {len(self)} images)"


def _subfolders(folder: Path) -> list[str]:
    return sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."
    )


def _images(root: Path, class_name: str) -> list[str]:
    """Sorted paths, relative to ``root``, of the images of a class."""
    found = []
    for folder, _, names in os.walk(root / class_name, followlinks=True):
        found += [
            os.path.relpath(os.path.join(folder, name), root)
            for name in names
            if name.lower().endswith(_EXTENSIONS) and name[0] != "."
        ]
    if not found:
        raise ValueError(
            f"class folder {root / class_name} holds no image; "
            f"accepted endings are {' '.join(_EXTENSIONS)}"
        )
    return sorted(found)
