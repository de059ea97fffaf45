"""The commands of the project, one module each, and what they share.

This module holds the exit statuses, the form of error messages, the directory of configs, and the
handling of SIGTERM and Ctrl-C. It imports no JAX, so the report starts quickly.

A program that can be interrupted anywhere uses ``interrupted_by_signals``: it catches
``KeyboardInterrupt`` and calls ``stopped``. A program with a child process uses
``handling_signals`` to pass the signals on.
"""

import contextlib
import functools
import importlib
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

# Exit statuses. 75 is EX_TEMPFAIL of sysexits.h: the work is not done yet, run it again.
FINISHED = 0
FAILED = 1
WRONG_ARGUMENTS = 2
STOPPED = 75

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds after which a process is forced to end if it runs no Python code.
_PATIENCE = 2.0


def _start(command: str) -> None:
    try:
        module = importlib.import_module(f"vone_jax.cli.{command}")
    except ModuleNotFoundError as error:
        sys.exit(f"{error}; install the project first: pip install -e .")
    warnings.formatwarning = _warning
    module.run()


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
    default: Callable[..., str] = warnings.formatwarning,
) -> str:
    """Format a warning of this package as one line, and any other with its place in the code."""
    if Path(filename).resolve().is_relative_to(configs().parent):
        return f"warning: {message}\n"
    return default(message, category, filename, lineno, line)


# The commands that may import JAX, each as a program of its own.
start_train = functools.partial(_start, "train")
start_evaluate = functools.partial(_start, "evaluate")
start_sweep = functools.partial(_start, "sweep")
start_convert = functools.partial(_start, "convert")


def fail(error: Exception | str, status: int = WRONG_ARGUMENTS) -> int:
    """Print an error on stderr as ``error: MESSAGE``, and return the exit status."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    # Names of files and classes cannot write to the terminal.
    shown = "".join(c if c.isprintable() or c == "\n" else "?" for c in message)
    print(f"error: {shown}", file=sys.stderr)
    return status


def stopped(program: str) -> int:
    """Print on stderr that a command was stopped, and return the exit status ``STOPPED``."""
    print(f"{program}: stopped; run the same command again to continue", file=sys.stderr)
    return STOPPED


def configs() -> Path:
    """The directory of configs, which is part of the package."""
    return Path(__file__).resolve().parents[1] / "configs"


def program(script: str) -> str:
    """The name under which a command was run: ``vone-eval`` if installed, else ``script``."""
    name = Path(sys.argv[0]).name
    return name if name.startswith("vone-") else script


def command(program: str, argv: Sequence[str]) -> str:
    """The command line of a program, as result files record it."""
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


@contextlib.contextmanager
def _watching_signals(notice: Callable[[int], Any]) -> Iterator[None]:
    """Call ``notice`` with the number of each signal within a ``with`` block, in a thread.

    Python runs a signal handler only between two Python instructions, and XLA may compile or
    compute for minutes in between. The numbers of signals reach a pipe at once, so a thread that
    reads them can end the process.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        while number := os.read(reading, 1):
            if number[0] in SIGNALS:
                notice(number[0])
        os.close(reading)

    threading.Thread(target=watch, daemon=True).start()
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.close(writing)


@contextlib.contextmanager
def interrupted_by_signals(program: str) -> Iterator[threading.Event]:
    """Raise ``KeyboardInterrupt`` at the first SIGTERM or Ctrl-C within a ``with`` block.

    If the block has not ended 2 s later, for instance because it computes outside of Python, the
    process ends as after ``stopped(program)``. Only the main thread may use this. The block gets an
    event that is set once a signal has arrived.
    """
    interrupted, left = threading.Event(), threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Later signals are ignored, so that the cleaning up after the first can finish.
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    def end(number: int) -> None:
        if not left.wait(_PATIENCE):
            if sys.stderr.isatty():
                print(file=sys.stderr)  # Ends the line of the progress bar.
            os._exit(stopped(program))

    with _watching_signals(end), handling_signals(interrupt):
        try:
            yield interrupted
        finally:
            left.set()


def end_at_once(status: int) -> NoReturn:
    """End the process with a status, without Python's own cleanup at the end.

    XLA may still compute in its own threads, and would use memory that the cleanup has freed.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
