"""Prepare data sets from the four IDX files of MNIST and its relatives: ``vone-prepare idx``.

``idx`` turns the files of Fashion-MNIST (as in Debian's package dataset-fashion-mnist), MNIST or
KMNIST into the array_record files of TFDS, without TensorFlow: ``pip install "vone-jax[tfds]"``.
``embedded`` makes the subset of Fashion-MNIST again that is part of this package. TFDS itself
prepares all other sets: ``pip install "vone-jax[prepare]"``, then ``tfds build cifar10
--file_format=array_record``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vone_jax.data import embedded

DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


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
        splits = embedded.read_idx_folder(options.source)
        if options.command == "embedded":
            embedded.write_subset(splits, options.output)
            print(f"{embedded.NAME!r} is written to {options.output}")
        else:
            from vone_jax.data import tfds_sets

            path = tfds_sets.prepare_from_arrays(options.name, splits, options.data_dir)
            print(f"'tfds:{options.name}' is ready in {path}")
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
