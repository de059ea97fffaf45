"""Training batches on the devices, some of them before their step."""

from collections import deque
from collections.abc import Callable
from typing import Any

from vone_jax import data


class Prefetch:
    """Takes batches from the host and keeps some of them on the devices.

    Args:
      batches: this process's part, at the position to go on from.
      place: puts a batch on the devices, without waiting for it.
      ahead: number of batches that are there beside the one that is taken.
      number: of batches that will be taken in all; none beyond is loaded.
    """

    def __init__(
        self,
        batches: data.Batches,
        place: Callable[[dict[str, Any]], Any],
        ahead: int,
        number: int,
    ):
        self._batches = batches
        self._place = place
        self._ahead = ahead
        self._unloaded = number
        self._waiting = deque()
        self._state = batches.get_state()

    def take(self) -> Any:
        """The next batch."""
        while self._unloaded and len(self._waiting) <= self._ahead:
            placed = self._place(next(self._batches))
            self._waiting.append((placed, self._batches.get_state()))
            self._unloaded -= 1
        placed, self._state = self._waiting.popleft()
        return placed

    def get_state(self) -> dict[str, Any]:
        """Of the iterator that has given what was taken, and no more."""
        return self._state
