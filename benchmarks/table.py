"""Measurements as Markdown and JSON, with the machine and the versions that made them."""

import argparse
import dataclasses
import json
import os
import platform
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.timing import Measurement, ratios
from vone_jax.training.run import versions

_PACKAGES = (
    "python", "vone_jax", "jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchvision",
    "torchattacks", "foolbox", "pyautoattack",
)  # fmt: skip
_COLUMNS = (
    "case", "program", "ms per image, median", "best", "time over vone_jax",
    "processor, ms per image", "compile, s", "memory, MB", "resisting",
)  # fmt: skip


def at_least(least: int) -> Callable[[str], int]:
    """Return a type of options for argparse: integers from ``least`` on."""

    def integer(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return int(text)

    return integer


def new_file(text: str) -> Path:
    """A type of options for argparse: a file in a directory that exists."""
    if not Path(text).parent.is_dir():
        raise argparse.ArgumentTypeError(f"the directory of {text} does not exist; make it first")
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a directory; name a file in it")
    return Path(text)


def parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="Tiny sizes: show that it runs.")
    parser.add_argument("--json", type=new_file, help="File for every number, as JSON.")
    return parser


def environment(command: str, argv: Sequence[str]) -> dict[str, Any]:
    """Return the command, the machine, its devices and load, and the versions of packages."""
    return {
        "command": shlex.join(["python", "-m", command, *argv]),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "platform": jax.default_backend(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "versions": dict.fromkeys(_PACKAGES, "not installed") | versions(_PACKAGES),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.split(":")[1].strip() for line in info if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def heading(surroundings: dict[str, Any], rest: str = "") -> str:
    """Return a line with the command, the machine and its load, for the top of a table."""
    load = surroundings["load"]
    return (
        f"`{surroundings['command']}` on {surroundings['device']} ({surroundings['processor']}, "
        f"{surroundings['cores']} cores){rest}. "
        f"Load average at the start: {'unknown' if load is None else f'{load:.1f}'}."
    )


def to_json(surroundings: dict[str, Any], options: Any, **content: Any) -> str:
    """Return everything that was measured, with the machine and the options of the command."""
    texts = {name: str(value) for name, value in vars(options).items()}
    result = {"environment": surroundings, "options": texts, **content}
    return json.dumps(result, indent=1, allow_nan=False)


def rows_of(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return the measurements as dictionaries, with every timed call and the ratio to ours."""
    return [
        dataclasses.asdict(m) | {"over_ours": ratio}
        for m, ratio in zip(measurements, ratios(measurements), strict=True)
    ]


def to_markdown(surroundings: dict[str, Any], measurements: Sequence[Measurement]) -> str:
    """Return a table with one row per case and contender, below its heading."""
    versions = ", ".join(f"{name} {version}" for name, version in surroundings["versions"].items())
    rows = []
    for m, ratio in zip(measurements, ratios(measurements), strict=True):
        if m.median is None:
            cells = ["not installed", *[""] * 6]
        else:
            cells = [
                f"{1e3 * m.median:.4g}",
                f"{1e3 * min(m.seconds):.4g}",
                f"{ratio:.2f}" if ratio is not None else "",
                f"{1e3 * min(m.processor_seconds):.4g}",
                f"{m.compile_seconds:.1f}" if m.compile_seconds else "",
                f"{m.memory / 1e6:.0f}" if m.memory is not None else "",
                f"{m.resisting} of {m.images}" if m.resisting is not None else "",
            ]
        rows.append([m.case, m.contender, *cells])
    return f"{heading(surroundings, f', {versions}')}\n\n{markdown(_COLUMNS, rows, left=2)}"


def line(cells: Iterable[str]) -> str:
    """Return a line of a Markdown table."""
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def markdown(header: Sequence[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
    """Return a Markdown table. The first ``left`` columns are aligned at the left, others right."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join(map(line, (header, rule, *rows)))
