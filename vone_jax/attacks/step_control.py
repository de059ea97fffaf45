"""How Auto-PGD adapts its steps: when to shorten them and when to go back to the best point.

Each control keeps a few numbers per example and is asked at fixed iterations, its checkpoints.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def checkpoints(steps: int, variant: str) -> list[int]:
    """Numbers of steps after which the step size of Auto-PGD is reconsidered.

    Args:
      steps: length N of the run.
      variant: "paper": ceil(p_j N) with p_1 = 0.22 and gaps that shrink by 0.03 down to 0.06;
        "code": the same in whole iterations, int(0.22 N) and so on. For N = 100 both agree.

    References:
      Croce and Hein, 2020, arXiv:2003.01690, section 3.3.
    """
    if variant == "code":
        first, shrink, least = (max(int(part * steps), 1) for part in (0.22, 0.03, 0.06))
        gaps = (max(first - shrink * number, least) for number in itertools.count())
        points = itertools.accumulate(gaps)
    else:
        # In hundredths, because 0.22 + 0.19 + ... times N has to round up exactly.
        gaps = (max(22 - 3 * number, 6) for number in itertools.count())
        parts = itertools.takewhile(lambda part: part <= 100, itertools.accumulate(gaps))
        points = (-(-part * steps // 100) for part in parts)
    # A short run may round two points to one.
    return list(dict.fromkeys(itertools.takewhile(lambda point: point <= steps, points)))


def sparse_checkpoints(steps: int) -> list[int]:
    """Numbers of steps after which L1 Auto-PGD reconsiders sparsity and step size."""
    every = max(int(0.04 * steps), 1)
    return list(range(every, steps + 1, every))


def stages(steps: int, large_eps_schedule: bool) -> list[tuple[int, int]]:
    """Pairs (multiple of the radius, number of steps) of the stages of one run."""
    if not large_eps_schedule:
        return [(1, steps)]
    part = math.ceil(0.3 * steps)
    return [(3, part), (2, part), (1, steps - 2 * part)]


def gaps_before(points: list[int], length: int) -> np.ndarray:
    """Array of ``length``: at each checkpoint the steps since the last one, elsewhere 0."""
    gaps = np.zeros(length, np.int32)
    gaps[points] = np.diff(points, prepend=0)
    return gaps


class Halving(NamedTuple):
    """Halves the step of an example that stopped gaining, for L-infinity and L2."""

    step_size: jax.Array
    rises: jax.Array
    last_loss: jax.Array
    reference: jax.Array
    halved: jax.Array

    @classmethod
    def start(cls, step_size: jax.Array) -> "Halving":
        unknown = jnp.full_like(step_size, -jnp.inf)
        # As if halved before: the first checkpoint asks only how often the loss rose.
        return cls(step_size, jnp.zeros_like(step_size), unknown, unknown, step_size >= 0)

    def observe(self, loss: jax.Array, number: jax.Array, variant: str) -> "Halving":
        """Counts whether the loss rose; ``number`` is that of the step just made."""
        before = self.last_loss
        if variant == "code":
            before = jnp.where(number == 1, 0.0, before)
        rose = (loss > before) & (number > 0)
        return self._replace(rises=self.rises + rose.astype(loss.dtype), last_loss=loss)

    def check(self, gap: jax.Array, best_loss: jax.Array, rho: float, variant: str):
        """The control after a checkpoint, and which examples go back to their best point."""
        wanted = rho * gap.astype(best_loss.dtype)
        few = self.rises <= wanted if variant == "code" else self.rises < wanted
        halve = few | (~self.halved & (self.reference >= best_loss))
        control = self._replace(
            step_size=jnp.where(halve, 0.5, 1.0) * self.step_size,
            rises=jnp.zeros_like(self.rises),
            reference=best_loss,
            halved=halve,
        )
        return control, halve


class Sparsity(NamedTuple):
    """Sets step size and number of moved values from the sparsity of the best point, for L1.

    References:
      Croce and Hein, Mind the box, 2021, arXiv:2103.01208, section 3.
    """

    step_size: jax.Array
    moved: jax.Array
    nonzero: jax.Array

    def check(self, nonzero: jax.Array, eps: jax.Array):
        """The control after a checkpoint, and which examples go back to their best point."""
        sparser = nonzero < 0.95 * self.nonzero
        shorter = jnp.maximum(self.step_size / 1.5, eps / 10)
        step_size = jnp.where(sparser, eps, shorter)
        return Sparsity(step_size, nonzero / 1.5, nonzero), sparser
