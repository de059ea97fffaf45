"""A request to stop, from outside: the first signal is noted, the second ends the process."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds after which a second signal ends a process that is too busy to let it.
_PATIENCE = 0.2


class StopOnSignal:
    """Within a ``with`` block, SIGTERM or SIGINT sets a flag, which calling the object reads.

    Meant for ``train(..., stop=...)``, which then saves and returns. A second signal acts at once,
    as if it were not caught. Only the main thread may use it.
    """

    def __init__(self):
        self._received = False
        self._previous = {}
        self._previous_pipe = -1
        self._pipe = -1

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self._received

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._received = True

    def __enter__(self) -> "StopOnSignal":
        # Python runs a handler only between two of its own instructions, and XLA compiles for
        # minutes without one. The numbers of signals reach the pipe at once.
        end, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        threading.Thread(target=_end_at_the_second, args=(end,), daemon=True).start()
        self._previous_pipe = signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
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
        signal.set_wakeup_fd(self._previous_pipe)
        os.close(self._pipe)


def _end_at_the_second(pipe: int) -> None:
    """Reads the numbers of signals until the other end is closed."""
    received = 0
    while number := os.read(pipe, 1):
        received += number[0] in _SIGNALS
        if received == 2:
            time.sleep(_PATIENCE)
            # The status that a shell gives to a process that the signal has ended.
            os._exit(128 + number[0])
    os.close(pipe)
