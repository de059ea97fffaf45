"""Export of networks: checkpoints for PyTorch, and artefacts that run without this package."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from vone_jax import arguments, files, models, prng
from vone_jax.convert.architecture import flags_of
from vone_jax.convert.checkpoint import write_safetensors
from vone_jax.convert.folder import describe
from vone_jax.convert.state_dict import to_torch
from vone_jax.convert.untrusted import CheckpointError

# Length of the SHA-256 digest at the end of an artefact. XLA can crash on a damaged artefact.
_DIGEST = 32


def save_torch(path: str | Path, model: models.Model, variables: Any, prefix: str = "") -> None:
    """Write a checkpoint as the original's training script does: ``flags`` and ``state_dict``.

    The weights of an EVNet are under ``model``, as in its original.

    A path that ends in ``.safetensors`` gets the state dict, with the flags as JSON in its
    metadata, and needs no PyTorch. The bank is written as kernels, so ``from_torch`` reads a
    network with an imported bank; weights, kernels and logits are the same to the bit. For an EVNet
    with other cells than the published ones, ``from_torch`` needs its ``subcortical``. If the noise
    of a network uses JAX's generator, ``from_torch`` reads it with the generator of this project,
    which draws other values of the same distribution. A flag of this project, which other programs
    ignore, holds the image size of a base network unless it is 224: it determines the stem.

    A file that exists is replaced. The ``prefix`` is put in front of every name: ``"module."`` for
    programs that load into a network wrapped in ``DataParallel``.

    Raises:
      ImportError: without PyTorch, for a path other than ``*.safetensors``.
      ValueError: if the variables are not those of the model, or flags cannot express its noise
        or normalisation.
    """
    tensors = {prefix + name: tensor for name, tensor in to_torch(model, variables).items()}
    flags = flags_of(describe(model)["name"], model)
    evnet = isinstance(model, models.VOneNet) and model.subcortical is not None
    if Path(path).suffix == ".safetensors":
        write_safetensors(Path(path), tensors, {"format": "pt", "flags": json.dumps(flags)})
        return
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "a file of torch.save needs PyTorch: pip install torch, or give a path that ends in "
            ".safetensors"
        ) from error
    state_dict = {name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}
    content = {"flags": flags, "model" if evnet else "state_dict": state_dict}
    files.replace(Path(path), lambda file: torch.save(content, file))


def export(
    model: models.Model,
    variables: Any,
    image_size: int | None = None,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> bytes:
    """Compile ``logits_fn(keys, images)`` for any number of images, weights included.

    Artefacts are for deployment: JAX promises to read them for six months. Keep the weights, too.

    The images have sides of ``image_size`` pixels; default: that of the model. The artefact, which
    ``load_exported`` reads, runs on ``platforms``: any of ``"cpu"``, ``"cuda"``, ``"tpu"``,
    ``"rocm"``.

    Raises:
      ImportError: without the package flatbuffers.
      ValueError: for an argument out of range.
    """
    size = model.image_size if image_size is None else image_size
    arguments.count("image_size", size, least=8)
    for platform in platforms:
        arguments.choice("platforms", platform, ("cpu", "cuda", "tpu", "rocm"))
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, size, size, model.in_channels), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0, impl=prng.THREEFRY))
    keys = jax.ShapeDtypeStruct((batch,), key.dtype)
    exported = jax.export.export(
        jax.jit(models.logits_fn(model, variables)), platforms=list(platforms)
    )(keys, images)
    try:
        # With the first derivative, so that attacks can follow the gradient of the artefact.
        content = bytes(exported.serialize(vjp_order=1))
        # JAX ignores what stands behind its own bytes.
        return content + hashlib.sha256(content).digest()
    except ImportError as error:
        raise ImportError("export needs flatbuffers: pip install flatbuffers") from error


@dataclasses.dataclass(frozen=True, eq=False)
class Exported:
    """The classifier ``(keys, images) -> logits`` of an artefact, see ``load_exported``.

    Attributes:
      image_shape: (H, W, C).
      classify: ``(key data, images) -> logits`` with one key per example; see
        ``jax.random.key_data``. It can be differentiated with respect to the images.
    """

    image_shape: tuple[int, int, int]
    classify: Callable[[jax.Array, jax.Array], jax.Array]

    def __call__(self, keys: jax.Array, images: jax.Array) -> jax.Array:
        """Return the logits. With a single key, the key of an example depends on its position."""
        keys = prng.example_keys(keys, images.shape[0])
        return self.classify(jax.random.key_data(keys), images)


def load_exported(artefact: bytes) -> Exported:
    """Load the classifier of an artefact of ``export``.

    Raises:
      CheckpointError: (a ValueError) for bytes that are no such artefact.
      ImportError: without the package flatbuffers.
    """
    content, digest = artefact[:-_DIGEST], artefact[-_DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        raise CheckpointError(
            "the artefact is damaged, or not written by convert.export; export the network again"
        )
    try:
        exported = jax.export.deserialize(bytearray(content))
        keys, images = exported.in_avals
        valid = len(keys.shape) == 1 and len(images.shape) == 4
    except ImportError as error:
        raise ImportError("load_exported needs flatbuffers: pip install flatbuffers") from error
    except Exception as error:
        raise CheckpointError(
            f"the artefact cannot be read by this version of JAX: {error}; export the network again"
        ) from error
    if not valid or not exported.has_vjp():
        raise CheckpointError(
            "the artefact is not a function of keys (N,) and images (N, H, W, C) with a "
            "derivative; export the network again with this version"
        )

    # The backward pass draws the same noise again, so both get the numbers of the keys.
    def call(numbers: jax.Array, images: jax.Array) -> jax.Array:
        return exported.call(jax.random.wrap_key_data(numbers, impl=prng.THREEFRY), images)

    def pull_back(numbers: jax.Array, images: jax.Array, change: jax.Array) -> jax.Array:
        return jax.vjp(functools.partial(call, numbers), images)[1](change)[0]

    forward, backward = _folding_axes(call), _folding_axes(pull_back)
    classify = jax.custom_vjp(forward)
    classify.defvjp(
        lambda numbers, images: (forward(numbers, images), (numbers, images)),
        lambda saved, change: (None, backward(*saved, change)),
    )
    height, width, channels = map(int, images.shape[1:])
    return Exported((height, width, channels), classify)


def _folding_axes(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Give a function a rule for ``vmap``, which an artefact lacks: fold axes into the batch."""
    folding = jax.custom_batching.custom_vmap(function)

    @folding.def_vmap
    def rule(size, batched, *arrays):
        whole = [
            array if has_axis else jnp.broadcast_to(array, (size, *array.shape))
            for array, has_axis in zip(arrays, batched, strict=True)
        ]
        result = folding(*(array.reshape((-1, *array.shape[2:])) for array in whole))
        return result.reshape((size, -1, *result.shape[1:])), True

    return folding
