"""The commands of the project, one module each, and what they share.

This module holds the exit statuses, the form of error messages, the directory of configs, and
the handling of SIGTERM and Ctrl-C. It imports no JAX, so the report starts quickly.

A command handles signals in one of three ways:

  - A loop that polls uses ``StopOnSignal`` and saves its work when the object returns True.
  - A program that can be interrupted anywhere uses ``interrupted_by_signals``. It catches
    ``KeyboardInterrupt`` and calls ``stopped``.
  - A program with a child process uses ``handling_signals`` to pass the signals on.
"""

import argparse
import contextlib
import dataclasses
import errno
import functools
import gc
import importlib
import os
import re
import shlex
import signal
import sys
import threading
import time
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from vone_jax import arguments
from vone_jax.arguments import nearest

# Exit statuses. 75 is EX_TEMPFAIL of sysexits.h: the work is not done yet, run it again.
FINISHED = 0
FAILED = 1
WRONG_ARGUMENTS = 2
# The report is written, but files for it are missing, cut off or unfinished.
WITH_GAPS = 3
STOPPED = 75

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Signals within this many seconds of the first count as one signal: a cluster signals all processes
# of a job, and a sweep passes its signal on to the command that it runs.
_TOGETHER = 1.0
# Seconds after which a process is forced to end if it runs no Python code: after the second signal
# to ``StopOnSignal``, and after the first to ``interrupted_by_signals``.
_GRACE, _PATIENCE = 0.2, 2.0


def _start(command: str) -> None:
    # Importing JAX allocates many objects and frees few. Without the garbage collector, an error
    # about arguments appears a third sooner.
    gc.disable()
    try:
        module = importlib.import_module(f"vone_jax.cli.{command}")
    except ModuleNotFoundError as error:
        sys.exit(f"{error}; install the project first: pip install -e .")
    gc.freeze()
    gc.enable()
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


# The commands that import JAX, each as a program of its own.
start_train = functools.partial(_start, "train")
start_evaluate = functools.partial(_start, "evaluate")
start_sweep = functools.partial(_start, "sweep")


def fail(
    program: str,
    error: Exception | str,
    status: int = FAILED,
    options: Iterable[Any] = (),
    argv: Sequence[str] = (),
) -> int:
    """Print an error on stderr as ``PROGRAM: MESSAGE``, and return the exit status ``status``.

    ``program`` is PROGRAM and ``error`` the MESSAGE. A field of the dataclasses ``options`` is
    printed as the option that the user typed, such as ``--batch-size`` for ``batch_size``: at the
    beginning of the message, and elsewhere if its name has an underscore or is a path such as
    ``data.source``. If a message names no option but contains the value of one in the words
    ``argv``, that option is printed in front.
    """
    fields = {known.name: known for each in options for known in dataclasses.fields(each)}

    def typed(path: re.Match) -> str:
        first, dot, _ = path[0].partition(".")
        alone = path.start() == 0 or "_" in first
        known = first in fields and (is_tree(fields[first]) if dot else alone)
        return option(*path[0].split(".")) if known else path[0]

    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    message = re.sub(r"(?<![\w./'\"-])[a-z]\w*(\.[a-z]\w*)*", typed, message)
    about = "" if "--" in message else _about(message, argv)
    print(f"{program}: {about}{message}", file=sys.stderr)
    return status


def refuse_empty_values(program: str, argv: Sequence[str]) -> None:
    """Exit with the status of wrong arguments if an option, or another word, is empty.

    A shell passes an empty word for a quoted variable that is not set. As a path, the empty word
    would stand for the current directory.
    """
    name = ""
    for word in argv:
        value = word
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            value = value if equals else name
        if not value:
            message = "a word of the command is empty; leave it out"
            if name:
                message = f"{name} has an empty value; give one, or leave the option out"
            raise SystemExit(fail(program, message, WRONG_ARGUMENTS))


