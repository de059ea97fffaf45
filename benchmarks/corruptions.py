"""Measures the corruptions and imagecorruptions: ``python -m benchmarks.corruptions``.

Prints a Markdown table with one row per corruption and its mean over the 15 common ones. The
reference works on one image at a time on the host; without it (package imagecorruptions, or its
fork imagecorruptions-imaug) its columns stay empty. Times are per image.
"""

import argparse
import dataclasses
import functools
import json
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from benchmarks import table
from benchmarks.timing import OURS, Measurement, Program, jax_program, measure
from vone_jax import corruptions

REFERENCE = "imagecorruptions"


def photographs(count: int, side: int) -> np.ndarray:
    """Smooth random images in 8 bits, (N, side, side, 3). Times hardly depend on their content."""
    rng = np.random.default_rng(0)
    images = ndimage.gaussian_filter(rng.standard_normal((count, side, side, 3)), (0, 3, 3, 0))
    return np.clip(128 + 400 * images, 0, 255).astype(np.uint8)


def ours(name: str, severity: int, images: np.ndarray, frost) -> Program:
    """One compiled call for the whole batch, its random numbers included."""
    function = functools.partial(
        corruptions.corrupt, name=name, severity=severity, table="imagenet", frost_images=frost
    )
    return jax_program(
        lambda key, images: function(key, images),
        jax.random.key(0),
        jnp.asarray(images, jnp.float32) / 255,
    )


def reference(name: str, severity: int, images: np.ndarray) -> Program:
    """A loop in Python, image by image."""
    import imagecorruptions  # pyright: ignore[reportMissingImports]

    def run():
        for image in images:
            imagecorruptions.corrupt(image, severity=severity, corruption_name=name)

    return Program(run)


def frost_photographs() -> corruptions.FrostImages | None:
    """Those that come with imagecorruptions, if it is installed."""
    try:
        import imagecorruptions  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return None
    return corruptions.load_frost(Path(imagecorruptions.__file__).parent / "frost")


def measured(
    names: Sequence[str], severity: int, images: np.ndarray, references: int, repeats: int
) -> list[Measurement]:
    """Both programs for each corruption, in turn. The reference gets ``references`` images."""
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
        for one in measure(name, 1, contenders, repeats):
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
    """One row per corruption: milliseconds per image of both, their ratio, time to compile."""
    by_case: dict[str, dict[str, Measurement]] = {}
    for one in measurements:
        by_case.setdefault(one.case, {})[one.contender] = one
    lines = [
        "| corruption | vone_jax, ms per image | imagecorruptions, ms per image | times faster "
        "| compile, s | memory, MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    common = []
    for name, pair in by_case.items():
        mine, other = pair[OURS].median, pair[REFERENCE].median if REFERENCE in pair else None
        if mine is None:
            continue
        if other is not None and name in corruptions.SETS["common"]:
            common.append((mine, other))
        memory = pair[OURS].memory
        lines.append(
            f"| {name} | {1e3 * mine:.3g} | {'' if other is None else f'{1e3 * other:.3g}'} "
            f"| {'' if other is None else f'{other / mine:.2f}'} "
            f"| {pair[OURS].compile_seconds or 0:.1f} "
            f"| {'' if memory is None else f'{memory / 1e6:.0f}'} |"
        )
    if common:
        mine, other = (sum(column) / len(common) for column in zip(*common, strict=True))
        lines.append(
            f"| mean of {len(common)} common | {1e3 * mine:.3g} | {1e3 * other:.3g} "
            f"| {other / mine:.2f} | | |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark with the given arguments; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corruptions", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only shows that it runs")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    parser.add_argument("--names", nargs="+", choices=corruptions.NAMES, default=corruptions.NAMES)
    parser.add_argument("--severity", type=int, choices=corruptions.SEVERITIES, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--reference-images", type=int, default=4, help="of the batch for the reference"
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    if options.quick:
        options.size, options.batch, options.reference_images, options.repeats = 32, 2, 1, 1
    warnings.filterwarnings("ignore", module="imagecorruptions")
    surroundings = table.environment(shlex.join(["python", "-m", "benchmarks.corruptions", *argv]))
    images = photographs(options.batch, options.size)
    references = min(options.reference_images, options.batch)
    measurements = measured(options.names, options.severity, images, references, options.repeats)
    print(
        f"`{surroundings['command']}` on {surroundings['device']} ({surroundings['processor']}, "
        f"{surroundings['cores']} cores), load average {os.getloadavg()[0]:.1f}; "
        f"{options.size} pixels, batch {options.batch}, severity {options.severity}.\n"
    )
    print(to_markdown(measurements))
    if options.json is not None:
        content = {
            "environment": surroundings,
            "options": {name: str(value) for name, value in vars(options).items()},
            "measurements": [dataclasses.asdict(one) for one in measurements],
        }
        options.json.write_text(json.dumps(content, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
