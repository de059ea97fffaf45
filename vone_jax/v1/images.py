"""Images as V1 reads them: what is accepted, and the normalisation."""

import math
import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

Images = Float[Array | np.ndarray, "n h w c"]
PerChannel = float | tuple[float, ...]
# Precision of products and convolutions, as in ``jax.lax.dot_general``. None is JAX's setting, by
# default one pass of bfloat16 on a TPU and TF32 on a GPU.
Precision = str | None
HIGHEST = "highest"


def normalise(images: Images, mean: PerChannel, std: PerChannel) -> Float32[Array, "n h w c"]:
    """Subtract the mean from images and divide them by the standard deviation, in float32."""
    images, mean_array, std_array = (jnp.asarray(x, jnp.float32) for x in (images, mean, std))
    shape = (1, 1, 1, -1)
    return (images - mean_array.reshape(shape)) / std_array.reshape(shape)


def check_normalisation(
    name: str, value: PerChannel, channels: int, positive: bool = False
) -> None:
    """Check a mean or a standard deviation that normalises images.

    Raises:
      ValueError: if ``value`` is neither one number nor one per channel, or a number is not finite
        or (if ``positive``) not > 0.
    """
    each = value if isinstance(value, tuple) else (value,) * channels
    if len(each) != channels or not all(isinstance(number, numbers.Real) for number in each):
        raise ValueError(
            f"{name} must be one number or one per channel, {channels} numbers, got {value!r}"
        )
    for number in each:
        if not math.isfinite(number) or (positive and number <= 0):
            raise ValueError(f"{name} must be {'> 0' if positive else 'finite'}, got {value}")


def root(values: jax.Array) -> jax.Array:
    """Return the square root of an array of numbers >= 0, or NaN. Its gradient at 0 is 0."""
    zero = values <= 0
    # JAX differentiates both branches of ``where``, so the root never gets a zero, even where its
    # result is not used.
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, values)))


def check_images(images: jax.Array | np.ndarray, in_channels: int) -> None:
    """Raise an error unless images are floating point and have the shape (N, H, W, in_channels)."""
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images must be floating point in [0, 1], got dtype {images.dtype}")
    if images.ndim != 4 or images.shape[-1] != in_channels:
        raise ValueError(f"images must have shape (N, H, W, {in_channels}), got {images.shape}")
