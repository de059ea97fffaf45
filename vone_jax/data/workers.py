"""Processes that decode images for Grain, and what they need of the program that starts them."""

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import resource_tracker
from multiprocessing.connection import wait

from absl import flags


def prepare() -> None:
    """Prepare this program for worker processes, before Grain starts them."""
    _let_grain_read_its_flag()
    _start_quiet_tracker()


def begin(index: int, count: int) -> None:
    """Prepare a worker process: it ignores signals and ends when its program ends.

    A terminal sends Ctrl-C, and a cluster SIGTERM, to all processes of a program. A worker that
    ended then would lose the batch that the program waits for before it saves. A program that is
    killed cannot end its workers, so each of them watches the program.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _start_quiet_tracker() -> None:
    """Start the process that frees the shared memory of workers, and keep it silent.

    If a worker was killed, Python warns of its memory, below the error that says what happened.
    """
    sys.warnoptions.append("ignore:resource_tracker")
    resource_tracker.ensure_running()
    sys.warnoptions.remove("ignore:resource_tracker")


def _let_grain_read_its_flag() -> None:
    """Let Grain 0.2.18 start workers in a program that never parses absl flags.

    If JAX can be imported, Grain reads this flag without checking that flags were parsed, and absl
    raises an error (google/grain#1355). Grain marks its other flags as present itself; marking this
    one does not change the flags of the program.
    """
    name = "grain_enable_multiprocess_worker_profiling"
    if name in flags.FLAGS:
        flags.FLAGS[name].present = True
