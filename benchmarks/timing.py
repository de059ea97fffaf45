"""Times programs in turn, each in a process of its own, and prints a table.

They run in turn, so that other work on the machine affects all programs alike. They run in separate
processes, because the memory that one program keeps changes the times of others in its process.
All of them keep the memory that they free, as train.py and eval.py do.
"""

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import platform
import shlex
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib import metadata
from typing import Any

import jax

from vone_jax import fast

# The name of the programs that the others are compared with.
OURS = "vone_jax"
# Seconds between two calls. PyTorch's threads wait busily for a fifth of a second after their work
# and would take a core from the next program.
_SETTLING = 0.5
_PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchvision", "torchattacks", "foolbox",
    "pyautoattack",
)  # fmt: skip
_COLUMNS = (
    "case", "program", "ms per image, median", "best", "time over vone_jax",
    "processor, ms per image", "over vone_jax", "compile, s", "resisting",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Program:
    """A program to time.

    Attributes:
      run: does the work once and returns when it is finished.
      resisting: for an attack, counts the images that are still classified right in its result.
      images: number of images per call.
    """

    run: Callable[[], Any]
    images: int
    resisting: Callable[[Any], int] | None = None


# For each name, a function that builds the program. A ModuleNotFoundError means that a library is
# not installed.
Contenders = Mapping[str, Callable[[], Program]]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The times of one contender in one case.

    Attributes:
      case: the work, in words.
      contender: name of the program.
      seconds: time of each timed call, per image; empty if the contender is not installed.
      processor_seconds: time of all processor cores together, per image. It is the better measure
        on a busy CPU. Threads that wait busily count.
      compile_seconds: the extra time of the first call.
      resisting: see ``Program``; out of ``images``.
      images: number of images per call.
    """

    case: str
    contender: str
    seconds: tuple[float, ...] = ()
    processor_seconds: tuple[float, ...] = ()
    compile_seconds: float = 0.0
    resisting: int | None = None
    images: int = 0


def measure(
    case: str,
    contenders_of: Callable[[Any], Contenders],
    sizes: Any,
    repeats: int,
    apart: bool = True,
) -> list[Measurement]:
    """Call every contender once to warm up, then time all of them in turn.

    Args:
      case: the work, in words.
      contenders_of: a function of ``sizes`` that a new process can import.
      sizes: a frozen dataclass.
      repeats: number of timed calls of each program.
      apart: run each program in a process of its own; else all in this one.
    """
    measurements = []
    with contextlib.ExitStack() as stack:
        workers, times = {}, {}
        for name in contenders_of(sizes):
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(1, context) if apart else ThreadPoolExecutor(1)
            stack.enter_context(pool)
            try:
                times[name] = [pool.submit(_timed, contenders_of, sizes, name).result()]
                workers[name] = pool
            except ModuleNotFoundError:
                measurements.append(Measurement(case, name))
        for _ in range(repeats):
            for name, pool in workers.items():
                time.sleep(_SETTLING if apart else 0.0)
                times[name].append(pool.submit(_timed, contenders_of, sizes, name).result())
        for name, pool in workers.items():
            images, resisting = pool.submit(_outcome, contenders_of, sizes, name).result()
            first, *timed = [[part / images for part in call] for call in times[name]]
            clock, processor = map(tuple, zip(*timed, strict=True))
            warmup = max(0.0, images * (first[0] - statistics.median(clock)))
            measurements.append(
                Measurement(case, name, clock, processor, warmup, resisting, images)
            )
    return measurements


@functools.cache
def _built(contenders_of: Callable, sizes: Any, name: str) -> tuple[Program, list[Any]]:
    """A program in the process that runs it, and a place for its result."""
    fast.use_all_cores()
    fast.keep_memory()
    return contenders_of(sizes)[name](), []


def _timed(contenders_of: Callable, sizes: Any, name: str) -> tuple[float, float]:
    """Call a program once; return seconds by the clock and of all processor cores."""
    # Full float32 precision, on a GPU as well. Every call takes the same key.
    with jax.default_matmul_precision("highest"), jax.debug_key_reuse(False):
        program, results = _built(contenders_of, sizes, name)
        start, processor = time.perf_counter(), time.process_time()
        result = program.run()
        seconds = time.perf_counter() - start, time.process_time() - processor
    results[:] = [result]
    return seconds


def _outcome(contenders_of: Callable, sizes: Any, name: str) -> tuple[int, int | None]:
    """Return the number of images of a program, and how many resist."""
    program, (result,) = _built(contenders_of, sizes, name)
    return program.images, program.resisting and program.resisting(result)


def jax_program(function: Callable[..., Any], *arguments: Any, images: int) -> Program:
    """A function of arrays, which is compiled in its first call."""
    jitted = jax.jit(function)
    return Program(lambda: jax.block_until_ready(jitted(*arguments)), images)


def environment(command: str, argv: Sequence[str]) -> dict[str, Any]:
    """Return the command, the machine, its devices and load, and the versions of packages."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as info:
        processor = next(line.split(":")[1].strip() for line in info if "model name" in line)
    return {
        "command": shlex.join(["python", "-m", command, *argv]),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processor": f"{processor}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "versions": versions,
    }


def to_json(surroundings: dict[str, Any], measurements: Sequence[Measurement]) -> str:
    """Return every timed call, with the machine and the versions."""
    rows = [dataclasses.asdict(each) for each in measurements]
    return json.dumps({"environment": surroundings, "measurements": rows}, indent=1)


def to_markdown(surroundings: dict[str, Any], measurements: Sequence[Measurement]) -> str:
    """Return a table with one row per case and contender, below a line about the machine."""
    ours = {m.case: m for m in measurements if m.contender == OURS}
    rows = []
    for m in measurements:
        cells = ["not installed"]
        if m.seconds:
            mine = ours.get(m.case, m)
            clock, processor = map(statistics.median, (m.seconds, m.processor_seconds))
            cells = [
                f"{1e3 * clock:.4g}",
                f"{1e3 * min(m.seconds):.4g}",
                f"{clock / statistics.median(mine.seconds):.2f}",
                f"{1e3 * processor:.4g}",
                f"{processor / statistics.median(mine.processor_seconds):.2f}",
                f"{m.compile_seconds:.1f}",
                "" if m.resisting is None else f"{m.resisting} of {m.images}",
            ]
        rows.append([m.case, m.contender, *cells])
    versions = ", ".join(f"{name} {version}" for name, version in surroundings["versions"].items())
    heading = (
        f"`{surroundings['command']}` on {surroundings['device']} ({surroundings['processor']}), "
        f"{versions}. Load average at the start: {surroundings['load']:.1f}."
    )
    return f"{heading}\n\n{markdown(_COLUMNS, rows, left=2)}"


def markdown(header: Sequence[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
    """Return a Markdown table. The first ``left`` columns are aligned at the left, others right."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    lines = (header, rule, *rows)
    return "\n".join("|" + "".join(f" {cell} |" for cell in line) for line in lines)
