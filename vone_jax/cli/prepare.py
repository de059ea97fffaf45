"""Prepare data sets: ``python -m vone_jax.data.prepare idx|tfds|embedded``.

``idx`` turns the four IDX files of Fashion-MNIST (as in Debian's package dataset-fashion-mnist),
MNIST or KMNIST into the array_record files of TFDS, without TensorFlow. ``tfds`` prepares any other
TFDS set, which may need TensorFlow. ``embedded`` rebuilds the subset of Fashion-MNIST that is part
of this package.

Exit status: 0 finished; 1 failed; 2 wrong arguments, or files that do not fit.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vone_jax import cli
from vone_jax.data import embedded, tfds_sets

PROGRAM = cli.program("python -m vone_jax.data.prepare")
DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments and return its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = cli.Parser(prog=PROGRAM, description="Prepare data sets for vone_jax.")
    source, data_dir = (cli.Parser(add_help=False) for _ in range(2))
    source.add_argument(
        "--source",
        help="directory of the IDX files, plain or gzipped (default, for Fashion-MNIST: "
        f"{DEBIAN_FASHION_MNIST})",
    )
    data_dir.add_argument(
        "--data-dir",
        help="directory of the prepared sets (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    about = "turn four IDX files into TFDS files"
    idx = commands.add_parser("idx", help=about, parents=[source, data_dir])
    idx.add_argument(
        "--name", choices=tfds_sets.IDX_SETS, default="fashion_mnist", help="default: %(default)s"
    )
    about = "download and prepare a TFDS set as array_record files"
    tfds = commands.add_parser("tfds", help=about, parents=[data_dir])
    tfds.add_argument("name", help="TFDS name, for instance cifar10 or imagenette")
    tfds.add_argument(
        "--manual-dir", help="directory of archives that must be downloaded by hand (ImageNet)"
    )
    about = "make the embedded subset of Fashion-MNIST again"
    subset = commands.add_parser("embedded", help=about, parents=[source])
    subset.add_argument(
        "--output",
        type=Path,
        default=embedded.ARCHIVE,
        help="file to write (default: %(default)s)",
    )
    subset.set_defaults(name="fashion_mnist", data_dir=None)
    options = parser.parse_args(words)
    if options.command != "tfds":
        if options.source is None and options.name != "fashion_mnist":
            parser.error(
                f"--source must be given: the directory of the IDX files of {options.name}"
            )
        folder = options.source or DEBIAN_FASHION_MNIST
        parser.in_reach("--source", folder)
        if not os.path.isdir(folder):
            parser.error(
                f"--source must be the directory of the IDX files, there is none at {folder}"
            )
        options.source = folder
    parser.directory("--data-dir", options.data_dir)
    try:
        if options.command == "embedded":
            embedded.write_archive(embedded.read_idx_folder(options.source), options.output)
            print(f"{embedded.NAME!r} is written to {options.output}")
        else:
            if options.command == "idx":
                splits = embedded.read_idx_folder(options.source)
                path = tfds_sets.prepare_from_arrays(options.name, splits, options.data_dir)
            else:
                path = tfds_sets.prepare(options.name, options.data_dir, options.manual_dir)
            print(f"'tfds:{options.name}' is ready in {path}")
    except (ValueError, FileNotFoundError) as error:
        return cli.fail(PROGRAM, error, cli.WRONG_ARGUMENTS, argv=words)
    except (OSError, ModuleNotFoundError) as error:
        return cli.fail(PROGRAM, error, argv=words)
    return cli.FINISHED


if __name__ == "__main__":
    sys.exit(main())
