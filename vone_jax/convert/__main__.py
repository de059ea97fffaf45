"""``python -m vone_jax.convert FILE [--out FOLDER]``: reads a checkpoint and says what it is."""

import argparse
import sys
from pathlib import Path

from vone_jax import models
from vone_jax.convert import CheckpointError, read, save_folder


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m vone_jax.convert",
        description="Converts a PyTorch checkpoint (torch.save or safetensors) of a VOneNet, "
        "ResNet-18/50, AlexNet or CORnet-S. Nothing in the file is executed.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the checkpoint")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the network there")
    parser.add_argument(
        "--name",
        choices=models.NAMES,
        metavar="NAME",
        help="architecture, if it should not be recognised: " + ", ".join(models.NAMES),
    )
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="for which the network was made"
    )
    parser.add_argument(
        "--licence", default="other", help="of the weights, for the model card (default: other)"
    )
    options = parser.parse_args(arguments)
    try:
        conversion = read(options.file, name=options.name, image_size=options.image_size)
        print(f"{options.file}: {conversion.name} ({conversion.format})")
        for note in conversion.notes:
            print(f"  {note}")
        if options.out is not None:
            save_folder(
                options.out,
                conversion.model,
                conversion.variables,
                licence=options.licence,
                source=f"converted from {options.file.name}",
            )
            print(f"written: {options.out}")
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
