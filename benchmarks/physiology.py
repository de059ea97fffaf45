"""Measure the 7 scored properties of a V1 layer: ``python -m benchmarks.physiology``.

Our characterisation runs as a whole, with its compilation. It is compared with a plain version of
the procedure of the public V1 benchmarks. There, stimuli are PNG files of the whole canvas, which
Pillow reads, crops and resizes. Batches of 64 whole images go through the network, and activations
of the whole layer come back before those near the stimuli are kept. Receptive fields, properties
and bootstraps are computed one unit and one draw at a time.

The plain procedure runs on every k-th image and on some units, and its times are scaled to all of
them, since the work per image and unit is constant. Its stimuli are written and its layer is
compiled before the clock starts. Times are by the clock and of all processor cores together; on a
busy machine the latter are the better measure.
"""

import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from benchmarks import table
from benchmarks.timing import timed
from vone_jax import neurophysiology, v1
from vone_jax.neurophysiology import PROPERTIES, PUBLISHED, Display, stimuli
from vone_jax.neurophysiology.selection import receptive_field_centres
from vone_jax.neurophysiology.tuning import (
    orientation_properties,
    size_properties,
    spatial_frequency_properties,
)

BATCH = 64
CANVAS, PER_DEGREE, GREY = 672, 56, 128

# The plain procedure records units in these rows, and columns, of the map around the stimuli.
_NEAR = slice(28, 36)


def write_stimuli(table: np.ndarray, folder: Path) -> list[Path]:
    """Draw gratings on the whole canvas as PNG files; rows are those of ``GratingSet.table``."""
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
    """Return one stimulus as network input, float32 (image_size, image_size, in_channels)."""
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
    """Return the responses to the images of files, clipped at 0: (N, rows, columns, C).

    The layer takes 64 images to responses (64, H, W, C), of which the rows, and columns, ``near``
    are kept. The last batch repeats its last image.
    """
    near_stimuli = []
    for start in range(0, len(paths), BATCH):
        some = list(paths[start : start + BATCH])
        padded = some + some[-1:] * (BATCH - len(some))
        images = np.stack([read_image(path, display) for path in padded])
        whole = np.maximum(np.asarray(layer(images)), 0)
        near_stimuli.append(whole[: len(some), near, near].copy())
    return np.concatenate(near_stimuli)


