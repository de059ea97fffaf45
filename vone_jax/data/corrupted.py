"""The published files of corrupted images: ImageNet-C, Tiny-ImageNet-C, CIFAR-10-C."""

import difflib
import os
from pathlib import Path

import numpy as np

from vone_jax.data.folder import FolderSource
from vone_jax.data.sources import ArraySource, Source

_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_SEVERITIES = (1, 2, 3, 4, 5)
# The only split of the registered TFDS sets.
_TFDS_SPLITS = {"imagenet2012_corrupted": "validation", "cifar10_corrupted": "test"}


def load_corrupted(
    files: str, name: str, severity: int, *, data_dir: str | os.PathLike | None = None
) -> Source:
    """Opens the images of one corruption at one severity.

    Args:
      files: ``"folder:<path>"``, a directory laid out as ImageNet-C is,
        ``<path>/<name>/<severity>/<class>/<image>``; ``"npy:<path>"``, a directory laid out as
        CIFAR-10-C is, ``<path>/<name>.npy`` and ``<path>/labels.npy``; or
        ``"tfds:imagenet2012_corrupted"`` and ``"tfds:cifar10_corrupted"``, where they are
        prepared. TFDS makes its ImageNet-C itself, with other pixels than the published files.
      name: name of the corruption, as the files have it.
      severity: 1 to 5.
      data_dir: where TFDS keeps its sets. Only for ``"tfds:"``.

    Returns:
      A random-access source, see ``vone_jax.data.Source``. Its images are to be evaluated as they
      are: they are not resized or cropped again.

    Raises:
      FileNotFoundError: if a directory or file is missing; the message has the nearest name.
      ValueError: if ``files`` is of no such kind, the severity is not 1 to 5, or an array does
        not have the published layout.
    """
    if severity not in _SEVERITIES or isinstance(severity, bool):
        raise ValueError(f"severity must be an integer from 1 to 5, got {severity!r}")
    kind, _, rest = files.partition(":")
    if data_dir is not None and kind != "tfds":
        raise ValueError(f"data_dir is for 'tfds:' sets, got {data_dir!r} for {files!r}")
    if kind == "folder" and rest:
        folder = Path(rest).expanduser()
        _find(folder, name, [path.name for path in _listed(folder) if path.is_dir()])
        return FolderSource(folder / name, str(severity))
    if kind == "npy" and rest:
        return _rows(Path(rest).expanduser(), name, severity)
    if kind == "tfds" and rest in _TFDS_SPLITS:
        # TFDS takes a second to import, and only these sets need it.
        from vone_jax.data.tfds_sets import TfdsSource

        return TfdsSource(f"{rest}/{name}_{severity}", _TFDS_SPLITS[rest], data_dir)
    raise ValueError(
        f"no corrupted images {files!r}; accepted are 'folder:<path>', 'npy:<path>', "
        + " and ".join(f"'tfds:{known}'" for known in _TFDS_SPLITS)
    )


def _rows(folder: Path, name: str, severity: int) -> ArraySource:
    """One fifth of ``<name>.npy``, whose rows are ordered by severity first."""
    _find(folder, name, [path.stem for path in _listed(folder) if path.suffix == ".npy"])
    if not (folder / "labels.npy").is_file():
        raise FileNotFoundError(f"{folder} has no labels.npy")
    images = np.load(folder / f"{name}.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy")
    if len(images) % 5 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{folder / name}.npy must have the same number of images at each of 5 severities and "
            f"labels.npy a label for each, got {len(images)} images and labels {labels.shape}"
        )
    count = len(images) // 5
    rows = slice((severity - 1) * count, severity * count)
    classes = int(labels.max()) + 1
    return ArraySource(
        images[rows],
        labels[rows].astype(np.int64),
        class_names=_CIFAR10 if classes <= 10 else tuple(str(label) for label in range(classes)),
        name=f"npy:{folder}/{name}",
        split=str(severity),
    )


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a directory")
    return sorted(folder.iterdir())


def _find(folder: Path, name: str, there: list[str]) -> None:
    """Raises a FileNotFoundError that says what there is unless ``name`` is there."""
    if name not in there:
        close = difflib.get_close_matches(name, there, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise FileNotFoundError(
            f"{folder} has no corruption {name!r}{hint} (there: {', '.join(there) or 'none'})"
        )
