"""The procedure of the public V1 benchmarks written plainly, to be timed beside this project's.

Stimuli are PNG files of the whole canvas. Each is read, cut to the field of view and resized by
Pillow; batches of 64 whole images go through the network, and the activations of the whole layer
come back before those near the stimuli are kept. Receptive fields, properties and bootstraps are
computed one unit and one draw at a time.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vone_jax.neurophysiology import PROPERTIES, PUBLISHED, Display, stimuli
from vone_jax.neurophysiology.selection import receptive_field_centres
from vone_jax.neurophysiology.tuning import (
    orientation_properties,
    size_properties,
    spatial_frequency_properties,
)

BATCH = 64
CANVAS, PER_DEGREE, GREY = 672, 56, 128


def write_stimuli(table: np.ndarray, folder: Path) -> list[Path]:
    """Draws gratings on the whole canvas, as PNG files; rows as in ``GratingSet.table``."""
    degrees = (np.arange(CANVAS) - CANVAS / 2) / PER_DEGREE
    paths = []
    for number, grating in enumerate(table):
        y0, x0, radius, frequency, orientation, phase, contrast = grating
        y, x = (degrees - y0)[:, None], (degrees - x0)[None, :]
        angle = math.radians(orientation)
        drift = 2 * math.pi * frequency * (x * math.cos(angle) + y * math.sin(angle))
        t = contrast * np.sin(drift + math.radians(phase))
        values = np.where(x**2 + y**2 <= radius**2, np.floor((t + 1) / 2 * 255), GREY)
        paths.append(folder / f"{number:05d}.png")
        Image.fromarray(values.astype(np.uint8)).save(paths[-1])
    return paths


def read_image(path: Path, display: Display) -> np.ndarray:
    """One stimulus as the network sees it, float32 (image_size, image_size, in_channels)."""
    start, side = display.field_start, display.field_pixels
    with Image.open(path) as canvas:
        field = canvas.crop((start, start, start + side, start + side))
    small = field.resize((display.image_size, display.image_size), Image.Resampling.BILINEAR)
    grey = np.asarray(small, np.float32) / 255
    return np.repeat(grey[..., None], display.in_channels, axis=-1)


def activations(
    layer: Callable[[np.ndarray], np.ndarray],
    paths: Sequence[Path],
    display: Display,
    near: slice,
) -> np.ndarray:
    """Responses to all images, clipped at 0.

    Args:
      layer: from 64 images to responses (64, H, W, C); the last batch repeats its last image.
      paths: of the images.
      display: what the network sees.
      near: rows, and columns, of the map that are kept.

    Returns:
      (N, rows, columns, C).
    """
    found = []
    for start in range(0, len(paths), BATCH):
        some = list(paths[start : start + BATCH])
        padded = some + some[-1:] * (BATCH - len(some))
        images = np.stack([read_image(path, display) for path in padded])
        whole = np.maximum(np.asarray(layer(images)), 0)
        found.append(whole[: len(some), near, near].copy())
    return np.concatenate(found)


def field_centres(responses: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Centres (y, x) of receptive fields in degrees, one unit at a time.

    Args:
      responses: to the 21 x 21 x 8 small gratings, (3528, U).
      blank: (U,).
    """
    centres = []
    for unit in range(responses.shape[1]):
        best = responses[:, unit].reshape(21, 21, 8).max(axis=-1)
        field = np.maximum(best - blank[unit], 0)
        centres.append(receptive_field_centres(field[..., None])[0])
    return np.array(centres)


def properties(
    orientation: np.ndarray, frequency: np.ndarray, size: np.ndarray, blank: np.ndarray
) -> dict[str, np.ndarray]:
    """Properties from rates to the three sets of gratings, (*shape of the set, U), unit by unit."""
    each = []
    for unit in range(len(blank)):
        one = slice(unit, unit + 1)
        each.append(
            orientation_properties(orientation[..., one], blank[one])
            | spatial_frequency_properties(frequency[..., one], blank[one])
            | size_properties(size[..., one], blank[one])
        )
    return {name: np.concatenate([found[name] for found in each]) for name in PUBLISHED}


def similarity(
    values: np.ndarray, name: str, generator: np.random.Generator, bootstraps: int
) -> float:
    """Mean similarity of units to the published neurons, draw by draw.

    Args:
      values: (U,) of the property ``name``, NaN where undefined.
      name: one of the 7 published properties.
      generator: of the draws.
      bootstraps: number of draws.
    """
    edges, reference = PROPERTIES[name].edges, PUBLISHED[name]
    neurons = np.cumsum(reference.counts) / reference.counts.sum()
    most = max(1 - neurons[0], neurons[-2])
    found = []
    for _ in range(bootstraps):
        drawn = generator.choice(values, reference.neurons)
        drawn = np.clip(drawn[~np.isnan(drawn)], edges[0], edges[-1])
        counts = np.histogram(drawn, edges)[0]
        found.append(1 - np.abs(np.cumsum(counts) / counts.sum() - neurons).max() / most)
    return float(np.mean(found))


def reference_values(name: str) -> np.ndarray:
    """The neurons of a published property, each in the middle of its bin."""
    edges, reference = PROPERTIES[name].edges, PUBLISHED[name]
    middles = (edges[1:] + edges[:-1]) / 2
    known = np.repeat(middles, reference.counts.astype(int))
    return np.concatenate([known, np.full(reference.undefined, np.nan)])


def gratings() -> np.ndarray:
    """All 9096 gratings, rows as in ``GratingSet.table``."""
    sets = (
        stimuli.receptive_field_set(),
        stimuli.orientation_set(),
        stimuli.spatial_frequency_set(),
        stimuli.size_set(),
    )
    return np.concatenate([one.table for one in sets])
