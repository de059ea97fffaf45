"""Eight-bit levels, 0 to 255 in float32, and the channels of images.

ImageNet-C rounds or truncates to eight bits within several corruptions. These functions do the
same to float32 numbers, whose rounding errors would otherwise move a whole number by one level.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

# Images with their values in [0, 1], or levels.
Images = Float[Array, "n h w c"]
# One typed key for each image.
Keys = Key[Array, " n"]
# Height, width and channels of images.
Shape = tuple[int, int, int]

# A value that is below a whole number by less than this counts as that whole number. The slack is
# larger than the rounding errors of float32 here, and far smaller than a level.
SLACK = 2e-4

# Weights of red, green and blue in the luma (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)


def from_images(images: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the nearest levels of images in [0, 1]."""
    return nearest(images * 255)


def nearest(levels: Float[Array, "..."]) -> Float[Array, "..."]:
    """Round to whole numbers; halves are rounded up.

    Means of a few integers lie on a half or far from it. The small term rounds up the halves that
    float32 represents by a number just below.
    """
    return jnp.floor(levels + (0.5 + 1e-3))


def truncate(levels: Float[Array, "..."]) -> Float[Array, "..."]:
    """Round down, as a conversion to unsigned integers does; see ``SLACK``."""
    return jnp.floor(levels + SLACK)


def luma(images: Images) -> Float[Array, "n h w 1"]:
    """Return the luma of colour images, and grey images as they are."""
    if images.shape[-1] == 1:
        return images
    red, green, blue = channels(images)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def blended(
    images: Images, layer: Float[Array, "n h w rgb"], weights: Float[Array, " 2"]
) -> Images:
    """Return the weighted sum of images and a colour layer, whose luma is added to grey images."""
    if images.shape[-1] == 1:
        layer = luma(layer)
    return weights[0] * images + weights[1] * layer


def channels(images: Images) -> list[Float[Array, "n h w 1"]]:
    """Split images into their channels.

    Operations between these arrays use the vector units of a CPU. A reduction over a last axis of
    three values does not.
    """
    return [images[..., channel, None] for channel in range(images.shape[-1])]


def colour(rgb: tuple[int, int, int], channels: int) -> Float[Array, "1 1 1 {channels}"]:
    """Return an eight-bit colour in [0, 1], or its luma if ``channels`` is 1."""
    values = jnp.asarray(rgb, jnp.float32)[None, None, None] / 255
    return values if channels == 3 else luma(values)
