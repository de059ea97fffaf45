"""A whole classifier, weights included, as one compiled artefact that needs only JAX to run.

Artefacts are for deployment: JAX promises to read them for six months. Keep the weights, too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from vone_jax import models


def export(
    model: models.BaseNetwork | models.VOneNet,
    variables: Any,
    image_size: int | None = None,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> bytes:
    """Compiles ``logits_fn(key, images)`` for any number of images.

    Args:
      model: the network.
      variables: its weights; they become part of the artefact.
      image_size: side of the images in pixels. Default: that of V1, or 224.
      platforms: on which the artefact will run, any of ``"cpu"``, ``"cuda"``, ``"tpu"``,
        ``"rocm"``.

    Returns:
      The artefact; write it to a file, and read it with ``load_exported``.

    Raises:
      ImportError: without the package flatbuffers.
      ValueError: for an argument out of range.
    """
    with_v1 = isinstance(model, models.VOneNet)
    if image_size is None:
        image_size = model.v1.image_size if with_v1 else 224
    if image_size < 8:
        raise ValueError(f"image_size must be >= 8, got {image_size}")
    channels = model.v1.in_channels if with_v1 else len(model.mean)
    classify = models.logits_fn(model, variables)
    # A scalar key numbers the examples by position, whatever their number is.
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, image_size, image_size, channels), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    exported = jax.export.export(
        jax.jit(lambda key, images: classify(key, images)), platforms=list(platforms)
    )(key, images)
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise ImportError("export needs flatbuffers: pip install flatbuffers") from error


def load_exported(artefact: bytes) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The classifier ``logits_fn(key, images) -> logits`` in an artefact of ``export``.

    Only JAX is needed: ``jax.export.deserialize(bytearray(artefact)).call`` is the same function.
    """
    return jax.export.deserialize(bytearray(artefact)).call
