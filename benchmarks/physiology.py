"""Measures the 7 scored properties of a V1 layer: ``python -m benchmarks.physiology``.

Our characterisation runs whole, compilation included. The plain one (``plain_physiology``) runs
on every k-th image and on some units, and its parts are scaled to all images and units: nothing
in it depends on how many there are. Its stimuli lie ready as files, its layer is compiled before
the clock starts. Times are of the clock and of processor cores, all threads together; where
others use the machine, the latter say more.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import plain_physiology as plain
from benchmarks import table
from vone_jax import neurophysiology, v1
from vone_jax.neurophysiology import PUBLISHED, stimuli

# Rows, and columns, of the map around the stimuli whose units the plain way records.
_NEAR = slice(28, 36)


def block(channels: int) -> v1.VOneBlockConfig:
    """The published block without noise, with half of the channels simple."""
    half = channels // 2
    return v1.VOneBlockConfig(simple_channels=half, complex_channels=half, noise=None)


def timed(run: Callable[[], Any]) -> tuple[np.ndarray, Any]:
    """Seconds of the clock and of processor cores, (2,), and what ``run`` returns."""
    start, processor = time.perf_counter(), time.process_time()
    result = run()
    return np.array([time.perf_counter() - start, time.process_time() - processor]), result


def ours(config: v1.VOneBlockConfig) -> tuple[np.ndarray, int]:
    """Seconds of a whole characterisation, as ``timed``, and its units."""
    seconds, scores = timed(
        lambda: neurophysiology.score(lambda key, images: v1.noise_free_responses(config, images))
    )
    return seconds, len(scores.units["channel"])


def theirs(
    config: v1.VOneBlockConfig, images: int, units: int, bootstraps: int
) -> dict[str, np.ndarray]:
    """Seconds of the plain way: per image, per mapped unit, per scored unit, and of bootstraps.

    Args:
      config: of the layer.
      images: how many of the gratings are shown, spread over all sets.
      units: how many units are mapped and characterised.
      bootstraps: of each property.
    """
    display = neurophysiology.Display()
    every = plain.gratings()
    some = every[np.linspace(0, len(every) - 1, images).astype(int)]
    layer = jax.jit(lambda images: v1.noise_free_responses(config, images))
    shape = (plain.BATCH, display.image_size, display.image_size, display.in_channels)
    jax.block_until_ready(layer(np.zeros(shape, np.float32)))
    with tempfile.TemporaryDirectory() as folder:
        paths = plain.write_stimuli(some, Path(folder))
        shown, _ = timed(lambda: plain.activations(layer, paths, display, _NEAR))
    generator = np.random.default_rng(0)

    def rates(shape: tuple[int, ...]) -> np.ndarray:
        return generator.gamma(2.0, 10.0, (*shape, units)).astype(np.float32)

    blank = rates(())
    fields = rates((len(stimuli.receptive_field_set()),))
    sets = (stimuli.orientation_set(), stimuli.spatial_frequency_set(), stimuli.size_set())
    orientation, frequency, size = (rates(one.shape) for one in sets)
    mapped, _ = timed(lambda: plain.field_centres(fields, blank))
    scored, values = timed(lambda: plain.properties(orientation, frequency, size, blank))

    def bootstrap() -> None:
        for name in PUBLISHED:
            for drawn in (values[name], plain.reference_values(name)):
                plain.similarity(drawn, name, generator, bootstraps)

    return {
        "image": shown / images,
        "mapped unit": mapped / units,
        "scored unit": scored / units,
        "bootstraps": timed(bootstrap)[0],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with the given arguments; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.physiology", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only shows that it runs")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--images", type=int, default=256, help="of 9096, for the plain way")
    parser.add_argument("--units", type=int, default=100, help="for the plain way")
    options = parser.parse_args(argv)
    bootstraps = 1000
    if options.quick:
        options.channels, options.images, options.units, bootstraps = 32, 3, 3, 2
    surroundings = table.environment(shlex.join(["python", "-m", "benchmarks.physiology", *argv]))
    config = block(options.channels)
    seconds, scored = ours(config)
    parts = theirs(config, options.images, options.units, bootstraps)
    # The grey image is one more.
    images = len(plain.gratings()) + 1
    mapped = (_NEAR.stop - _NEAR.start) ** 2 * options.channels
    rows = {
        f"vone_jax, whole, {scored} units": seconds,
        f"plain: {images} images": images * parts["image"],
        f"plain: receptive fields of {mapped} units": mapped * parts["mapped unit"],
        f"plain: properties of {scored} units": scored * parts["scored unit"],
        "plain: bootstraps": parts["bootstraps"],
    }
    rows["plain, together"] = sum(list(rows.values())[1:], np.zeros(2))
    ratio = rows["plain, together"] / seconds
    print(
        f"`{surroundings['command']}` on {surroundings['device']} ({surroundings['processor']}, "
        f"{surroundings['cores']} cores), load average {os.getloadavg()[0]:.1f}.\n"
    )
    print("| program | seconds | processor, seconds |\n|---|---:|---:|")
    for name, (clock, processor) in rows.items():
        print(f"| {name} | {clock:.1f} | {processor:.1f} |")
    print(f"\nPlain over vone_jax: {ratio[0]:.1f}, in processor time {ratio[1]:.1f}.")
    if options.json is not None:
        content = {
            "environment": surroundings,
            "options": {name: str(value) for name, value in vars(options).items()},
            "seconds": {name: row.tolist() for name, row in rows.items()},
            "plain_seconds_per": {name: part.tolist() for name, part in parts.items()},
            "ratio": ratio.tolist(),
        }
        options.json.write_text(json.dumps(content, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
