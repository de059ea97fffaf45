"""The check of images and labels, one for all public functions that take them.

Shapes and dtypes are always checked. Values are checked where they are known, which is everywhere
but for the arguments of functions under ``jit`` and the other transformations.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

# How far images may lie outside [0, 1]. Resizing and decoding leave values such as -3e-8. Images of
# eight bits that were not divided by 255 exceed 1 by far.
BOX_TOLERANCE = 1e-6


def check_images(images: Any) -> Float[Array, "n h w c"]:
    """Check images, and return them as an array.

    Raises:
      TypeError: for images that are not float32 or float64.
      ValueError: for another shape than (N, H, W, C), values outside [0, 1], or NaN.
    """
    images = _array("images", images)
    if images.weak_type:
        # The same type whether or not the caller's arrays were made from Python numbers.
        images = jax.lax.convert_element_type(images, images.dtype)
    if images.dtype not in (jnp.float32, jnp.float64):
        hint = "; divide by 255" if images.dtype == jnp.uint8 else ""
        raise TypeError(f"images must be float32 in [0, 1], got {images.dtype}{hint}")
    if images.ndim != 4 or 0 in images.shape:
        empty = ", which is empty" if 0 in images.shape else ""
        raise ValueError(f"images must have shape (N, H, W, C), got {images.shape}{empty}")
    if images.shape[-1] not in (1, 3) and images.shape[1] in (1, 3):
        raise ValueError(f"images must be NHWC, got shape {images.shape}, which looks like NCHW")
    low, high = _extremes(images)
    # A comparison with NaN is False.
    if not (low >= -BOX_TOLERANCE and high <= 1 + BOX_TOLERANCE):
        what = f"values from {low:g} to {high:g}" if low <= high else "NaN"
        raise ValueError(
            f"images must lie in [0, 1], got {what}; a normalisation belongs in the model"
        )
    return images


def check_labels(labels: Any, num_images: int, num_classes: int) -> Int[Array, " n"]:
    """Check the labels of images, and return them as an int32 array.

    Raises:
      TypeError: for labels that are not integers.
      ValueError: for another shape than (num_images,), or labels outside [0, num_classes - 1].
    """
    labels = _array("labels", labels)
    one_hot = "; one-hot labels are not accepted" if labels.ndim == 2 else ""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"labels must be integers of shape (N,), got dtype {labels.dtype} and shape "
            f"{labels.shape}{one_hot}"
        )
    if labels.shape != (num_images,):
        raise ValueError(f"labels must have shape ({num_images},), got {labels.shape}{one_hot}")
    first, last = _extremes(labels)
    if first < 0 or last >= num_classes:
        raise ValueError(
            f"labels must lie in [0, {num_classes - 1}] for {num_classes} classes, "
            f"got values from {first:.0f} to {last:.0f}"
        )
    return labels.astype(jnp.int32)


def _array(name: str, value: Any) -> Array:
    """Return ``value`` as an array, or raise a TypeError if it does not hold numbers."""
    array = value
    if any(isinstance(each, Tracer) for each in jax.tree.leaves(value)):
        array = jnp.asarray(value)  # NumPy takes no list of traced values.
    elif not isinstance(value, jax.Array):
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise TypeError(f"{name} must be an array of numbers: {error}") from error
    if not jnp.issubdtype(array.dtype, np.number) and array.dtype != bool:
        got = "None" if value is None else f"{type(value).__name__} of dtype {array.dtype}"
        raise TypeError(f"{name} must be an array of numbers, got {got}")
    if isinstance(array, np.ndarray) and array.dtype.kind in "iu":
        # JAX would wrap labels beyond 32 bits, which may then be in range.
        array = array.clip(np.iinfo(np.int32).min, np.iinfo(np.int32).max)
    return jnp.asarray(array)


def _extremes(array: Array) -> tuple[float, float]:
    """Return the smallest and largest value, NaN where one is, and (0, 0) for traced arrays."""
    if isinstance(array, Tracer):
        return 0.0, 0.0
    # Arrays that a traced function closes over are known while it is traced. They are reduced on
    # the devices, since a process may hold only a part of them.
    with jax.ensure_compile_time_eval():
        low, high = jax.device_get(_reduced(array))
    return float(low), float(high)


@jax.jit
def _reduced(array: Array) -> tuple[Array, Array]:
    low, high = jnp.min(array), jnp.max(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return low, high
    # A minimum on the device may ignore NaN.
    missing = jnp.any(jnp.isnan(array))
    return jnp.where(missing, jnp.nan, low), jnp.where(missing, jnp.nan, high)
