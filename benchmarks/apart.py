"""Programs in processes of their own, so that none changes the memory of another.

In one process they do. PyTorch's attack on a small CNN took half of its time after something else
had brought the C library to keep what is freed, and a training step in JAX took a third more when
another program had meanwhile been given the pages that it gives back.
"""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import jax

from benchmarks.sizes import Sizes
from benchmarks.timing import Case, Here
from vone_jax import fast


class ContenderError(Exception):
    """A program failed in its process; the message is what it said."""


class Apart(Here):
    """A program of a case in a process of its own. It takes turns with others by ``call``."""

    def __init__(self, case_of: Callable[[Sizes], Case], sizes: Sizes, case: Case, contender: str):
        """Starts the process and builds the program there.

        Args:
          case_of: makes the case; a function that a new process can import.
          sizes: its argument.
          case: what ``case_of`` makes.
          contender: which of its programs.

        Raises:
          ModuleNotFoundError: if it is not installed.
          ContenderError: if it fails.
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
        """See ``Here``; the times are taken in the other process."""
        return self._ask("call")

    def compilation(self) -> tuple[float, bool]:
        """See ``Here``."""
        return self._ask("compilation")

    def outcome(self) -> tuple[int | None, int | None]:
        """See ``Here``."""
        return self._ask("outcome")

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join()

    def _ask(self, method: str) -> Any:
        self._connection.send(method)
        return self._answer()

    def _answer(self) -> Any:
        try:
            error, value = self._connection.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            raise ContenderError(
                f"{self._process.name} ended without a word, status {code}"
            ) from None
        if error is not None:
            raise error(value)
        return value


def _serve(
    connection: Connection, case_of: Callable[[Sizes], Case], sizes: Sizes, contender: str
) -> None:
    """Builds the program, then calls it whenever it is asked, until the process is ended."""
    fast.use_all_cores()
    try:
        # float32 means float32, on a GPU as well.
        with jax.default_matmul_precision("highest"):
            program = Here(case_of(sizes), contender)
            connection.send((None, None))
            while True:
                connection.send((None, getattr(program, connection.recv())()))
    except ModuleNotFoundError as error:
        connection.send((ModuleNotFoundError, str(error)))
    except Exception:
        connection.send((ContenderError, f"{contender} failed:\n{traceback.format_exc()}"))
