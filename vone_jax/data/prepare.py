"""Prepares data sets: ``python -m vone_jax.data.prepare idx|tfds|embedded``.

``idx`` turns the four IDX files of Fashion-MNIST (Debian's package dataset-fashion-mnist has them),
MNIST or KMNIST into the array_record files of TFDS, without TensorFlow. ``tfds`` prepares any other
TFDS set, for which TFDS may need TensorFlow. ``embedded`` rebuilds the subset that is part of this
package.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from vone_jax.data import embedded, tfds_sets
from vone_jax.data.idx import read_idx_folder

DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        print(options.run(options))
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vone_jax.data.prepare",
        description="Prepares data sets for vone_jax.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    idx = commands.add_parser("idx", help="four IDX files -> TFDS files, without TensorFlow")
    idx.add_argument("--name", choices=tfds_sets.IDX_SETS, default="fashion_mnist")
    _add_source(idx)
    _add_data_dir(idx)
    idx.set_defaults(run=_run_idx)

    tfds = commands.add_parser("tfds", help="download and prepare any TFDS set as array_record")
    tfds.add_argument("name", help="TFDS name, for instance cifar10 or imagenette")
    _add_data_dir(tfds)
    tfds.add_argument("--manual-dir", help="where the archives lie that need a manual download")
    tfds.set_defaults(run=_run_tfds)

    subset = commands.add_parser("embedded", help="rebuild the embedded subset of Fashion-MNIST")
    _add_source(subset)
    subset.add_argument(
        "--output",
        type=Path,
        default=Path(str(resources.files("vone_jax.data").joinpath(embedded.ARCHIVE))),
        help="file to write (default: %(default)s)",
    )
    subset.set_defaults(run=_run_embedded)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        default=DEBIAN_FASHION_MNIST,
        help="folder of the IDX files, plain or gzipped (default: %(default)s)",
    )


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", help="where TFDS keeps its sets ($TFDS_DATA_DIR, ~/tensorflow_datasets)"
    )


def _run_idx(options: argparse.Namespace) -> str:
    splits = read_idx_folder(options.source)
    path = tfds_sets.prepare_from_arrays(options.name, splits, options.data_dir)
    return f"'tfds:{options.name}' is ready in {path}"


def _run_tfds(options: argparse.Namespace) -> str:
    path = tfds_sets.prepare(options.name, options.data_dir, options.manual_dir)
    return f"'tfds:{options.name}' is ready in {path}"


def _run_embedded(options: argparse.Namespace) -> str:
    embedded.write_archive(read_idx_folder(options.source), options.output)
    return f"{embedded.NAME!r} is written to {options.output}"


if __name__ == "__main__":
    sys.exit(main())
