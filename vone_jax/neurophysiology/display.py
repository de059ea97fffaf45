"""From the canvas of the stimuli to the pixels that a layer sees.

Stimuli are drawn on a canvas of 12 degrees, 672 pixels. A layer with another field of view sees
the centre of the canvas (or the canvas on a grey ground), resized as Pillow resizes 8-bit images:
with an antialiasing triangle filter, columns first, and rounding to 8 bits after each pass.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

CANVAS_DEGREES = 12.0
CANVAS_PIXELS = 672
CANVAS_PIXELS_PER_DEGREE = CANVAS_PIXELS / CANVAS_DEGREES
GREY = 128

# All stimuli that map receptive fields, orientation and spatial frequency lie within it; of the
# twelve sizes, the largest two are cut by a field of less than 7.73 degrees.
MINIMUM_DEGREES = 6.2

# Pillow's fixed-point weights have this many fractional bits.
_PRECISION_BITS = 22


@dataclasses.dataclass(frozen=True)
class Display:
    """What the layer sees: a square image that spans a field of view around fixation.

    Attributes:
      visual_degrees: field of view in degrees of visual angle, at least ``MINIMUM_DEGREES``.
      image_size: side of the images in pixels.
      in_channels: number of equal channels, 1 for grey or 3 for RGB images.

    Raises:
      ValueError: naming the field that is out of range.
    """

    visual_degrees: float = 8.0
    image_size: int = 224
    in_channels: int = 3

    def __post_init__(self):
        if not (math.isfinite(self.visual_degrees) and self.visual_degrees >= MINIMUM_DEGREES):
            raise ValueError(
                f"visual_degrees must be at least {MINIMUM_DEGREES}, which the gratings need; got "
                f"{self.visual_degrees}. A convolutional layer with a smaller field can be shown "
                f"larger images at the same number of pixels per degree"
            )
        for name, least in (("image_size", 16), ("in_channels", 1)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")

    @property
    def pixels_per_degree(self) -> float:
        """Image pixels per degree of visual angle."""
        return self.image_size / self.visual_degrees

    @property
    def field_pixels(self) -> int:
        """Side of the field of view in canvas pixels."""
        return round(self.visual_degrees * CANVAS_PIXELS_PER_DEGREE)

    @property
    def field_start(self) -> int:
        """Canvas pixel at which the field of view starts; negative for a padded canvas."""
        return (CANVAS_PIXELS - self.field_pixels) // 2

    def pixel_of(self, degrees: float) -> float:
        """Row (or column) of the image at a distance below (right of) fixation."""
        canvas = CANVAS_PIXELS / 2 + degrees * CANVAS_PIXELS_PER_DEGREE - self.field_start
        return (canvas + 0.5) * self.image_size / self.field_pixels - 0.5

    def whole(self) -> "Window":
        """The window that is the whole image."""
        return Window(0, 0, self.image_size, self.image_size)


@dataclasses.dataclass(frozen=True)
class Window:
    """A rectangle of image pixels: first row and column, height and width."""

    top: int
    left: int
    height: int
    width: int


@functools.lru_cache(maxsize=64)
def _taps(size_in: int, size_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Pillow's bilinear resize of one axis: the pixels that each output pixel sees.

    Returns:
      The first input pixel of each output pixel, int32 (size_out,), and the weights of it and its
      successors, int32 (size_out, taps): fixed-point numbers with ``2**22`` for 1.
    """
    scale = size_in / size_out
    support = max(scale, 1.0)
    centre = (np.arange(size_out) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int32), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int32), size_in)
    seen = first[:, None] + np.arange((last - first).max())
    triangle = np.maximum(1.0 - np.abs(seen + 0.5 - centre[:, None]) / support, 0.0)
    triangle = np.where(seen < last[:, None], triangle, 0.0)
    weights = triangle / triangle.sum(axis=1, keepdims=True)
    return first, np.floor(0.5 + weights * 2**_PRECISION_BITS).astype(np.int32)


def source_range(display: Display, start: int, count: int) -> tuple[int, int]:
    """Pixels of the field of view, from and to, that image pixels start..start + count see."""
    first, weights = _taps(display.field_pixels, display.image_size)
    stop = start + count
    return int(first[start]), min(int(first[stop - 1]) + weights.shape[1], display.field_pixels)


@functools.partial(jax.jit, static_argnames=("display", "window"))
def resize(field: jax.Array, display: Display, window: Window) -> jax.Array:
    """Resizes the part of the field of view that a window of the image sees, to the bit as Pillow.

    Args:
      field: uint8 (N, rows, columns), the ``source_range`` of the window.
      display: what the layer sees.
      window: the image pixels to compute.

    Returns:
      uint8 (N, window.height, window.width).
    """
    columns = _resize_axis(field, 2, display, window.left, window.width)
    return _resize_axis(columns, 1, display, window.top, window.height)


def _resize_axis(
    pixels: jax.Array, axis: int, display: Display, start: int, count: int
) -> jax.Array:
    first, weights = _taps(display.field_pixels, display.image_size)
    first, weights = first[start : start + count] - first[start], weights[start : start + count]
    shape = (1, 1, count) if axis == 2 else (1, count, 1)
    # The largest sum is 255 * 2**22 and half a unit, which int32 holds.
    total = jnp.full((1, 1, 1), 2 ** (_PRECISION_BITS - 1), jnp.int32)
    for tap in range(weights.shape[1]):
        seen = np.minimum(first + tap, pixels.shape[axis] - 1)
        values = jnp.take(pixels, seen, axis=axis).astype(jnp.int32)
        total = total + values * jnp.asarray(weights[:, tap].reshape(shape))
    return jnp.clip(total >> _PRECISION_BITS, 0, 255).astype(jnp.uint8)
