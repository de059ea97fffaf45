"""Responses of a whole layer to whole images: the features of ``explained_variance``."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import prng
from vone_jax.neurophysiology.recording import ResponseFn, as_pytree, call_layer, to_images


def layer_features(
    response_fn: ResponseFn,
    key: jax.Array,
    images: np.ndarray,
    in_channels: int = 3,
    batch_size: int = 16,
) -> np.ndarray:
    """Responses of a whole layer to images, once, as they are.

    Args:
      response_fn: the layer, ``(key, images) -> responses``, float32 images in [0, 1].
      key: scalar typed key; image i is shown with its key number i in any batch.
      images: uint8 (N, S, S), for instance from ``textures.reframe``.
      in_channels: number of equal channels to show.
      batch_size: images at a time.

    Returns:
      float32 (N, units), flattened.

    Raises:
      TypeError: if images are not uint8 or the key is not typed.
      ValueError: if a shape does not fit or a response is not finite.
    """
    prng.check_key(key)
    if getattr(images, "dtype", None) != np.uint8:
        raise TypeError(f"images must be a uint8 array, got {getattr(images, 'dtype', images)}")
    if images.ndim != 3 or 0 in images.shape:
        raise ValueError(f"images must have shape (N, S, S), got {images.shape}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    function = as_pytree(response_fn)
    key = prng.stream(key, "explained variance")
    size = min(batch_size, len(images))
    found = []
    for start in range(0, len(images), size):
        # The last batch repeats its last image, so that one program fits all batches.
        batch = np.minimum(np.arange(start, start + size), len(images) - 1)
        keys = prng.index_keys(key, jnp.asarray(batch, jnp.uint32))
        found.append(
            np.asarray(_responses(function, keys, jnp.asarray(images[batch]), in_channels))
        )
    features = np.concatenate(found)[: len(images)]
    if not np.all(np.isfinite(features)):
        raise ValueError("response_fn returned values that are not finite (NaN or infinite)")
    return features


@functools.partial(jax.jit, static_argnums=3)
def _responses(function, keys, pixels, in_channels):
    with jax.default_matmul_precision("highest"):
        responses = call_layer(function, keys, to_images(pixels, in_channels))
    return responses.reshape(responses.shape[0], -1)
