"""Drifting gratings, as eight phases, in the sets with which macaque V1 was characterised.

x points right, y down, both in degrees from fixation. An orientation of 0 means that luminance
varies along x: vertical bars. Images are 8-bit grey, the background is 128.

Reference: Marques, Schrimpf, DiCarlo (2021), Multi-scale hierarchical neural network models that
bridge from single neurons in the primate primary visual cortex to object recognition behavior,
bioRxiv 2021.03.01.433495 (the MarquesEtAl2020 benchmarks of Brain-Score).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax.neurophysiology.display import (
    CANVAS_DEGREES,
    CANVAS_PIXELS,
    CANVAS_PIXELS_PER_DEGREE,
    GREY,
    Display,
    Window,
    resize,
    source_range,
)

CENTRE = (0.5, 0.5)  # (y, x) of every stimulus that does not map receptive fields
PHASES = np.arange(8) * 45.0
ORIENTATIONS = np.arange(12) * 15.0
COARSE_ORIENTATIONS = np.arange(6) * 30.0
CYCLES = np.array([2.0, 3.0, 4.0])
SPATIAL_FREQUENCIES = np.logspace(-1.375, 3.875, 22, base=2.0)
COARSE_SPATIAL_FREQUENCIES = SPATIAL_FREQUENCIES[4:17:4]
SPATIAL_FREQUENCY_RADII = np.array([0.75, 2.25])
RADII = np.logspace(-2.25, 3.25, 12, base=2.0) / 2.0
RECEPTIVE_FIELD_POSITIONS = np.arange(-10, 11) * 0.25

# Columns of a table of gratings, in this order.
PARAMETERS = ("y", "x", "radius", "spatial_frequency", "orientation", "phase", "contrast")


@dataclasses.dataclass(frozen=True, eq=False)
class GratingSet:
    """A full crossing of grating parameters.

    Attributes:
      name: of the experiment; it also names the key stream of its trials.
      shape: number of levels of each factor; the last varies fastest.
      table: float64 (number of gratings, 7), the columns as in ``PARAMETERS``: degrees, degrees,
        degrees, cycles per degree, degrees, degrees, Michelson contrast.

    Raises:
      ValueError: if a value is not finite or out of range, or a disk leaves the canvas.
    """

    name: str
    shape: tuple[int, ...]
    table: np.ndarray

    def __post_init__(self):
        table = self.table
        if table.shape != (math.prod(self.shape), len(PARAMETERS)):
            raise ValueError(
                f"table must have shape ({math.prod(self.shape)}, {len(PARAMETERS)}), got "
                f"{table.shape}"
            )
        if not np.all(np.isfinite(table)):
            raise ValueError("grating parameters must be finite")
        y, x, radius, frequency, _, _, contrast = table.T
        if radius.min() <= 0 or frequency.min() <= 0:
            raise ValueError("radius and spatial_frequency must be > 0")
        if contrast.min() < 0 or contrast.max() > 1:
            raise ValueError(f"contrast must lie in [0, 1], got {contrast.min()}, {contrast.max()}")
        reach = np.max(np.maximum(np.abs(y), np.abs(x)) + radius)
        if reach > CANVAS_DEGREES / 2:
            raise ValueError(
                f"gratings must lie within {CANVAS_DEGREES / 2} degrees of fixation, got "
                f"{reach:.3g}"
            )

    def __len__(self) -> int:
        return len(self.table)


def grating_set(name: str, **factors: np.ndarray | float) -> GratingSet:
    """Crosses factors in the order in which they are given.

    Args:
      name: of the experiment.
      **factors: values of ``PARAMETERS`` and of ``cycles``, which sets the diameter in cycles of
        the grating in place of ``radius``. Default: centre (0.5, 0.5) and contrast 1. A scalar is
        the same for all gratings and no factor of the shape.
    """
    unknown = set(factors) - {*PARAMETERS, "cycles"}
    if unknown:
        raise ValueError(f"factors must be of {', '.join(PARAMETERS)}, cycles; got {unknown}")
    levels = [np.asarray(values, np.float64) for values in factors.values()]
    mesh = np.meshgrid(*levels, indexing="ij")
    columns = dict(zip(factors, (m.ravel() for m in mesh), strict=True))
    if "cycles" in columns:
        columns["radius"] = columns["cycles"] / (2.0 * columns["spatial_frequency"])
    size = mesh[0].size
    defaults = {"y": CENTRE[0], "x": CENTRE[1], "contrast": 1.0}
    table = np.stack(
        [columns[p] if p in columns else np.full(size, defaults[p]) for p in PARAMETERS], axis=1
    )
    return GratingSet(name, tuple(level.size for level in levels if level.ndim), table)


def receptive_field_set() -> GratingSet:
    """Small gratings at 21 x 21 positions: (y, x, orientation, phase), 3528 images."""
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
    """(cycles, spatial frequency, orientation, phase): (3, 4, 12, 8), 1152 images."""
    return grating_set(
        "orientation",
        cycles=CYCLES,
        spatial_frequency=COARSE_SPATIAL_FREQUENCIES,
        orientation=ORIENTATIONS,
        phase=PHASES,
    )


def spatial_frequency_set() -> GratingSet:
    """(radius, spatial frequency, orientation, phase): (2, 22, 6, 8), 2112 images."""
    return grating_set(
        "spatial frequency",
        radius=SPATIAL_FREQUENCY_RADII,
        spatial_frequency=SPATIAL_FREQUENCIES,
        orientation=COARSE_ORIENTATIONS,
        phase=PHASES,
    )


def size_set() -> GratingSet:
    """(radius, spatial frequency, orientation, phase): (12, 4, 6, 8), 2304 images."""
    return grating_set(
        "size",
        radius=RADII,
        spatial_frequency=COARSE_SPATIAL_FREQUENCIES,
        orientation=COARSE_ORIENTATIONS,
        phase=PHASES,
    )


def blank(display: Display, window: Window | None = None) -> np.ndarray:
    """The uniform grey image, uint8 (1, height, width)."""
    window = window or display.whole()
    return np.full((1, window.height, window.width), GREY, np.uint8)


def render(table: np.ndarray, display: Display, window: Window | None = None) -> jax.Array:
    """Images of gratings as a layer sees them.

    On the canvas, t = contrast * sin(2 pi f (x cos o + y sin o) + phase) with x, y from the
    centre of the grating, the value is floor((t + 1) / 2 * 255) inside a hard disk and 128
    outside. They are computed in float64 on the host, because a floor of a float32 sine is
    another stimulus; the resize runs on the device.

    Args:
      table: gratings, rows of a ``GratingSet.table``, (N, 7).
      display: what the layer sees.
      window: the part of the image to compute. Default: all of it.

    Returns:
      uint8 (N, window.height, window.width).
    """
    window = window or display.whole()
    rows = source_range(display, window.top, window.height)
    cols = source_range(display, window.left, window.width)
    field = np.full((len(table), rows[1] - rows[0], cols[1] - cols[0]), GREY, np.uint8)
    row_degrees = _degrees(display, *rows)
    col_degrees = _degrees(display, *cols)
    for image, (y0, x0, radius, frequency, orientation, phase, contrast) in zip(
        field, table, strict=True
    ):
        y, x = row_degrees - y0, col_degrees - x0
        # Only the bounding box of the disk is computed.
        box = np.ix_(np.abs(y) <= radius, np.abs(x) <= radius)
        y, x = y[box[0].ravel(), None], x[None, box[1].ravel()]
        angle = math.radians(orientation)
        drift = 2.0 * math.pi * frequency * (x * math.cos(angle) + y * math.sin(angle))
        t = contrast * np.sin(drift + math.radians(phase))
        inside = x**2 + y**2 <= radius**2
        image[box] = np.where(inside, np.floor((t + 1.0) / 2.0 * 255.0), GREY)
    return resize(jnp.asarray(field), display, window)


def visible(table: np.ndarray, display: Display, window: Window) -> np.ndarray:
    """Whether a grating reaches into a window, bool (N,); elsewhere the window stays grey."""
    reached = np.ones(len(table), bool)
    for column, start, count in ((0, window.top, window.height), (1, window.left, window.width)):
        degrees = _degrees(display, *source_range(display, start, count))
        centre, radius = table[:, column], table[:, 2]
        reached &= (centre + radius >= degrees[0]) & (centre - radius <= degrees[-1])
    return reached


def _degrees(display: Display, start: int, stop: int) -> np.ndarray:
    """Degrees from fixation of pixels of the field of view."""
    canvas = np.arange(start, stop) + display.field_start
    return (canvas - CANVAS_PIXELS / 2) / CANVAS_PIXELS_PER_DEGREE
