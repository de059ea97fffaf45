"""Eight-bit levels 0 to 255 held in float32, with the rounding of the benchmark's integer steps."""

import jax
import jax.numpy as jnp

# What float32 leaves below a whole number belongs to that number. The slack is above the rounding
# errors of the sums here and far below a level.
_SLACK = 2e-4

LUMA = (0.299, 0.587, 0.114)


def from_images(images: jax.Array) -> jax.Array:
    """The nearest levels of images in [0, 1]."""
    return nearest(images * 255)


def nearest(levels: jax.Array) -> jax.Array:
    """Rounds; half goes up.

    Averages of few integers lie on halves or well away from them, and the small term brings those
    back that float32 leaves just below.
    """
    return jnp.floor(levels + (0.5 + 1e-3))


def truncate(levels: jax.Array) -> jax.Array:
    """Rounds down, as a conversion to unsigned integers does."""
    return jnp.floor(levels + _SLACK)


def luma(images: jax.Array) -> jax.Array:
    """Brightness (N, H, W, 1) of images (N, H, W, C); grey images are their own."""
    if images.shape[-1] == 1:
        return images
    red, green, blue = channels(images)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def channels(images: jax.Array) -> list[jax.Array]:
    """The channels of images (N, H, W, C), each (N, H, W, 1).

    The compiler does not use vector units for reductions over the last axis of so few values.
    """
    return [images[..., channel, None] for channel in range(images.shape[-1])]


def colour(rgb: tuple[int, int, int], channels: int) -> jax.Array:
    """An 8-bit colour as an array (1, 1, 1, channels) in [0, 1]; its luma for grey images."""
    values = jnp.asarray(rgb, jnp.float32)[None, None, None] / 255
    return values if channels == 3 else luma(values)
