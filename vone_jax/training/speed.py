"""The speed of a training: images per second, the time that is spent waiting, and a profile.

References for the rates of chips, dense operations in bfloat16:
  Cloud TPU documentation, system architecture of each version (v2 and v3 per core, which is what
    JAX calls a device; the others per chip).
  NVIDIA data sheets of V100 (in float16), A100, H100 and H200.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from vone_jax import fast

# ``jax.Device.device_kind`` -> floating-point operations per second. The first that is part of the
# name counts.
PEAKS = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
    "V100": 125e12,
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
}
# Names of the numbers of ``Speed.take``, all of which depend on the clock.
RATES = (
    "examples_per_second", "examples_per_second_per_chip", "step_seconds", "waiting_seconds",
    "share_of_peak",
)  # fmt: skip
# Steps in a profile.
PROFILED = 10


def peak(kind: str) -> float | None:
    """Return the operations per second of a device of a kind; None for an unknown one."""
    return next((rate for name, rate in PEAKS.items() if name in kind), None)


def operations(train_step: Any, *arguments: Any) -> float | None:
    """Return the floating-point operations of a step, where XLA counts them.

    It counts the body of a loop once, such as that of an attack or of the parts of a batch.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
    step, options = getattr(train_step, "func", train_step), getattr(train_step, "keywords", {})
    traced = step.trace(*shapes, **options)
    if fast.has_products_in_loops(traced):
        return None
    return (traced.lower().cost_analysis() or {}).get("flops")


class Speed:
    """The speed of training since the last line of the log. It begins after the first step.

    The first step compiles. Time within ``paused`` blocks is left out. ``devices`` are those that
    train, and ``operations`` returns the floating-point operations of a step where they are known.
    """

    def __init__(self, devices: list[Any], operations: Callable[[], float | None] = lambda: None):
        self._devices, self._operations = devices, operations
        self._start: float | None = None
        self._examples = self._steps = 0
        self._waited = 0.0

    def count(self, examples: int) -> None:
        """Count a step and its examples."""
        if self._start is None:
            self._start, self._waited = time.perf_counter(), 0.0
        else:
            self._examples += examples
            self._steps += 1

    def take(self) -> dict[str, float]:
        """Return the rates since the last call, all 0 before step 2. Seconds are those of a step.

        The share of the peak is that of bfloat16 operations, whatever the precision is.
        """
        now = time.perf_counter()
        seconds, steps = max(now - (self._start or now), 1e-9), max(self._steps, 1)
        rate = self._examples / seconds
        rates = {
            "examples_per_second": rate,
            "examples_per_second_per_chip": rate / len(self._devices),
            "step_seconds": seconds / steps if self._steps else 0.0,
            "waiting_seconds": self._waited / steps,
        }
        most = peak(self._devices[0].device_kind)
        if most is not None and self._steps and (operations := self._operations()) is not None:
            share = operations * self._steps / seconds / (most * len(self._devices))
            rates["share_of_peak"] = share
        self._start, self._examples, self._steps, self._waited = now, 0, 0, 0.0
        return rates

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time within a ``with`` block as waiting for data."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time within a ``with`` block."""
        begin = time.perf_counter()
        yield
        if self._start is not None:
            self._start += time.perf_counter() - begin


class Profile(contextlib.AbstractContextManager["Profile"]):
    """A trace of ten steps from the step ``first`` on, in a directory; None traces nothing."""

    def __init__(self, directory: Path, first: int | None):
        self._directory, self._first = directory, first
        self._running = False

    def before_step(self, step: int, running: Any) -> None:
        """Start or stop before the next step; ``running`` are the results of the last one."""
        if step == self._first:
            jax.block_until_ready(running)
            jax.profiler.start_trace(str(self._directory))
            self._running = True
        elif self._first is not None and step == self._first + PROFILED:
            jax.block_until_ready(running)
            self.__exit__()

    def __exit__(self, *error: Any) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
