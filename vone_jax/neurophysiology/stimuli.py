"""Drifting gratings in eight phases, and the images of them that a layer sees.

x points right, y down, both in degrees from fixation. At an orientation of 0 the bars are vertical:
luminance varies along x. Gratings are drawn on a canvas of 12 degrees, 672 pixels, in 8-bit grey on
a background of 128. A layer with another field of view sees the centre of the canvas (or the canvas
on a grey ground), resized as Pillow resizes 8-bit images: with an antialiasing triangle filter,
columns first, and rounding to 8 bits after each pass.

Reference: Marques, Schrimpf, DiCarlo (2021), Multi-scale hierarchical neural network models that
bridge from single neurons in the primate primary visual cortex to object recognition behavior,
bioRxiv 2021.03.01.433495 (the MarquesEtAl2020 benchmarks of Brain-Score).
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from vone_jax import arguments

CANVAS_DEGREES = 12.0
CANVAS_PIXELS = 672
CANVAS_PIXELS_PER_DEGREE = CANVAS_PIXELS / CANVAS_DEGREES
GREY = 128

# All gratings for receptive fields, orientation and spatial frequency lie within this field. Of the
# twelve sizes, a field below 7.73 degrees cuts the largest two.
MINIMUM_DEGREES = 6.2

# Pillow's fixed-point weights have this many fractional bits.
_PRECISION_BITS = 22

CENTRE = (0.5, 0.5)  # (y, x) of every stimulus that does not map receptive fields
PHASES = np.arange(8) * 45.0
ORIENTATIONS = np.arange(12) * 15.0
COARSE_ORIENTATIONS = np.arange(6) * 30.0
CYCLES = np.array([2.0, 3.0, 4.0])
SPATIAL_FREQUENCIES = np.logspace(-1.375, 3.875, 22, base=2.0)
COARSE_SPATIAL_FREQUENCIES = SPATIAL_FREQUENCIES[4:17:4]
SPATIAL_FREQUENCY_RADII = np.array([0.75, 2.25])
RADII = np.logspace(-2.25, 3.25, 12, base=2.0) / 2.0
# The factors of most sets, in their order.
COARSE: dict[str, Any] = {
    "spatial_frequency": COARSE_SPATIAL_FREQUENCIES,
    "orientation": COARSE_ORIENTATIONS,
    "phase": PHASES,
}
RECEPTIVE_FIELD_POSITIONS = np.arange(-10, 11) * 0.25

# Columns of a table of gratings, in this order: degrees, degrees, degrees, cycles per degree,
# degrees, degrees, Michelson contrast.
PARAMETERS = ("y", "x", "radius", "spatial_frequency", "orientation", "phase", "contrast")
GratingTable = Float[np.ndarray, "n 7"]
Pixels = UInt8[Array, "n height width"]


@dataclasses.dataclass(frozen=True)
class Display:
    """The square image that a layer sees, and the field of view that it spans around fixation.

    Attributes:
      visual_degrees: field of view in degrees of visual angle, at least 6.2.
      image_size: side of the images in pixels.
      in_channels: number of equal channels, 1 for grey or 3 for RGB images.

    Raises:
      ValueError: if a field is out of range.
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
        arguments.count("image_size", self.image_size, 16)
        arguments.count("in_channels", self.in_channels)

    @property
    def pixels_per_degree(self) -> float:
        """The image pixels per degree of visual angle."""
        return self.image_size / self.visual_degrees

    @property
    def field_pixels(self) -> int:
        """The side of the field of view in canvas pixels."""
        return round(self.visual_degrees * CANVAS_PIXELS_PER_DEGREE)

    @property
    def field_start(self) -> int:
        """The canvas pixel at which the field of view starts; negative for a padded canvas."""
        return (CANVAS_PIXELS - self.field_pixels) // 2

    def whole(self) -> "Window":
        """Return the window that is the whole image."""
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
    """Return the first input pixel of each output pixel in Pillow's bilinear resize, and weights.

    Weights are int32 (size_out, taps), in fixed point with ``2**22`` for 1.
    """
    scale = size_in / size_out
    support = max(scale, 1.0)
    centre = (np.arange(size_out) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int32), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int32), size_in)
    inputs = first[:, None] + np.arange((last - first).max())
    triangle = np.maximum(1.0 - np.abs(inputs + 0.5 - centre[:, None]) / support, 0.0)
    triangle = np.where(inputs < last[:, None], triangle, 0.0)
    weights = triangle / triangle.sum(axis=1, keepdims=True)
    return first, np.floor(0.5 + weights * 2**_PRECISION_BITS).astype(np.int32)


