"""Measurements as a Markdown table and as JSON, with all that they depend on."""

import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from typing import Any

import jax

from benchmarks.sizes import Sizes
from benchmarks.timing import Measurement, ratios

_PACKAGES = (
    "vone-jax", "jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchvision",
    "torchattacks", "foolbox", "pyautoattack",
)  # fmt: skip


def environment(command: str) -> dict[str, Any]:
    """Machine, devices, versions, and how busy the machine is at this moment."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": command,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "platform": jax.default_backend(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.split(":")[1].strip() for line in info if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def to_json(surroundings: dict[str, Any], sizes: Sizes, measurements: Sequence[Measurement]) -> str:
    """Everything that was measured, every timed call included."""
    result = {
        "environment": surroundings,
        "sizes": {
            field.name: str(getattr(sizes, field.name)) for field in dataclasses.fields(sizes)
        },
        "measurements": [
            dataclasses.asdict(m) | {"over_ours": ratio}
            for m, ratio in zip(measurements, ratios(measurements), strict=True)
        ],
    }
    return json.dumps(result, indent=1, allow_nan=False)


def to_markdown(surroundings: dict[str, Any], measurements: Sequence[Measurement]) -> str:
    """A table with one row per case and contender, below a line that says where it was made."""
    versions = ", ".join(f"{name} {version}" for name, version in surroundings["versions"].items())
    load = surroundings["load"]
    lines = [
        f"`{surroundings['command']}` on {surroundings['device']} ({surroundings['processor']}, "
        f"{surroundings['cores']} cores), Python {surroundings['python']}, {versions}. "
        f"Load average at the start: {'unknown' if load is None else f'{load:.1f}'}.",
        "",
        "| case | program | ms per image, median | best | time over vone_jax "
        "| processor, ms per image | compile, s | memory, MB | resisting |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
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
        lines.append(f"| {m.case} | {m.contender} | {' | '.join(cells)} |")
    return "\n".join(lines)
