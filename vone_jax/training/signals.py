"""A request to stop, from outside: the first signal is noted, the second ends the process."""

import os
import signal
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopOnSignal:
    """Within a ``with`` block, SIGTERM or SIGINT sets a flag, which calling the object reads.

    Meant for ``train(..., stop=...)``, which then saves and returns. A second signal acts at once,
    as if it were not caught. Only the main thread may use it.
    """

    def __init__(self):
        self._received = False
        self._previous = {}

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self._received

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._received = True

    def __enter__(self) -> "StopOnSignal":
        self._previous = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was not set from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
