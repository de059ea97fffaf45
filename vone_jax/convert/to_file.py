"""Files of weights for PyTorch, with the names of its networks."""

import json
from pathlib import Path
from typing import Any

from vone_jax import files, models
from vone_jax.convert.architecture import flags_of
from vone_jax.convert.checkpoint import write_safetensors
from vone_jax.convert.folder import describe
from vone_jax.convert.state_dict import abstract_variables, to_torch
from vone_jax.convert.trunks import Convention
from vone_jax.models.trunks import default_heads
from vone_jax.models.vit import ViTBackEnd


def save_torch(
    path: str | Path,
    model: models.Model,
    variables: Any,
    prefix: str = "",
    force: bool = False,
    convention: Convention = "timm",
) -> None:
    """Write a checkpoint as the original's training script does: ``flags`` and ``state_dict``.

    The weights of an EVNet are under ``model``, as in its original.

    A path that ends in ``.safetensors`` gets the state dict, with the flags as JSON in its
    metadata, and needs no PyTorch. The bank is written as kernels, so ``from_torch`` reads a
    network with an imported bank; weights, kernels and logits are the same to the bit. For an EVNet
    with other cells than the published ones, ``from_torch`` needs its ``subcortical``. If the noise
    of a network uses JAX's generator, ``from_torch`` reads it with the generator of this project,
    which draws other values of the same distribution. Flags of this project, which other programs
    ignore, hold the image size of a base network and the size that its stem is for.

    Args:
      path: a file that exists is replaced.
      model: a network of ``models.create``.
      variables: its variables.
      prefix: is put in front of every name: ``"module."`` for programs that load into a network
        wrapped in ``DataParallel``.
      convention: the library whose names a transformer or a ConvNeXt gets, "timm", "torchvision" or
        "meta". Other networks have one set of names.
      force: write a base network whose tensors fit the network of torchvision, or of CORnet, but
        whose stem has other strides, so that it gives other logits there.

    Raises:
      ImportError: without PyTorch, for a path other than ``*.safetensors``.
      ValueError: if the variables are not those of the model; if flags cannot express its noise or
        normalisation; or for a stem of other strides, without ``force``.
    """
    path, description = Path(path), describe(model)
    if not force:
        _check_stem(model, description["name"])
    tensors = to_torch(model, variables, convention)
    tensors = {prefix + name: tensor for name, tensor in tensors.items()}
    stem_size = description.get("stem_size", description["image_size"])
    flags = flags_of(description["name"], model, stem_size)
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
    evnet = isinstance(model, models.VOneNet) and model.subcortical is not None
    content = {"flags": flags, "model" if evnet else "state_dict": state_dict}
    files.replace(path, lambda file: torch.save(content, file))


def _check_stem(model: models.Model, name: str) -> None:
    """Refuse a base network that would load into PyTorch's without an error and be another one."""
    if isinstance(model, models.VOneNet):
        return
    back_end = model.back_end
    if isinstance(back_end, ViTBackEnd) and back_end.heads != default_heads(back_end.width):
        raise ValueError(
            f"this {name} has {back_end.heads} heads. PyTorch's network of width {back_end.width} "
            "takes its weights without an error and gives other logits. Write the file with force "
            "(--force)"
        )
    if models.trunk_options(model):
        return
    kept = {field: getattr(model, field) for field in ("image_size", "in_channels", "mean", "std")}
    sizes = {field: getattr(model.back_end, field) for field in ("num_classes", "width")}
    usual = models.create(name, **sizes, **kept, stem_size=224, dtype=model.dtype)
    ours, theirs = (
        {path: leaf.shape for path, leaf in abstract_variables(each).items()}
        for each in (model, usual)
    )
    if (model.stem, model.back_end) != (usual.stem, usual.back_end) and ours == theirs:
        raise ValueError(
            f"this {name} has other strides than that for 224 pixels. PyTorch's network takes its "
            "weights without an error and gives other logits. Change its stem in PyTorch, such as "
            "network.conv1.stride = (1, 1), and write the file with force (--force)"
        )