class Parser(argparse.ArgumentParser):
    """The parser of a command with few options. It prints its errors in the form of ``fail``."""

    def __init__(self, **options: Any):
        super().__init__(**options, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read the words of a command, in which no option may be empty or unknown."""
        words = sys.argv[1:] if args is None else args
        refuse_empty_values(self.prog, words)
        # A shell leaves ~ as it is in --out=~/page.html.
        words = [re.sub("(?<==)~.*|^~.*", lambda m: os.path.expanduser(m[0]), w) for w in words]
        known, unknown = super().parse_known_args(words, namespace)
        if unknown:
            # The parser of a subcommand names similar options. The parser above has other options.
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Print the message on stderr and exit with the status of wrong arguments."""
        unknown = re.match("unrecognized arguments: (--[^ =]+)", message)
        if unknown:
            meant = nearest(unknown[1], re.findall(r"--[a-z][\w-]*", self.format_usage()))
            message = f"there is no option {unknown[1]}{meant}"
        message = re.sub("^argument ([^:]+):", r"\1:", message)
        message = re.sub(r": invalid int value: (.*)", r" must be an integer, got \1", message)
        if wrong := re.fullmatch(r"(\S+): invalid choice: '(.*)' \(choose from (.*)\)", message):
            known = wrong[3].replace("'", "").split(", ")
            message = arguments.not_among(wrong[1], wrong[2], known)
        raise SystemExit(fail(self.prog, message, WRONG_ARGUMENTS))

    def directory(self, name: str, path: Path | str | None) -> None:
        """Refuse a file, and a path without permission, as the directory that an option names."""
        if path is not None:
            self.in_reach(name, path)
            if os.path.exists(path) and not os.path.isdir(path):
                self.error(f"{name} must be a directory, {path} is a file")

    def in_reach(self, name: str, path: Path | str) -> None:
        """Refuse a path that the process has no permission to look up."""
        try:
            arguments.in_reach(name, path)
        except ValueError as error:
            self.error(str(error))


def located(error: Exception, directory: Path) -> Exception:
    """Return the error; if the disk is full, it names the directory that was written."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        if str(directory) not in str(error):
            error.filename = str(directory)
    return error


def is_tree(field: dataclasses.Field) -> bool:
    """Return True if the options of a field are those of its own fields."""
    return any(map(dataclasses.is_dataclass, (field.type, *typing.get_args(field.type))))


def _about(message: str, argv: Sequence[str]) -> str:
    """The option whose value a message names, such as ``"--source folder:photos: "``."""
    name, named = "", []
    for word in argv:
        if word.startswith("--"):
            name, _, word = word.partition("=")
        value = word.partition(":")[2] or word
        place = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", message)
        if name and len(value) > 2 and place:
            # If two options fit, the one with this whole value comes first: DIR before folder:DIR.
            named.append((place.start(), value != word, f"{name} {word}: "))
    return min(named)[-1] if named else ""


def option(*path: str) -> str:
    """The option of a field, as typed: ``--data.batch-size`` for ``"data", "batch_size"``."""
    return f"--{'.'.join(path).replace('_', '-')}"


def stopped(program: str) -> int:
    """Print on stderr that a command was stopped, and return the exit status ``STOPPED``."""
    print(f"{program}: stopped; run the same command again to continue", file=sys.stderr)
    return STOPPED


def tell(program: str, text: str) -> int:
    """Print the outcome of a command on stdout, and return the exit status."""
    try:
        print(text, flush=True)
    except OSError as error:
        # Python would try again at its end, and print a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # A program that reads the output, such as head, may have closed the pipe.
        if not isinstance(error, BrokenPipeError):
            return fail(program, f"stdout cannot be written: {error.strerror}")
    return FINISHED


def configs() -> Path:
    """The directory of configs, which is part of the package."""
    return Path(__file__).resolve().parents[1] / "configs"


def program(script: str) -> str:
    """The name under which a command was run: ``vone-eval`` if installed, else ``script``."""
    name = Path(sys.argv[0]).name
    return name if name.startswith("vone-") else script


def manual(text: str, script: str, argv: Sequence[str]) -> int:
    """Print the help of a command, and return the exit status: an error if ``argv`` is empty."""
    name = program(script)
    shown = text if name == script else text.replace(f"python {script}", name)
    # A program that reads the help, such as head, may have closed the pipe.
    with contextlib.suppress(BrokenPipeError):
        print(shown, file=sys.stdout if argv else sys.stderr, flush=True)
    return FINISHED if argv else WRONG_ARGUMENTS


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


class StopOnSignal(contextlib.ExitStack):
    """A flag that SIGTERM or Ctrl-C sets within a ``with`` block. Calling the object reads it.

    Use it as ``training.train(..., stop=stop)``, which then saves and returns. A second signal
    ends the process at once, unless it comes within a second of the first. Only the main thread may
    use this class. ``read`` is True once the flag was read: the arguments were then accepted and
    the work has begun.
    """

    def __init__(self):
        super().__init__()
        self.read = False
        # The times at which the first signal reached the handler and the thread.
        self._received: float | None = None
        self._noticed: float | None = None

    def __call__(self) -> bool:
        """Return True once a signal has arrived."""
        self.read = True
        return self._received is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._received is None:
            self._received = now
        elif now - self._received > _TOGETHER:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _notice(self, number: int) -> None:
        now = time.monotonic()
        if self._noticed is None:
            self._noticed = now
        elif now - self._noticed > _TOGETHER:
            time.sleep(_GRACE)
            # The status that a shell reports for a process that the signal has ended.
            os._exit(128 + number)

    def __enter__(self) -> "StopOnSignal":
        self.enter_context(_watching_signals(self._notice))
        self.enter_context(handling_signals(self._receive))
        return self
