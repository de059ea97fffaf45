"""What a process that prepares batches does before its first one."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def begin(index: int, number: int) -> None:
    """Leaves signals to the program that has started this process, and ends with it.

    A terminal sends Ctrl-C, and a cluster SIGTERM, to all processes of a program. Workers that
    ended with it would take the batch along that the program waits for before it saves. A program
    that is killed can end nobody, and workers without it would wait for ever.

    Args:
      index: of this worker.
      number: of workers.
    """
    del index, number  # All do the same; Grain says which one this is.
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
