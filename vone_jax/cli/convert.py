"""Convert networks from and to PyTorch: ``python -m vone_jax.cli.convert NETWORK [--out OUT]``.

Reads checkpoints (torch.save or safetensors) of VOneNets, EVNets, ResNet-18/50, AlexNet,
CORnet-S/Z, EfficientNet-B0/Lite0, ViTs, DeiTs, DeiT III and ConvNeXts; runs of train.py; and
folders of this command. Nothing in a file is executed. Without --out it says what a file is.

Exit status: 0 finished; 1 a file cannot be read or written; 2 wrong arguments, or a file that
cannot be converted.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from vone_jax import cli
from vone_jax.cli import parsing

PROGRAM = cli.program("python -m vone_jax.cli.convert")
_FILES = (".safetensors", ".pth", ".pt", ".tar")


@dataclasses.dataclass(frozen=True)
class Options:
    """The network, and what is written."""

    # A checkpoint, a run directory, or a folder that this command wrote.
    network: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NETWORK")]
    # What to write: FILE.safetensors or FILE.pth for PyTorch, else a folder.
    out: Path | None = None
    # Architecture of a checkpoint. Default: recognised by the names of its tensors.
    name: str | None = None
    # Side of the images in pixels, if the checkpoint does not say it.
    image_size: int | None = None
    # Image size whose stem a base network has, if the checkpoint does not say it. Default: 224,
    # the strides of torchvision.
    stem_size: int | None = None
    # Heads of a transformer, if the checkpoint does not say it. Default: one for 64 channels.
    heads: int | None = None
    # Normalisation of the images of a base network, if the checkpoint does not say it. One number
    # per channel, or one for all.
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    # Library whose names a ViT or a ConvNeXt gets in a file for PyTorch: timm, torchvision or meta.
    names: str = "timm"
    # Licence of the weights, for the card of a folder.
    licence: str = "other"
    # Code that a run may ask for, such as its front end.
    code: parsing.Code = ()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments and return its exit status."""
    words = sys.argv[1:] if argv is None else argv
    options = parsing.parse(Options, words or ["--help"], PROGRAM, __doc__ or "")
    # JAX takes half a second to import, and wrong arguments do not need it.
    from vone_jax import convert, network
    from vone_jax.data.transforms import Preprocessing
    from vone_jax.progress import printable

    try:
        if Path(options.network).is_file():
            read = convert.read(
                options.network,
                name=options.name,
                image_size=options.image_size,
                stem_size=options.stem_size,
                heads=options.heads,
                mean=options.mean or None,
                std=options.std or None,
            )
            print(f"{options.network}: {read.name} ({read.format})")
            found = convert.Folder(read.model, read.variables, (), Preprocessing())
            source, notes = f"converted from {Path(options.network).name}", read.notes
            step = None
        else:
            opened = network.open_network(options.network, code=options.code)
            if opened.model is None:
                raise ValueError(f"{options.network} is a function, which has no file of weights")
            print(f"{options.network}: {opened.model.spec.name}")
            names, preprocessing = tuple(opened.class_names), opened.preprocessing
            found = convert.Folder(opened.model, opened.variables, names, preprocessing)
            source, notes, step = opened.source, opened.notes, opened.checkpoint_step
        print(f"  {_facts(found, step)}")
        for note in notes:
            print(f"  {printable(note)}")
        if options.out is None:
            return cli.FINISHED
        if options.out.suffix in _FILES:
            convert.save_torch(options.out, found.model, found.variables, convention=options.names)
            if options.out.suffix == ".pth" and convert.has_torch_module(found.model):
                module = options.out.with_name(f"{options.out.stem}_torch.py")
                convert.save_torch_module(module, found.class_names)
                print(f"written: {module}, which loads it in PyTorch")
        else:
            convert.save_folder(
                options.out,
                found.model,
                found.variables,
                licence=options.licence,
                source=printable(source),
                class_names=found.class_names,
                preprocessing=found.preprocessing,
            )
        print(f"written: {options.out}")
        return cli.FINISHED
    except (ValueError, ImportError, RuntimeError) as error:
        return cli.fail(error)
    except OSError as error:
        return cli.fail(error, cli.FAILED)


def _facts(found: Any, step: int | None) -> str:
    """The classes, the images and the training step of a network, in one line."""
    classes, size = found.model.spec.num_classes, found.model.image_size
    names = f" ({found.class_names[0]} to {found.class_names[-1]})" if found.class_names else ""
    channels = "grey" if found.model.in_channels == 1 else f"{found.model.in_channels} channels"
    facts = [f"{classes} classes{names}", f"images of {size} pixels, {channels}"]
    return ", ".join(facts + ([] if step is None else [f"checkpoint of step {step}"]))


def run() -> None:
    """Run the command as a program of its own."""
    sys.exit(main())


if __name__ == "__main__":
    run()
