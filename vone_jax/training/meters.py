"""What the log averages over: examples and seconds since its last line."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator

import numpy as np

from vone_jax.training.objective import Sums


@dataclasses.dataclass
class Interval:
    """Sums over the steps since the last line of the log; part of every checkpoint.

    Attributes:
      loss: sum of the losses.
      correct: examples that were right.
      seen: number of examples.
    """

    loss: float = 0.0
    correct: int = 0
    seen: int = 0

    def add(self, sums: Sums) -> None:
        """Adds the sums of a step, as NumPy scalars."""
        self.loss += float(sums.loss)
        self.correct += int(sums.correct)
        self.seen += int(sums.seen)

    def take_means(self) -> dict[str, float]:
        """Mean ``loss`` and ``accuracy``; starts a new interval."""
        means = {"loss": self.loss / self.seen, "accuracy": self.correct / self.seen}
        self.loss, self.correct, self.seen = 0.0, 0, 0
        return means


@dataclasses.dataclass
class PassedOver:
    """What a run has done without since it began; part of every checkpoint.

    Attributes:
      steps: that were not finite.
      examples: that could not be read, each time counted.
    """

    steps: int = 0
    examples: int = 0


class Clock:
    """Examples per second of training alone.

    It starts with the end of the first step, which has waited for the compiler.
    """

    def __init__(self):
        self._start = None
        self._examples = 0

    def add(self, examples: int | np.integer) -> None:
        """Counts the examples of a step."""
        if self._start is None:
            self._start = time.perf_counter()
        else:
            self._examples += int(examples)

    def take_rate(self) -> float:
        """Examples per second since the last call; 0 before the second step."""
        if self._start is None:
            return 0.0
        now = time.perf_counter()
        rate = self._examples / max(now - self._start, 1e-9)
        self._start, self._examples = now, 0
        return rate

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside does not count."""
        begun = time.perf_counter()
        yield
        if self._start is not None:
            self._start += time.perf_counter() - begun
