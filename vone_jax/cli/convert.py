"""Read a PyTorch checkpoint and say what it is: ``python -m vone_jax.convert FILE [--out FOLDER]``.

Exit status: 0 finished; 1 failed; 2 wrong arguments, or a file that cannot be converted.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from vone_jax import cli, names

PROGRAM = cli.program("python -m vone_jax.convert")
# Side of the largest images, in pixels.
_LARGEST = 4096


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments and return its exit status."""
    parser = cli.Parser(
        prog=PROGRAM,
        description="Converts a PyTorch checkpoint (torch.save or safetensors) of a VOneNet, "
        "EVNet, ResNet-18/50, AlexNet, CORnet-S/Z or EfficientNet-B0/Lite0. Nothing in the file is "
        "executed.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="The checkpoint.")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="Folder to write the network to. A network that is already there is replaced.",
    )
    parser.add_argument(
        "--name",
        choices=names.MODELS,
        metavar="NAME",
        help="Architecture. Default: recognised by the names of the tensors. Choices: "
        + ", ".join(names.MODELS),
    )
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="Image size of the network."
    )
    parser.add_argument(
        "--ignore-flag",
        action="append",
        default=[],
        metavar="FLAG",
        help="A flag stored in the file that does not change the network. Can be repeated.",
    )
    parser.add_argument(
        "--licence", default="other", help="Licence of the weights. Default: other."
    )
    options = parser.parse_args(argv)
    parser.in_reach("FILE", options.file)
    if os.path.isdir(options.file):
        parser.error(f"FILE must be a checkpoint file, {options.file} is a directory")
    if not os.path.isfile(options.file):
        parser.error(f"FILE must be a checkpoint file, there is none at {options.file}")
    if options.image_size is not None and not 8 <= options.image_size <= _LARGEST:
        parser.error(
            f"--image-size must be an integer from 8 to {_LARGEST}, got {options.image_size}"
        )
    parser.directory("--out", options.out)
    # JAX takes half a second to import, and wrong arguments do not need it.
    from vone_jax import convert
    from vone_jax.convert.folder import check_place
    from vone_jax.convert.untrusted import printable

    if options.out is not None:
        try:
            check_place(options.out)
        except ValueError as error:
            parser.error(f"--out {error}")
    try:
        conversion = convert.read(
            options.file,
            name=options.name,
            image_size=options.image_size,
            ignored_flags=options.ignore_flag,
        )
        print(f"{options.file}: {conversion.name} ({conversion.format})")
        for note in conversion.notes:
            print(f"  {printable(note)}")
        if options.out is not None:
            convert.save_folder(
                options.out,
                conversion.model,
                conversion.variables,
                licence=options.licence,
                source=f"converted from {printable(options.file.name)}",
            )
            print(f"written: {options.out}")
    except (convert.CheckpointError, OSError) as error:
        # Most errors name the file.
        named = options.file.name in str(error)
        status = cli.FAILED if isinstance(error, OSError) else cli.WRONG_ARGUMENTS
        return cli.fail(PROGRAM, error if named else f"{options.file}: {error}", status)
    return cli.FINISHED
