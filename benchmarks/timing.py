"""Times programs in turn, so that whatever else the machine does meets all of them alike."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

# The programs that the others are compared with.
OURS = "vone_jax"


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


def measure(
    case: str, images: int, contenders: Mapping[str, Callable[[], Program]], repeats: int
) -> list[Measurement]:
    """Builds every contender, calls each once to warm up, then times them in turn.

    Args:
      case: name of the case.
      images: number of images per call.
      contenders: name and how to build the program. A ModuleNotFoundError means
        "not installed".
      repeats: timed calls of each, >= 1.

    Returns:
      One measurement per contender, in the given order.
    """
    programs: dict[str, Program] = {}
    first: dict[str, float] = {}
    resisting: dict[str, int | None] = {}
    for name, build in contenders.items():
        try:
            program = build()
            start = time.perf_counter()
            result = program.run()
        except ModuleNotFoundError:
            continue
        programs[name], first[name] = program, time.perf_counter() - start
        resisting[name] = None if program.resisting is None else program.resisting(result)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    processor: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            start, processor_start = time.perf_counter(), time.process_time()
            program.run()
            seconds[name].append((time.perf_counter() - start) / images)
            processor[name].append((time.process_time() - processor_start) / images)
    compilation = {
        name: max(0.0, first[name] - images * statistics.median(seconds[name]))
        if program.compiles_when_run
        else program.compile_seconds
        for name, program in programs.items()
    }
    return [
        Measurement(
            case,
            name,
            tuple(seconds[name]),
            tuple(processor[name]),
            compilation[name],
            programs[name].memory(),
            resisting[name],
            images,
        )
        if name in programs
        else Measurement(case, name, ())
        for name in contenders
    ]


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