def field_centres(responses: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Return centres (y, x) of receptive fields in degrees, one unit at a time.

    The responses to the 21 x 21 x 8 small gratings are (3528, U), to the blank image (U,).
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
    """Return properties from rates of shape (*shape of the set of gratings, U), unit by unit."""
    each = []
    for unit in range(len(blank)):
        one = slice(unit, unit + 1)
        each.append(
            orientation_properties(orientation[..., one], blank[one])
            | spatial_frequency_properties(frequency[..., one], blank[one])
            | size_properties(size[..., one], blank[one])
        )
    return {name: np.concatenate([values[name] for values in each]) for name in PUBLISHED}


def similarity(
    values: np.ndarray, name: str, generator: np.random.Generator, bootstraps: int
) -> float:
    """Return the mean similarity to the published neurons of a property, one draw at a time.

    The values of the property are (U,), NaN if undefined.
    """
    edges, reference = PROPERTIES[name].edges, PUBLISHED[name]
    neurons = np.cumsum(reference.counts) / reference.counts.sum()
    most = max(1 - neurons[0], neurons[-2])
    similarities = []
    for _ in range(bootstraps):
        drawn = generator.choice(values, reference.neurons)
        drawn = np.clip(drawn[~np.isnan(drawn)], edges[0], edges[-1])
        counts = np.histogram(drawn, edges)[0]
        similarities.append(1 - np.abs(np.cumsum(counts) / counts.sum() - neurons).max() / most)
    return float(np.mean(similarities))


def reference_values(name: str) -> np.ndarray:
    """Return the neurons of a published property, each in the middle of its bin."""
    edges, reference = PROPERTIES[name].edges, PUBLISHED[name]
    middles = (edges[1:] + edges[:-1]) / 2
    known = np.repeat(middles, reference.counts.astype(int))
    return np.concatenate([known, np.full(reference.undefined, np.nan)])


def gratings() -> np.ndarray:
    """Return all 9096 gratings; rows are those of ``GratingSet.table``."""
    return np.concatenate([one.table for one in stimuli.all_sets()])


def block(channels: int) -> v1.VOneBlockConfig:
    """Return the published block without noise, with half of the channels simple."""
    half = channels // 2
    return v1.VOneBlockConfig(simple_channels=half, complex_channels=half, noise=None)


def ours(config: v1.VOneBlockConfig) -> tuple[tuple[float, float], int]:
    """Return the seconds of a whole characterisation, (2,), and its number of units."""
    seconds, scores = timed(
        lambda: neurophysiology.score(lambda key, images: v1.noise_free_responses(config, images))
    )
    return seconds, len(scores.units["channel"])


def theirs(
    config: v1.VOneBlockConfig, images: int, units: int, bootstraps: int
) -> dict[str, np.ndarray]:
    """Return seconds of the plain procedure per image, mapped unit, scored unit and bootstraps.

    The images are gratings, spread over all sets; the units are mapped and characterised.
    """
    display = Display()
    every = gratings()
    some = every[np.linspace(0, len(every) - 1, images).astype(int)]
    layer = jax.jit(lambda images: v1.noise_free_responses(config, images))
    shape = (BATCH, display.image_size, display.image_size, display.in_channels)
    jax.block_until_ready(layer(np.zeros(shape, np.float32)))
    with tempfile.TemporaryDirectory() as folder:
        paths = write_stimuli(some, Path(folder))
        shown, _ = timed(lambda: activations(layer, paths, display, _NEAR))
    generator = np.random.default_rng(0)

    def rates(shape: tuple[int, ...]) -> np.ndarray:
        return generator.gamma(2.0, 10.0, (*shape, units)).astype(np.float32)

    blank = rates(())
    positions, *others = stimuli.all_sets()
    fields = rates((len(positions),))
    orientation, frequency, size = (rates(one.shape) for one in others)
    mapped, _ = timed(lambda: field_centres(fields, blank))
    scored, values = timed(lambda: properties(orientation, frequency, size, blank))

    def bootstrap() -> None:
        for name in PUBLISHED:
            for drawn in (values[name], reference_values(name)):
                similarity(drawn, name, generator, bootstraps)

    return {
        "image": np.array(shown) / images,
        "mapped unit": np.array(mapped) / units,
        "scored unit": np.array(scored) / units,
        "bootstraps": np.array(timed(bootstrap)[0]),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark with the given arguments and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = table.parser("benchmarks.physiology", __doc__)
    parser.add_argument("--channels", type=table.at_least(1), default=512)
    parser.add_argument(
        "--images", type=table.at_least(1), default=256,
        help="Gratings for the plain procedure, of 9096. Default: 256.",
    )  # fmt: skip
    parser.add_argument(
        "--units", type=table.at_least(1), default=100,
        help="Units for the plain procedure. Default: 100.",
    )  # fmt: skip
    options = parser.parse_args(argv)
    bootstraps = 1000
    if options.quick:
        options.channels, options.images, options.units, bootstraps = 32, 3, 3, 2
    surroundings = table.environment("benchmarks.physiology", argv)
    config = block(options.channels)
    seconds, scored = ours(config)
    parts = theirs(config, options.images, options.units, bootstraps)
    # The grey image is one more.
    images = len(gratings()) + 1
    mapped = (_NEAR.stop - _NEAR.start) ** 2 * options.channels
    rows = {
        f"vone_jax, whole, {scored} units": np.array(seconds),
        f"plain: {images} images": images * parts["image"],
        f"plain: receptive fields of {mapped} units": mapped * parts["mapped unit"],
        f"plain: properties of {scored} units": scored * parts["scored unit"],
        "plain: bootstraps": parts["bootstraps"],
    }
    rows["plain, together"] = sum(list(rows.values())[1:], np.zeros(2))
    ratio = rows["plain, together"] / seconds
    print(f"{table.heading(surroundings)}\n")
    lines = ([name, *(f"{one:.1f}" for one in times)] for name, times in rows.items())
    print(table.markdown(["program", "seconds", "processor, seconds"], lines))
    print(f"\nPlain over vone_jax: {ratio[0]:.1f}, in processor time {ratio[1]:.1f}.")
    if options.json is not None:
        content = table.to_json(
            surroundings,
            options,
            seconds={name: row.tolist() for name, row in rows.items()},
            plain_seconds_per={name: part.tolist() for name, part in parts.items()},
            ratio=ratio.tolist(),
        )
        options.json.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
