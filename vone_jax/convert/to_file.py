"""Files of weights for PyTorch, with the names of its networks."""

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from vone_jax import files, models
from vone_jax.convert.checkpoint import write_safetensors
from vone_jax.convert.flags import flags_of
from vone_jax.convert.names import read_names
from vone_jax.convert.state_dict import abstract_variables, to_torch


def save_torch(
    path: str | Path,
    model: models.Model,
    variables: Any,
    prefix: str = "",
    convention: str = "timm",
) -> None:
    """Write a checkpoint as the original's training script does: ``flags`` and ``state_dict``.

    The weights of an EVNet are under ``model``, as in its original.

    A path that ends in ``.safetensors`` gets the state dict, with the flags as JSON in its
    metadata, and needs no PyTorch. The bank is written as kernels, so ``from_torch`` reads a
    network with an imported bank; weights, kernels and logits are the same to the bit. For an EVNet
    with other cells than the published ones, ``from_torch`` needs its ``subcortical``. If the noise
    of a network uses JAX's generator, ``from_torch`` reads it with the generator of this project,
    which draws other values of the same distribution. A flag of this project, which other programs
    ignore, holds the image size of a base network with the stem of this size. The file of another
    stem says neither, as those of torchvision: ``from_torch`` needs the ``image_size``.

    A base network may fit the network of torchvision, timm or CORnet, but have other strides or
    heads, so that it gives other logits there. This is said in a warning.

    Args:
      path: a file that exists is replaced.
      model: a network of ``models.create``.
      variables: its variables.
      prefix: is put in front of every name: ``"module."`` for programs that load into a network
        wrapped in ``DataParallel``.
      convention: the library whose names a transformer or a ConvNeXt gets, "timm", "torchvision" or
        "meta". Other networks have one set of names.

    Raises:
      ImportError: without PyTorch, for a path other than ``*.safetensors``.
      ValueError: if the variables are not those of the model, or if flags cannot express its noise
        or normalisation, or tensors its parts.
    """
    path, spec = Path(path), model.spec
    tensors = to_torch(model, variables, convention)
    read = read_names(models.family(spec.name), tensors, spec.front)
    assumed = models.family(spec.name).assumed(read, spec.base) if read else {}
    flags = flags_of(spec, assumed)
    _warn_of_other_logits(model, assumed)
    tensors = {prefix + name: tensor for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        write_safetensors(path, tensors, {"format": "pt", "flags": json.dumps(flags)})
        return
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "a file of torch.save needs PyTorch: pip install torch, or give a path that ends in "
            ".safetensors"
        ) from error
    state_dict = {name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}
    content = {"flags": flags, "model" if spec.front == "ev_" else "state_dict": state_dict}
    files.replace(path, lambda file: torch.save(content, file))


def has_torch_module(model: models.Model) -> bool:
    """Whether ``save_torch_module`` is for a network: a VOneNet of some back ends."""
    spec = model.spec
    own = spec.back_end is not None or spec.learned_normalization is not None
    return spec.front == "vone_" and models.family(spec.name).in_torch and not own


def save_torch_module(path: str | Path, class_names: Sequence[str] = ()) -> None:
    """Write a program in PyTorch alone that loads a VOneNet of ``save_torch``, with class names.

    ``load()`` in ``NAME_torch.py`` is the ``torch.nn.Module`` of ``NAME.pth`` beside it. It is for
    VOneNets, without a subcortical stage, of the back ends ResNet, AlexNet and CORnet.
    """
    source = resources.files("vone_jax.convert").joinpath("vonenet_torch.py").read_text("utf-8")
    empty = "CLASS_NAMES: tuple[str, ...] = ()"
    assert source.count(empty) == 1
    text = source.replace(empty, f"CLASS_NAMES: tuple[str, ...] = {tuple(class_names)!r}")
    files.replace(Path(path), lambda file: file.write(text.encode()))


def _warn_of_other_logits(model: models.Model, assumed: Mapping[str, Any]) -> None:
    """Warn of a base network that loads into PyTorch's without an error and is another one."""
    spec = model.spec
    if spec.front:
        return
    for field, value in assumed.items():
        if (ours := getattr(spec.options, field, value)) != value:
            warnings.warn(
                f"this {spec.name} has {ours} {field}. PyTorch's network of width {spec.width} "
                f"takes its weights without an error and gives other logits; make it with as many "
                f"{field}",
                stacklevel=3,
            )
    # The convolutional stem of a control has no counterpart in PyTorch.
    if "stem_size" not in assumed or getattr(spec.options, "attachment", None) is not None:
        return
    usual = dataclasses.replace(spec, stem_size=224)
    ours, theirs = (
        {path: leaf.shape for path, leaf in abstract_variables(each.build()).items()}
        for each in (spec, usual)
    )
    parts = [(each.stem(jnp.float32), each.behind(jnp.float32)) for each in (spec, usual)]
    if parts[0] != parts[1] and ours == theirs:
        warnings.warn(
            f"this {spec.name} has other strides than that for 224 pixels. PyTorch's network takes "
            "its weights without an error and gives other logits; change its stem, such as by "
            "network.conv1.stride = (1, 1)",
            stacklevel=3,
        )
