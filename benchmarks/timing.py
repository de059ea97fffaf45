"""Times programs in turn, each in a process of its own.

They run in turn, so that other work on the machine affects all programs alike. They run in separate
processes, because the memory use of one program changes the times of others in its process.
PyTorch's attack on a small CNN took half the time after another program had made the C library keep
freed memory. A training step in JAX took a third more time after another program had received the
pages that the step returns.
"""

import contextlib
import dataclasses
import multiprocessing
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import jax

from benchmarks.sizes import Sizes
from vone_jax import fast

# The name of the programs that the others are compared with.
OURS = "vone_jax"
# A part of the names of programs whose process keeps the memory that it frees.
KEEPING = "keeping its memory"

# Seconds between two calls. PyTorch's threads wait busily for a fifth of a second after their work
# and would take a core from the next program.
_SETTLING = 0.5


@dataclasses.dataclass(frozen=True)
class Program:
    """A program to time.

    Attributes:
      run: does the work once and returns when it is finished.
      compile_seconds: time of compilation before the first call; 0 if nothing is compiled. None
        if the first call compiles: its extra time over the other calls is then that time.
      memory: returns the bytes at the peak of one call, or None if that is unknown.
      resisting: for an attack, counts the images that are still classified right in its result.
    """

    run: Callable[[], Any]
    compile_seconds: float | None = 0.0
    memory: Callable[[], int | None] = lambda: None
    resisting: Callable[[Any], int] | None = None


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The time and memory of one contender in one case.

    Attributes:
      case: the work, in words.
      contender: name of the program.
      seconds: time of each timed call, per image; empty if the contender is not installed.
      processor_seconds: time of all processor cores together, per image. It is the better measure
        on a busy CPU. Threads that wait busily count.
      compile_seconds: see ``Program``.
      memory: see ``Program``; for the whole batch.
      resisting: see ``Program``; out of ``images``.
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
        """The median seconds per image, or None if not measured."""
        return statistics.median(self.seconds) if self.seconds else None


@dataclasses.dataclass(frozen=True)
class Case:
    """Work that several programs do.

    Attributes:
      name: the work, in words.
      images: number of images per call.
      contenders: for each name, a function that builds the program. A ModuleNotFoundError means
        that a contender is not installed.
      repeats: number of timed calls of each program, >= 1.
    """

    name: str
    images: int
    contenders: Mapping[str, Callable[[], Program]]
    repeats: int


def timed(run: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """Return seconds by the clock and of all processor cores, and the result of ``run``."""
    start, processor = time.perf_counter(), time.process_time()
    result = run()
    return (time.perf_counter() - start, time.process_time() - processor), result


class ContenderError(Exception):
    """A program failed in its process. The message has the traceback."""


class Here:
    """A running program in this process."""

    def __init__(self, case: Case, contender: str):
        """Build the program; a ModuleNotFoundError means that it is not installed."""
        self._program = case.contenders[contender]()
        self._result = None

    def call(self) -> tuple[float, float]:
        """Call the program once; return seconds by the clock and of processor cores."""
        seconds, self._result = timed(self._program.run)
        return seconds

    def outcome(self) -> dict[str, Any]:
        """Return the fields of ``Measurement`` that the program knows."""
        resisting = self._program.resisting
        return {
            "compile_seconds": self._program.compile_seconds,
            "resisting": None if resisting is None else resisting(self._result),
            "memory": self._program.memory(),
        }

    def close(self) -> None:
        """End the program."""


class Apart(Here):
    """A running program in a process of its own, with the methods of ``Here``."""

    def __init__(self, case_of: Callable[[Sizes], Case], sizes: Sizes, case: Case, contender: str):
        """Start the process and build the program of ``case``, which is ``case_of(sizes)``, there.

        A new process can import the function ``case_of``.

        Raises:
          ModuleNotFoundError: if the contender is not installed.
          ContenderError: if the program fails.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, far_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(far_end, case_of, sizes, contender), name=contender, daemon=True
        )
        self._process.start()
        far_end.close()
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def call(self) -> tuple[float, float]:
        self._connection.send("call")
        return self._answer()

    def outcome(self) -> dict[str, Any]:
        self._connection.send("outcome")
        return self._answer()

    def close(self) -> None:
        self._process.terminate()
        self._process.join()

    def _answer(self) -> Any:
        try:
            error, value = self._connection.recv()
        except EOFError:
            self._process.join()
            raise ContenderError(
                f"{self._process.name} ended without an answer, status {self._process.exitcode}"
            ) from None
        if error is not None:
            raise error(value)
        return value


def _serve(
    connection: Connection, case_of: Callable[[Sizes], Case], sizes: Sizes, contender: str
) -> None:
    """Build the program, then call the methods that the connection names, until terminated."""
    fast.use_all_cores()
    try:
        # Full float32 precision, on a GPU as well.
        with jax.default_matmul_precision("highest"):
            program = Here(case_of(sizes), contender)
            connection.send((None, None))
            while True:
                connection.send((None, getattr(program, connection.recv())()))
    except ModuleNotFoundError as error:
        connection.send((ModuleNotFoundError, str(error)))
    except Exception:
        connection.send((ContenderError, f"{contender} failed:\n{traceback.format_exc()}"))


def measure(case: Case, start: Callable[[Case, str], Here] = Here) -> list[Measurement]:
    """Start every contender, call each once to warm up, then time them in turn.

    ``start`` takes the case and the name of a contender to the running program.
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
    seconds, processor = (
        tuple(each / case.images for each in column) for column in zip(*times, strict=True)
    )
    outcome = program.outcome()
    if outcome["compile_seconds"] is None:
        warm = case.images * statistics.median(seconds)
        outcome["compile_seconds"] = max(0.0, first[0] - warm)
    return Measurement(case.name, name, seconds, processor, images=case.images, **outcome)


def keeping_memory(build: Callable[[], Program]) -> Callable[[], Program]:
    """Build the program in a process that keeps its memory, as the commands train and eval do."""

    def build_there() -> Program:
        fast.keep_memory()
        return build()

    return build_there


def twice(name: str, build: Callable[[], Program]) -> dict[str, Callable[[], Program]]:
    """Return two contenders: the program as users have it, and with its memory kept."""
    return {name: build, f"{name}, {KEEPING}": keeping_memory(build)}


def jax_program(function: Callable[..., Any], *arguments: Any) -> Program:
    """Compile a function of arrays. Its memory is what the compiler reserves."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - start
    analysis = compiled.memory_analysis()

    def memory() -> int | None:
        kinds = ("argument", "output", "temp")
        return analysis and sum(getattr(analysis, f"{kind}_size_in_bytes") for kind in kinds)

    return Program(lambda: jax.block_until_ready(compiled(*arguments)), seconds, memory)


def ratios(measurements: Sequence[Measurement]) -> list[float | None]:
    """Return the median time of each measurement over that of ``OURS`` in the same case."""
    ours = {m.case: m.median for m in measurements if m.contender == OURS}
    return [
        m.median / reference if m.median is not None and (reference := ours.get(m.case)) else None
        for m in measurements
    ]
