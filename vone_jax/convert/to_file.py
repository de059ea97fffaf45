"""Networks as files that PyTorch programs load."""

import json
from pathlib import Path
from typing import Any

from vone_jax import models
from vone_jax.convert.description import network_name
from vone_jax.convert.flags import flags_of
from vone_jax.convert.safetensors import write_safetensors
from vone_jax.convert.state_dict import to_torch


def save_torch(
    path: str | Path,
    model: models.BaseNetwork | models.VOneNet,
    variables: Any,
    prefix: str = "",
) -> None:
    """Writes a checkpoint as the original's training script does: ``flags`` and ``state_dict``.

    A path that ends in ``.safetensors`` gets the state dict, with the flags as JSON in its
    metadata, and needs no PyTorch. The bank is written as kernels, so ``from_torch`` reads a
    network with an imported bank; weights, kernels and logits are the same to the bit. What flags
    cannot express (a normalisation of one's own, a stem for 28 or 64 pixels) is for
    ``save_folder``.

    Args:
      path: of the file; replaced if it exists.
      model: a network of ``models.create``.
      variables: its weights.
      prefix: in front of every name; ``"module."`` for programs that load into a network wrapped
        in ``DataParallel``.

    Raises:
      ImportError: without PyTorch, for a path other than ``*.safetensors``.
      ValueError: if the variables are not those of the model.
    """
    tensors = {prefix + name: tensor for name, tensor in to_torch(model, variables).items()}
    flags = flags_of(network_name(model), getattr(model, "v1", None))
    if Path(path).suffix == ".safetensors":
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
    torch.save({"flags": flags, "state_dict": state_dict}, path)
