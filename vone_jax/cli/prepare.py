"""Prepare data sets from the four IDX files of MNIST and its relatives: ``vone-prepare idx``.

``idx`` turns the files of Fashion-MNIST (as in Debian's package dataset-fashion-mnist), MNIST or
KMNIST into the array_record files of TFDS, without TensorFlow: ``pip install "vone-jax[tfds]"``.
``embedded`` makes the subset of Fashion-MNIST again that is part of this package. TFDS itself
prepares all other sets: ``pip install "vone-jax[prepare]"``, then ``tfds build cifar10
--file_format=array_record``.
"""

import argparse
import gzip
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vone_jax import files
from vone_jax.data import embedded

DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
# Split -> beginning of the names of its two IDX files.
_PREFIXES = {"train": "train", "test": "t10k"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments and return its exit status."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "vone-prepare", description=__doc__, formatter_class=raw, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    idx = commands.add_parser("idx", help="turn four IDX files into TFDS files")
    subset = commands.add_parser("embedded", help="make the embedded subset again")
    for command in (idx, subset):
        command.add_argument(
            "--source",
            default=DEBIAN_FASHION_MNIST,
            help="directory of the IDX files, plain or gzipped (default: %(default)s)",
        )
    names = embedded.IDX_SETS
    idx.add_argument("--name", choices=names, default=names[0], help="default: %(default)s")
    idx.add_argument(
        "--data-dir",
        help="directory of the prepared sets (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)",
    )
    subset.add_argument(
        "--output", type=Path, default=embedded.FOLDER, help="folder (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    if options.source == DEBIAN_FASHION_MNIST and getattr(options, "name", names[0]) != names[0]:
        parser.error(f"--source must be given: the directory of the IDX files of {options.name}")
    try:
        splits = read_idx_folder(options.source)
        if options.command == "embedded":
            write_subset(splits, options.output)
            print(f"{embedded.NAME!r} is written to {options.output}")
        else:
            from vone_jax.data import tfds_sets

            path = tfds_sets.prepare_from_arrays(options.name, splits, options.data_dir)
            print(f"'tfds:{options.name}' is ready in {path}")
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    return 0


def write_subset(splits: dict[str, tuple[np.ndarray, np.ndarray]], folder: Path | str) -> None:
    """Write the subset of the splits of ``read_idx_folder`` as a picture per class and labels."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {split: select(splits[split][1], count) for split, count in embedded.PER_CLASS.items()}
    for label in range(len(embedded.CLASS_NAMES)):
        parts = [
            images[indices[labels[indices] == label]]
            for (images, labels), indices in (
                (splits[split], chosen[split]) for split in embedded.PER_CLASS
            )
        ]
        pixels = np.concatenate(parts).reshape(-1, embedded.COLUMNS, 28, 28).swapaxes(1, 2)
        picture = Image.fromarray(pixels.reshape(-1, embedded.COLUMNS * 28))
        files.replace(
            folder / f"{label}.png", lambda file, it=picture: it.save(file, "png", optimize=True)
        )
    labels: dict[str, Any] = {split: splits[split][1][indices] for split, indices in chosen.items()}
    files.replace(folder / "labels.npz", lambda file: np.savez_compressed(file, **labels))


def select(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Return the indices of the first ``per_class`` examples of each class, in file order."""
    firsts = [np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]
    return np.sort(np.concatenate(firsts))


def read_idx_folder(folder: Path | str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the four IDX files of a set, such as ``t10k-images-idx3-ubyte``, plain or with ``.gz``.

    Returns:
      For ``"train"`` and ``"test"``, images uint8 (N, H, W, 1) and labels uint8 (N,).
    """
    splits = {}
    for split, prefix in _PREFIXES.items():
        images = read_idx(Path(folder) / f"{prefix}-images-idx3-ubyte")
        labels = read_idx(Path(folder) / f"{prefix}-labels-idx1-ubyte")
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"the {split} images in {folder} have the shape {images.shape}, their labels "
                f"{labels.shape}; expected (N, height, width) and (N,)"
            )
        splits[split] = images[:, :, :, None], labels
    return splits


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, or the gzipped one of this name with ``.gz``.

    The file has two zero bytes, the type (8), the number of dimensions, the dimensions as
    big-endian 32-bit integers, and the data, see http://yann.lecun.com/exdb/mnist/.
    """
    zipped = path.with_name(f"{path.name}.gz")
    content = gzip.decompress(zipped.read_bytes()) if zipped.exists() else path.read_bytes()
    try:
        if content[:3] != b"\0\0\x08":
            raise ValueError(f"it begins {content[:3]!r}")
        shape = np.frombuffer(content, ">u4", content[3], offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + shape.nbytes).reshape(*shape)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
