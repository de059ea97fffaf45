"""Networks as files for other programs: checkpoints for PyTorch, and artefacts that run alone."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from vone_jax import arguments, models
from vone_jax.convert.architecture import flags_of, normalisation_flag
from vone_jax.convert.checkpoint import write_safetensors
from vone_jax.convert.folder import describe
from vone_jax.convert.state_dict import to_torch


def save_torch(path: str | Path, model: models.Network, variables: Any, prefix: str = "") -> None:
    """Write a checkpoint as the original's training script does: ``flags`` and ``state_dict``.

    A path that ends in ``.safetensors`` gets the state dict, with the flags as JSON in its
    metadata, and needs no PyTorch. The bank is written as kernels, so ``from_torch`` reads a
    network with an imported bank; weights, kernels and logits are the same to the bit. Flags
    cannot express a stem for 28 or 64 pixels; use ``save_folder`` for such a network.

    Args:
      path: the file. It is replaced if it exists.
      model: a network of ``models.create``.
      variables: its weights.
      prefix: in front of every name; ``"module."`` for programs that load into a network wrapped
        in ``DataParallel``.

    Raises:
      ImportError: without PyTorch, for a path other than ``*.safetensors``.
      ValueError: if the variables are not those of the model, or flags cannot express its noise
        or normalisation.
    """
    tensors = {prefix + name: tensor for name, tensor in to_torch(model, variables).items()}
    with_v1 = isinstance(model, models.VOneNet)
    flags = flags_of(describe(model)["name"], model.v1 if with_v1 else None)
    mean, std = (model.v1.image_mean, model.v1.image_std) if with_v1 else (model.mean, model.std)
    normalisation = normalisation_flag(mean, std, model.in_channels)
    if normalisation != ("vonenet" if with_v1 or model.in_channels != 3 else "imagenet"):
        flags["normalization"] = normalisation
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


def export(
    model: models.Network,
    variables: Any,
    image_size: int | None = None,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> bytes:
    """Compile ``logits_fn(key, images)`` for any number of images, weights included.

    Artefacts are for deployment: JAX promises to read them for six months. Keep the weights, too.

    Args:
      model: the network.
      variables: its weights; they become part of the artefact.
      image_size: side of the images in pixels. Default: that of V1, or 224.
      platforms: on which the artefact will run, any of ``"cpu"``, ``"cuda"``, ``"tpu"``,
        ``"rocm"``.

    Returns:
      The artefact, see ``load_exported``.

    Raises:
      ImportError: without the package flatbuffers.
      ValueError: for an argument out of range.
    """
    size = model.image_size if image_size is None else image_size
    arguments.count("image_size", size, least=8)
    classify = models.logits_fn(model, variables)
    # A scalar key numbers the examples by position, whatever their number is.
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, size, size, model.in_channels), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    exported = jax.export.export(
        jax.jit(lambda key, images: classify(key, images)), platforms=list(platforms)
    )(key, images)
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise ImportError("export needs flatbuffers: pip install flatbuffers") from error


def load_exported(artefact: bytes) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Load the classifier ``logits_fn(key, images) -> logits`` from an artefact of ``export``.

    Only JAX is needed: ``jax.export.deserialize(bytearray(artefact)).call`` is the same function.
    """
    return jax.export.deserialize(bytearray(artefact)).call