def source_range(display: Display, start: int, count: int) -> tuple[int, int]:
    """Return the range of field pixels that determine the image pixels start..start + count."""
    first, weights = _taps(display.field_pixels, display.image_size)
    stop = int(first[start + count - 1]) + weights.shape[1]
    return int(first[start]), min(stop, display.field_pixels)


@functools.partial(jax.jit, static_argnames=("display", "window"))
def resize(field: UInt8[Array, "n rows columns"], display: Display, window: Window) -> Pixels:
    """Resize the ``source_range`` of a window along both axes, bit for bit as Pillow does."""
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
        inputs = np.minimum(first + tap, pixels.shape[axis] - 1)
        values = jnp.take(pixels, inputs, axis=axis).astype(jnp.int32)
        total = total + values * jnp.asarray(weights[:, tap].reshape(shape))
    return jnp.clip(total >> _PRECISION_BITS, 0, 255).astype(jnp.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class GratingSet:
    """A full crossing of grating parameters.

    Attributes:
      name: name of the experiment, and of the key stream of its trials.
      shape: number of levels of each factor; the last factor varies fastest.
      table: one row per grating, with the columns y, x and radius in degrees, spatial_frequency in
        cycles per degree, orientation and phase in degrees, and contrast from 0 to 1.
      below: gratings that are drawn first, one per row of ``table``, which covers them; None for
        a grey background.

    Raises:
      ValueError: if a value is not finite or out of range, or a disk leaves the canvas.
    """

    name: str
    shape: tuple[int, ...]
    table: GratingTable
    below: GratingTable | None = None

    def __post_init__(self):
        for table in (self.table,) if self.below is None else (self.table, self.below):
            self._check(table)

    def _check(self, table: GratingTable) -> None:
        count = math.prod(self.shape)
        if table.shape != (count, len(PARAMETERS)):
            raise ValueError(
                f"table must have shape ({count}, {len(PARAMETERS)}), got {table.shape}"
            )
        if not np.all(np.isfinite(table)):
            raise ValueError("grating parameters must be finite, got NaN or infinite values")
        y, x, radius, frequency, _, _, contrast = table.T
        if radius.min() <= 0 or frequency.min() <= 0:
            raise ValueError(
                f"radius and spatial_frequency must be > 0, got values from {radius.min()} and "
                f"{frequency.min()}"
            )
        if contrast.min() < 0 or contrast.max() > 1:
            raise ValueError(
                f"contrast must lie in [0, 1], got values from {contrast.min()} to {contrast.max()}"
            )
        reach, limit = np.max(np.maximum(np.abs(y), np.abs(x)) + radius), CANVAS_DEGREES / 2
        if reach > limit:
            raise ValueError(
                f"gratings must lie within {limit} degrees of fixation, got {reach:.3g}"
            )

    def __len__(self) -> int:
        return len(self.table)


def grating_set(name: str, **factors: np.ndarray | float) -> GratingSet:
    """Cross factors, in the order of the arguments.

    Args:
      name: name of the experiment.
      **factors: values of the columns of ``GratingSet.table``; or ``cycles``, the diameter in
        cycles of the grating, in place of ``radius``. A scalar holds for all gratings and adds no
        factor. Default: centre (0.5, 0.5) and contrast 1.

    Raises:
      ValueError: for an unknown, missing or empty factor, both ``cycles`` and ``radius``, or a
        value out of range.
    """
    for factor, values in factors.items():
        arguments.choice("factors", factor, (*PARAMETERS, "cycles"))
        if not np.size(values):
            raise ValueError(f"factors must have values, {factor} has none")
    if len(sizes := factors.keys() & {"cycles", "radius"}) != 1:
        raise ValueError(f"factors must have one of cycles and radius, got {len(sizes)} of them")
    for needed in ("spatial_frequency", "orientation", "phase"):
        if needed not in factors:
            raise ValueError(f"factors must have {needed}, got {', '.join(factors)}")
    levels = [np.asarray(values, np.float64) for values in factors.values()]
    mesh = np.meshgrid(*levels, indexing="ij")
    columns: dict = {"y": CENTRE[0], "x": CENTRE[1], "contrast": 1.0}
    columns |= zip(factors, mesh, strict=True)
    if "cycles" in columns:
        columns["radius"] = columns["cycles"] / (2.0 * columns["spatial_frequency"])
    filled = [np.broadcast_to(columns[name], mesh[0].shape).ravel() for name in PARAMETERS]
    shape = tuple(level.size for level in levels if level.ndim)
    return GratingSet(name, shape, np.stack(filled, axis=1))


def receptive_field_set() -> GratingSet:
    """Return small gratings at 21 x 21 positions: (y, x, orientation, phase), 3528 images."""
    return grating_set(
        "receptive field",
        y=RECEPTIVE_FIELD_POSITIONS,
        x=RECEPTIVE_FIELD_POSITIONS,
        orientation=np.array([0.0, 45.0, 90.0, 135.0]),
        phase=np.array([0.0, 180.0]),
        spatial_frequency=3.0,
        radius=1.0 / 6.0,
    )


def orientation_set() -> GratingSet:
    """Return (cycles, spatial frequency, orientation, phase): (3, 4, 12, 8), 1152 images."""
    return grating_set("orientation", cycles=CYCLES, **COARSE | {"orientation": ORIENTATIONS})


def spatial_frequency_set() -> GratingSet:
    """Return (radius, spatial frequency, orientation, phase): (2, 22, 6, 8), 2112 images."""
    factors = COARSE | {"spatial_frequency": SPATIAL_FREQUENCIES}
    return grating_set("spatial frequency", radius=SPATIAL_FREQUENCY_RADII, **factors)


def size_set() -> GratingSet:
    """Return (radius, spatial frequency, orientation, phase): (12, 4, 6, 8), 2304 images."""
    return grating_set("size", radius=RADII, **COARSE)


def all_sets() -> tuple[GratingSet, ...]:
    """Return the four sets above, 9096 images together."""
    return receptive_field_set(), orientation_set(), spatial_frequency_set(), size_set()


def check_uint8(images: np.ndarray) -> None:
    """Raise a TypeError unless images are a uint8 array."""
    dtype = getattr(images, "dtype", None)
    if dtype != np.uint8:
        raise TypeError(f"images must be a uint8 array, got {dtype or type(images).__name__}")


def blank(display: Display, window: Window | None = None) -> UInt8[np.ndarray, "1 height width"]:
    """Return the uniform grey image."""
    window = window or display.whole()
    return np.full((1, window.height, window.width), GREY, np.uint8)


def render(
    table: GratingTable,
    display: Display,
    window: Window | None = None,
    below: GratingTable | None = None,
) -> Pixels:
    """Draw gratings as a layer sees them.

    On the canvas the value is floor((t + 1) / 2 * 255) inside a hard disk and 128 outside, with
    t = contrast * sin(2 pi f (x cos o + y sin o) + phase) and x, y from the centre of the grating.
    The host computes the values in float64, because the floor of a float32 sine differs in some
    pixels; the device resizes. By default the window is the whole image.

    The table has one grating for each image, and so has ``below``, whose gratings are drawn first.
    """
    window = window or display.whole()
    rows = source_range(display, window.top, window.height)
    cols = source_range(display, window.left, window.width)
    degrees = _degrees(display, *rows), _degrees(display, *cols)
    field = np.full((len(table), len(degrees[0]), len(degrees[1])), GREY, np.uint8)
    for gratings in (table,) if below is None else (below, table):
        for image, grating in zip(field, gratings, strict=True):
            _draw(image, grating, *degrees)
    return resize(jnp.asarray(field), display, window)


def _draw(
    image: np.ndarray, grating: np.ndarray, row_degrees: np.ndarray, col_degrees: np.ndarray
) -> None:
    """Draw a grating into an image of the canvas."""
    y0, x0, radius, frequency, orientation, phase, contrast = grating
    y, x = row_degrees - y0, col_degrees - x0
    # Only the bounding box of the disk is computed.
    box = np.ix_(np.abs(y) <= radius, np.abs(x) <= radius)
    y, x = y[box[0]], x[box[1]]
    angle = math.radians(orientation)
    drift = 2.0 * math.pi * frequency * (x * math.cos(angle) + y * math.sin(angle))
    t = contrast * np.sin(drift + math.radians(phase))
    inside = x**2 + y**2 <= radius**2
    image[box] = np.where(inside, np.floor((t + 1.0) / 2.0 * 255.0), image[box])


def visible(table: GratingTable, display: Display, window: Window) -> Bool[np.ndarray, " n"]:
    """Return True for gratings that reach into a window; others leave the window grey."""
    reached = np.ones(len(table), bool)
    for column, start, count in ((0, window.top, window.height), (1, window.left, window.width)):
        degrees = _degrees(display, *source_range(display, start, count))
        centre, radius = table[:, column], table[:, 2]
        reached &= (centre + radius >= degrees[0]) & (centre - radius <= degrees[-1])
    return reached


def _degrees(display: Display, start: int, stop: int) -> np.ndarray:
    """Return the degrees from fixation of pixels of the field of view."""
    canvas = np.arange(start, stop) + display.field_start
    return (canvas - CANVAS_PIXELS / 2) / CANVAS_PIXELS_PER_DEGREE
