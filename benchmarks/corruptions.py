"""Measure the corruptions beside imagecorruptions: ``python -m benchmarks.corruptions``.

It prints a Markdown table. The reference (package imagecorruptions, or its fork
imagecorruptions-imaug) works on one image at a time on the host, and its loop of glass_blur is
compiled by Numba. Times are per image: by the clock, and summed over all processor cores.
"""

import argparse
import dataclasses
import functools
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from benchmarks import timing
from benchmarks.timing import OURS, Contenders, Measurement, Program
from vone_jax import corruptions

REFERENCE = "imagecorruptions"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A corruption, its severity, the side of images in pixels, and images for either program."""

    name: str
    severity: int = 3
    side: int = 224
    batch: int = 32
    reference_images: int = 4


def photographs(count: int, side: int) -> np.ndarray:
    """Return smooth random images in 8 bits, (N, side, side, 3). Content hardly affects times."""
    rng = np.random.default_rng(0)
    images = ndimage.gaussian_filter(rng.standard_normal((count, side, side, 3)), (0, 3, 3, 0))
    return np.clip(128 + 400 * images, 0, 255).astype(np.uint8)


def contenders(sizes: Sizes) -> Contenders:
    """One call for the whole batch, and a loop in Python over some of its images."""
    images = photographs(sizes.batch, sizes.side)

    def ours() -> Program:
        frost = None
        if sizes.name == "frost":
            import imagecorruptions  # pyright: ignore[reportMissingImports]

            frost = corruptions.load_frost(Path(str(imagecorruptions.__file__)).parent / "frost")
        # As users call it, outside jit, with its random numbers and the check of images.
        run = functools.partial(
            corruptions.corrupt, jax.random.key(0), jnp.asarray(images, jnp.float32) / 255,
            sizes.name, sizes.severity, table="imagenet", frost_images=frost,
        )  # fmt: skip
        return Program(lambda: jax.block_until_ready(run()), sizes.batch)

    def reference() -> Program:
        import imagecorruptions  # pyright: ignore[reportMissingImports]

        def run() -> None:
            for image in images[: sizes.reference_images]:
                imagecorruptions.corrupt(image, severity=sizes.severity, corruption_name=sizes.name)

        return Program(run, min(sizes.reference_images, sizes.batch))

    return {OURS: ours} | ({} if sizes.name == "frost_procedural" else {REFERENCE: reference})


def means(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return the mean of the medians over the common corruptions, for either program."""
    common = [m for m in measurements if m.case in corruptions.SETS["common"] and m.seconds]
    averages = []
    for contender in (OURS, REFERENCE):
        of_it = [m for m in common if m.contender == contender]
        if len(of_it) == len(corruptions.SETS["common"]):
            clock = float(np.mean([np.median(m.seconds) for m in of_it]))
            processor = float(np.mean([np.median(m.processor_seconds) for m in of_it]))
            averages.append(Measurement("mean of 15 common", contender, (clock,), (processor,)))
    return averages


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark with the given arguments and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corruptions", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Tiny sizes: show that it runs.")
    parser.add_argument("--json", type=Path, help="File for every number, as JSON.")
    parser.add_argument("--names", nargs="+", choices=corruptions.NAMES, default=corruptions.NAMES)
    parser.add_argument("--severity", type=int, choices=corruptions.SEVERITIES, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    size = (32, 2, 1) if options.quick else (options.size, options.batch, 4)
    warnings.filterwarnings("ignore", module="imagecorruptions")
    surroundings = timing.environment("benchmarks.corruptions", argv)
    measurements: list[Measurement] = []
    for name in options.names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        sizes = Sizes(name, options.severity, *size)
        repeats = 1 if options.quick else options.repeats
        measurements += timing.measure(name, contenders, sizes, repeats, apart=False)
    print(timing.to_markdown(surroundings, [*measurements, *means(measurements)]))
    if options.json is not None:
        options.json.write_text(timing.to_json(surroundings, measurements))
    return 0


if __name__ == "__main__":
    sys.exit(main())
