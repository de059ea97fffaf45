"""Layers that the tests record: a small VOneBlock and a smaller layer of oriented filters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import neurophysiology, v1
from vone_jax.neurophysiology import stimuli
from vone_jax.neurophysiology.stimuli import Window
from vone_jax.neurophysiology.textures import TextureSet

BLOCK = v1.VOneBlockConfig(
    simple_channels=24, complex_channels=24, gabor_seed=7, in_channels=1, noise=None
)
DISPLAY = neurophysiology.Display(visual_degrees=8.0, image_size=224, in_channels=1)

# A layer of 8 oriented filters of 9 pixels on images of 64 pixels, cheap to run whole.
SMALL_DISPLAY = neurophysiology.Display(visual_degrees=8.0, image_size=64, in_channels=1)


def pixel_of(display, degrees):
    """The row (or column) of the image at a distance below (right of) fixation."""
    canvas = stimuli.CANVAS_PIXELS / 2 + degrees * stimuli.CANVAS_PIXELS_PER_DEGREE
    return (canvas - display.field_start + 0.5) * display.image_size / display.field_pixels - 0.5


def block_responses(key, images):
    return v1.noise_free_responses(BLOCK, images)


def oriented_kernels(num_filters=8, size=9):
    """Even Gabors of 1 cycle per degree at 8 pixels per degree, (size, size, 1, num_filters)."""
    offset = np.arange(size) - size // 2
    y, x = np.meshgrid(offset, offset, indexing="ij")
    angle = np.pi * np.arange(num_filters) / num_filters
    along = x[..., None] * np.cos(angle) + y[..., None] * np.sin(angle)
    envelope = np.exp(-(x**2 + y**2) / (2 * 2.0**2))[..., None]
    kernels = envelope * np.cos(2 * np.pi * along / 8)
    return (kernels - kernels.mean((0, 1)))[:, :, None].astype(np.float32)


def small_layer(key, images):
    kernels = jnp.asarray(oriented_kernels())
    linear = jax.lax.conv_general_dilated(
        images - 128 / 255, kernels, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(linear)


# Sums over a square of 33 pixels, 4 degrees, as a matrix product along each axis.
NEIGHBOURS = (np.abs(np.subtract.outer(np.arange(64), np.arange(64))) <= 16).astype(np.float32)


def surrounded(tuned, strength=0.002):
    """The small layer, each filter divided by a neighbourhood of its own orientation, or of all."""

    def layer(key, images):
        linear = small_layer(key, images)
        pool = jnp.einsum("yu,nuvc,vx->nyxc", NEIGHBOURS, linear, NEIGHBOURS)
        if not tuned:
            pool = pool.mean(axis=-1, keepdims=True)
        return linear / (1.0 + strength * pool)

    return layer


@pytest.fixture(scope="session")
def scores():
    """The scores of the block, with 8 texture images of white noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, 2, 64, 64), np.uint8)
    images = TextureSet(pixels, ("first", "second"))
    return neurophysiology.score(
        block_responses, 8.0, 224, 1, jax.random.key(1), texture_images=images
    )


def central_site(channels):
    """All channels at the 4 locations nearest to the stimuli, with a window that is enough."""
    grid = np.meshgrid([31, 32], [31, 32], np.arange(channels), indexing="ij")
    row, col, channel = (axis.ravel() for axis in grid)
    # The window starts at location 25 of the map and has 14 locations.
    units = ((row - 25) * 14 + col - 25) * channels + channel
    return neurophysiology.Site(DISPLAY, Window(100, 100, 56, 56), units, row, col, channel)


@pytest.fixture(scope="session")
def site():
    return central_site(48)
