"""Times programs in turn, so that whatever else the machine does meets all of them alike."""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from vone_jax import fast

# The programs that the others are compared with.
OURS = "vone_jax"
# Of a program whose process keeps the memory that it frees.
KEEPING = "keeping its memory"

# Seconds between a call and the next. Threads of PyTorch's wait busily for a fifth of a second
# after their work, and would take a core from the first part of what is timed next.
_SETTLING = 0.5


@dataclasses.dataclass(frozen=True)
class Program:
    """Something to time.

    Attributes:
      run: does the work once and returns when it is finished.
      compile_seconds: spent before the first call; 0 where nothing is compiled.
      memory: bytes at the peak of one call, or None where that is unknown.
      compiles_when_run: the first call compiles; what it takes longer than the others is then
        the time of compilation.
      resisting: of an attack, how many images are still classified right, given its result.
    """

    run: Callable[[], Any]
    compile_seconds: float = 0.0
    memory: Callable[[], int | None] = lambda: None
    compiles_when_run: bool = False
    resisting: Callable[[Any], int] | None = None


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one contender took in one case.

    Attributes:
      case: the work, in words.
      contender: who did it.
      seconds: of each timed call, per image; empty if the contender is not installed.
      processor_seconds: the same in time of processor cores, all threads together. On a CPU that
        others use at the same time it says more; threads that wait busily count, too.
      compile_seconds: see ``Program``.
      memory: see ``Program``, for the whole batch.
      resisting: see ``Program``, out of ``images``.
      images: number of images per call.
    """

    case: str
    contender: str
    seconds: tuple[float, ...]
    processor_seconds: tuple[float, ...] = ()
    compile_seconds: float | None = None
    memory: int | None = None
    resisting: int | None = None
    images: int | None = None

    @property
    def median(self) -> float | None:
        """Seconds per image, or None if not measured."""
        return statistics.median(self.seconds) if self.seconds else None


@dataclasses.dataclass(frozen=True)
class Case:
    """Something that several programs do.

    Attributes:
      name: the work, in words.
      images: number of images per call.
      contenders: name and how to build the program. A ModuleNotFoundError means "not installed".
      repeats: timed calls of each, >= 1.
    """

    name: str
    images: int
    contenders: Mapping[str, Callable[[], Program]]
    repeats: int


class Here:
    """A program in this process, as ``measure`` calls it. ``benchmarks.apart`` has another."""

    def __init__(self, case: Case, contender: str):
        """Builds the program; a ModuleNotFoundError means "not installed"."""
        self._program = case.contenders[contender]()
        self._result = None

    def call(self) -> tuple[float, float]:
        """Calls the program once; returns seconds by the clock and of processor cores."""
        start, processor_start = time.perf_counter(), time.process_time()
        self._result = self._program.run()
        return time.perf_counter() - start, time.process_time() - processor_start

    def compilation(self) -> tuple[float, bool]:
        """Seconds before the first call, and whether the first call compiles as well."""
        return self._program.compile_seconds, self._program.compiles_when_run

    def outcome(self) -> tuple[int | None, int | None]:
        """What resists after the last call, and bytes at the peak: see ``Program``."""
        resisting = self._program.resisting
        return None if resisting is None else resisting(self._result), self._program.memory()

    def close(self) -> None:
        """Ends it."""


def measure(case: Case, start: Callable[[Case, str], Here] = Here) -> list[Measurement]:
    """Starts every contender, calls each once to warm up, then times them in turn.

    Args:
      case: what to measure.
      start: from the case and a contender's name to the running program.

    Returns:
      One measurement per contender, in the given order.
    """
    programs: dict[str, Here] = {}
    with contextlib.ExitStack() as stack:
        times: dict[str, list[tuple[float, float]]] = {}
        for name in case.contenders:
            try:
                programs[name] = start(case, name)
            except ModuleNotFoundError:
                continue
            stack.callback(programs[name].close)
            times[name] = [programs[name].call()]
        for _ in range(case.repeats):
            for name, program in programs.items():
                time.sleep(_SETTLING)
                times[name].append(program.call())
        return [
            _measurement(case, name, programs[name], *times[name])
            if name in programs
            else Measurement(case.name, name, ())
            for name in case.contenders
        ]


def _measurement(
    case: Case, name: str, program: Here, first: tuple[float, float], *times: tuple[float, float]
) -> Measurement:
    seconds, processor = zip(*times, strict=True)
    compilation, compiles_when_run = program.compilation()
    if compiles_when_run:
        compilation = max(0.0, first[0] - statistics.median(seconds))
    resisting, memory = program.outcome()
    return Measurement(
        case.name,
        name,
        tuple(one / case.images for one in seconds),
        tuple(one / case.images for one in processor),
        compilation,
        memory,
        resisting,
        case.images,
    )


def keeping_memory(build: Callable[[], Program]) -> Callable[[], Program]:
    """The program in a process that keeps its memory, as ``train.py`` and ``eval.py`` do."""

    def kept() -> Program:
        fast.keep_memory()
        return build()

    return kept


def jax_program(function: Callable[..., Any], *arguments: Any) -> Program:
    """Compiles a function of arrays; its memory is what the compiler sets aside."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - start
    analysis = compiled.memory_analysis()

    def memory() -> int | None:
        if analysis is None:
            return None
        return (
            analysis.argument_size_in_bytes
            + analysis.output_size_in_bytes
            + analysis.temp_size_in_bytes
        )

    return Program(lambda: jax.block_until_ready(compiled(*arguments)), seconds, memory)


def repeated(program: Program, run: Callable[[Callable[[], Any]], Any]) -> Program:
    """A loop in Python around a compiled program: ``run`` is given the program's call."""
    return dataclasses.replace(program, run=lambda: run(program.run))


def ratios(measurements: Sequence[Measurement]) -> list[float | None]:
    """Median time of each measurement over that of ``OURS`` in the same case."""
    ours = {m.case: m.median for m in measurements if m.contender == OURS}
    return [
        m.median / reference if m.median is not None and (reference := ours.get(m.case)) else None
        for m in measurements
    ]
