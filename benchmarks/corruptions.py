"""Measure the corruptions beside imagecorruptions: ``python -m benchmarks.corruptions``.

It prints a Markdown table with one row per corruption and the mean over the 15 common ones. The
reference (package imagecorruptions, or its fork imagecorruptions-imaug) works on one image at a
time on the host; if it is not installed, its columns stay empty. Its loop of glass_blur is compiled
by Numba. ImageNet-C's own loop is in Python and has a row as well. Times are per image: by the
clock, and summed over all processor cores.
"""

import dataclasses
import functools
import os
import statistics
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from benchmarks import table
from benchmarks.timing import OURS, Case, Measurement, Program, jax_program, measure
from vone_jax import corruptions
from vone_jax.corruptions import tables

REFERENCE = "imagecorruptions"
LOOP = "loop in Python"
_COLUMNS = (
    "corruption", "vone_jax, ms", "reference, ms", "times faster", "vone_jax, processor ms",
    "reference, processor ms", "times less", "compile, s", "memory, MB",
)  # fmt: skip


def photographs(count: int, side: int) -> np.ndarray:
    """Return smooth random images in 8 bits, (N, side, side, 3). Content hardly affects times."""
    rng = np.random.default_rng(0)
    images = ndimage.gaussian_filter(rng.standard_normal((count, side, side, 3)), (0, 3, 3, 0))
    return np.clip(128 + 400 * images, 0, 255).astype(np.uint8)


def ours(
    name: str, severity: int, images: np.ndarray, frost: corruptions.FrostImages | None
) -> Program:
    """Build one call for the whole batch, with its random numbers and the check of images."""
    function = functools.partial(
        corruptions.corrupt, name=name, severity=severity, table="imagenet", frost_images=frost
    )
    arguments = jax.random.key(0), jnp.asarray(images, jnp.float32) / 255
    # Compiled as a whole for its memory, but called as users call it, outside jit.
    program = jax_program(lambda key, images: function(key, images), *arguments)
    return dataclasses.replace(program, run=lambda: jax.block_until_ready(function(*arguments)))


def reference(name: str, severity: int, images: np.ndarray) -> Program:
    """Build a loop in Python over images."""
    import imagecorruptions  # pyright: ignore[reportMissingImports]

    def run():
        for image in images:
            imagecorruptions.corrupt(image, severity=severity, corruption_name=name)

    return Program(run)


def glass_blur_in_python(severity: int, images: np.ndarray) -> Program:
    """Build glass_blur from its definition, as a loop over pixels in Python."""
    deviation, reach, passes = tables.PARAMETERS["glass_blur"]["imagenet"][severity - 1]

    def smooth(image):
        return ndimage.gaussian_filter(image, (deviation, deviation, 0), mode="nearest", truncate=4)

    def corrupted(image):
        values = (255 * smooth(image / 255.0)).astype(np.uint8)
        height, width = image.shape[:2]
        for _ in range(passes):
            for y in range(height - reach, reach, -1):
                for x in range(width - reach, reach, -1):
                    right, down = np.random.randint(-reach, reach, size=(2,))  # noqa: NPY002
                    values[y, x] = values[y + down, x + right]
        return 255 * np.clip(smooth(values / 255.0), 0, 1)

    return Program(lambda: [corrupted(image) for image in images])


def frost_photographs() -> corruptions.FrostImages | None:
    """Return the frost images of imagecorruptions, or None if it is not installed."""
    try:
        import imagecorruptions  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return None
    return corruptions.load_frost(Path(imagecorruptions.__file__).parent / "frost")


