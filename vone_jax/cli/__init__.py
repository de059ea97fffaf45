"""The commands of the project, one module each, and what they share.

This module holds the exit statuses, the form of error messages, the directory of configs, and
the handling of SIGTERM and Ctrl-C. It imports no JAX, so the report starts quickly.

A command handles signals in one of three ways:

  - A loop that polls uses ``StopOnSignal`` and saves its work when the object returns True.
  - A program that can be interrupted anywhere uses ``interrupted_by_signals``. It catches
    ``KeyboardInterrupt`` and calls ``stopped``.
  - A program with a child process uses ``handling_signals`` to pass the signals on.
"""

import contextlib
import dataclasses
import io
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

Parsed = TypeVar("Parsed")

# Exit statuses. 75 is EX_TEMPFAIL of sysexits.h: the work is not done yet, run it again.
FINISHED = 0
FAILED = 1
WRONG_ARGUMENTS = 2
# The report is written, but files for it are missing, cut off or unfinished.
WITH_GAPS = 3
STOPPED = 75

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds between the second signal and the forced end of a process outside Python code.
_GRACE = 0.2


def fail(
    program: str, error: Exception | str, status: int = FAILED, options: Iterable[Any] = ()
) -> int:
    """Print an error on stderr as ``PROGRAM: MESSAGE``, and return the exit status ``status``.

    If the message begins with a field of one of the dataclasses ``options``, the field is printed
    as the option that the user typed.
    """
    field, space, rest = str(error).partition(" ")
    if any(field == known.name for each in options for known in dataclasses.fields(each)):
        error = f"{option(field)}{space}{rest}"
    print(f"{program}: {error}", file=sys.stderr)
    return status


def option(*path: str) -> str:
    """A field as it is typed: ``--data.batch-size`` for ``"data", "batch_size"``."""
    return f"--{'.'.join(path).replace('_', '-')}"


def stopped(program: str) -> int:
    """Print on stderr that a command was stopped, and return the exit status ``STOPPED``."""
    print(f"{program}: stopped; run the same command again to continue", file=sys.stderr)
    return STOPPED


def parse(
    arguments: Callable[..., Parsed],
    argv: Sequence[str],
    program: str,
    description: str,
    default: Parsed | None = None,
    markers: Sequence[Any] = (),
) -> Parsed:
    """Read a command line into a dataclass. A number can be a fraction, such as 8/255.

    Args:
      arguments: the dataclass; each field is an option, and its comment the help.
      argv: the words behind the program. ``--help-all`` prints the help of all options.
      program: the program's name in messages.
      description: the text above the options in the help.
      default: values of the options that are not given.
      markers: of ``tyro.conf``.

    Raises:
      SystemExit: with status 2 for options that do not fit, after a message on stderr.
      ValueError, TypeError: what the dataclass raises.
    """
    import tyro

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def fraction(info: tyro.constructors.PrimitiveTypeInfo):
        if info.type is not float:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="FLOAT",
            instance_from_str=lambda words: _number(words[0]),
            is_instance=lambda value: isinstance(value, float | int),
            str_from_instance=lambda value: [str(value)],
        )

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                arguments,
                args=["--help" if word == "--help-all" else word for word in argv],
                prog=program,
                description=description,
                default=tyro.MISSING_NONPROP if default is None else default,  # pyright: ignore
                config=markers,
                registry=registry,
            )
    except SystemExit:
        print(_as_typed(program, said.getvalue()), end="", file=sys.stderr)
        raise


def _as_typed(program: str, message: str) -> str:
    """A message of tyro; one about a field names the option, and is in the form of ``fail``."""
    # It stands in a box, above a line.
    text = " ".join(line.strip("│ ") for line in message.splitlines())
    found = re.search(r"Error parsing ([a-z]\w*(?:\.\w+)*): (\w+) (.*?) (?:─{3}|-{3})", text)
    if found is None:
        return message
    # The first name is that of the dataclass, which is not typed.
    path = (*found[1].split(".")[1:], found[2])
    return f"{program}: {option(*path)} {found[3]}\n"


def _number(text: str) -> float:
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is neither a number nor a fraction such as 8/255") from None


def configs() -> Path:
    """The directory of configs, which is part of the package."""
    return Path(__file__).resolve().parents[1] / "configs"


def program(script: str) -> str:
    """The name under which a command runs: ``vone-eval`` of an installation, else ``script``."""
    name = Path(sys.argv[0]).name
    return name if name.startswith("vone-") else script


def manual(text: str, script: str) -> str:
    """The help of a command, with the name under which it runs."""
    name = program(script)
    return text if name == script else text.replace(f"python {script}", name)


def command(program: str, argv: Sequence[str]) -> str:
    """The command line of a program for result files."""
    return shlex.join([*(["python"] if program.endswith(".py") else []), program, *argv])


@contextlib.contextmanager
def handling_signals(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Call ``handler`` for SIGTERM and Ctrl-C within a ``with`` block, see ``signal.signal``.

    The handlers from before the block are restored after it. Only the main thread may use this.
    """
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            # None stands for a handler that was not set from Python.
            signal.signal(number, signal.SIG_DFL if before is None else before)


def interrupted_by_signals() -> contextlib.AbstractContextManager[None]:
    """Raise ``KeyboardInterrupt`` at SIGTERM, as at Ctrl-C, within a ``with`` block.

    Enter the block after ``mesh.join_processes``: JAX sets a handler of SIGTERM of its own there.
    """
    return handling_signals(signal.default_int_handler)


class StopOnSignal(contextlib.AbstractContextManager["StopOnSignal"]):
    """A flag that SIGTERM or Ctrl-C sets within a ``with`` block. Calling the object reads it.

    Use it as ``training.train(..., stop=stop)``, which then saves and returns. A second signal
    ends the process at once. Only the main thread may use this class.
    """

    def __init__(self):
        self._received = False
        self._exits = contextlib.ExitStack()

    def __call__(self) -> bool:
        """Return True once a signal has arrived."""
        return self._received

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._received = True

    def __enter__(self) -> "StopOnSignal":
        # Python runs a signal handler only between two of its own instructions, and XLA compiles
        # for minutes without one. The numbers of signals reach the pipe at once, so a thread that
        # reads them can end the process.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        threading.Thread(target=_end_at_the_second_signal, args=(reading,), daemon=True).start()
        self._exits.callback(os.close, writing)
        previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._exits.callback(signal.set_wakeup_fd, previous)
        self._exits.enter_context(handling_signals(self._receive))
        return self

    def __exit__(self, *error: Any) -> None:
        self._exits.close()


def _end_at_the_second_signal(pipe: int) -> None:
    """Read the numbers of signals until the other end of the pipe is closed."""
    received = 0
    while number := os.read(pipe, 1):
        received += number[0] in SIGNALS
        if received == 2:
            time.sleep(_GRACE)
            # The status that a shell reports for a process that the signal has ended.
            os._exit(128 + number[0])
    os.close(pipe)