def measured(
    names: Sequence[str], severity: int, images: np.ndarray, references: int, repeats: int
) -> list[Measurement]:
    """Time both programs for each corruption in turn, the reference on ``references`` images."""
    frost = frost_photographs()
    measurements = []
    for name in names:
        if name == "frost" and frost is None:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        contenders = {OURS: functools.partial(ours, name, severity, images, frost)}
        if name != "frost_procedural":
            contenders[REFERENCE] = functools.partial(
                reference, name, severity, images[:references]
            )
        if name == "glass_blur":
            contenders[LOOP] = functools.partial(
                glass_blur_in_python, severity, images[:references]
            )
        for one in measure(Case(name, 1, contenders, repeats)):
            count = len(images) if one.contender == OURS else references
            measurements.append(
                dataclasses.replace(
                    one,
                    seconds=tuple(seconds / count for seconds in one.seconds),
                    processor_seconds=tuple(s / count for s in one.processor_seconds),
                )
            )
    return measurements


def to_markdown(measurements: Sequence[Measurement]) -> str:
    """Return a row per corruption and reference, and rows with means over common corruptions.

    Times are medians in milliseconds per image, by the clock and of processor cores, with ratios.
    """
    by_case: dict[str, dict[str, Measurement]] = {}
    for one in measurements:
        if one.seconds:
            by_case.setdefault(one.case, {})[one.contender] = one
    lines: list[list[str]] = []
    # Milliseconds of both programs: by the clock, then of processor cores.
    common, with_loop = [], []
    for name, programs in by_case.items():
        mine = programs.pop(OURS)
        memory = "" if mine.memory is None else f"{mine.memory / 1e6:.0f}"
        last = [f"{mine.compile_seconds or 0:.1f}", memory]
        if not programs:
            lines.append([name, f"{1e3 * _medians(mine)[0]:.3g}", *[""] * 5, *last])
        for contender, other in programs.items():
            pairs = tuple(zip(_medians(mine), _medians(other), strict=True))
            label = name if contender == REFERENCE else f"{name}, {contender}"
            lines.append([label, *_cells(pairs), *last])
            if name in corruptions.SETS["common"]:
                if contender == REFERENCE:
                    common.append(pairs)
                if contender == LOOP or LOOP not in programs:
                    with_loop.append(pairs)
    for rows, label in ((common, "common"), (with_loop, f"common, glass_blur as a {LOOP}")):
        if rows:
            lines.append([f"mean of {len(rows)} {label}", *_cells(np.mean(rows, axis=0)), "", ""])
    return table.markdown(_COLUMNS, lines)


def _medians(one: Measurement) -> tuple[float, float]:
    return statistics.median(one.seconds), statistics.median(one.processor_seconds)


def _cells(pairs: Any) -> Iterator[str]:
    """Format (ours, other) seconds by the clock and of processor cores, each with its ratio."""
    for mine, other in pairs:
        yield from (f"{1e3 * mine:.3g}", f"{1e3 * other:.3g}", f"{other / mine:.2f}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark with the given arguments and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = table.parser("benchmarks.corruptions", __doc__)
    parser.add_argument("--names", nargs="+", choices=corruptions.NAMES, default=corruptions.NAMES)
    parser.add_argument("--severity", type=int, choices=corruptions.SEVERITIES, default=3)
    parser.add_argument("--size", type=table.at_least(1), default=224)
    parser.add_argument("--batch", type=table.at_least(1), default=32)
    parser.add_argument(
        "--reference-images", type=table.at_least(1), default=4, help="Images for the reference."
    )
    parser.add_argument("--repeats", type=table.at_least(1), default=5)
    options = parser.parse_args(argv)
    if options.quick:
        options.size, options.batch, options.reference_images, options.repeats = 32, 2, 1, 1
    warnings.filterwarnings("ignore", module="imagecorruptions")
    surroundings = table.environment("benchmarks.corruptions", argv)
    images = photographs(options.batch, options.size)
    references = min(options.reference_images, options.batch)
    measurements = measured(options.names, options.severity, images, references, options.repeats)
    sizes = f"; {options.size} pixels, batch {options.batch}, severity {options.severity}"
    print(f"{table.heading(surroundings, sizes)} At the end: {os.getloadavg()[0]:.1f}.\n")
    print(to_markdown(measurements))
    if options.json is not None:
        rows = [dataclasses.asdict(one) for one in measurements]
        options.json.write_text(table.to_json(surroundings, options, measurements=rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
