"""Learning-rate schedules: how a factor on the base rate moves over a run.

Every schedule has one method ``factor(step, steps_per_epoch, total_steps)``, a pure function of
the number of steps done, which gives the float32 factor for the next step. ``Plateau`` follows
the validation loss instead; its factor is part of the training state (see ``PlateauState``).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax.training.checks import check_at_least, check_number


@dataclasses.dataclass(frozen=True)
class Constant:
    """The base rate throughout."""

    def factor(self, step: jax.Array, steps_per_epoch: int, total_steps: int) -> jax.Array:
        """1 at every step."""
        return jnp.ones((), jnp.float32)


@dataclasses.dataclass(frozen=True)
class Step:
    """Multiplies the rate by ``decay`` at the start of each of ``epochs`` (counted from 0)."""

    # Increasing, for instance (20, 40, 60).
    epochs: tuple[float, ...]
    # In [0, 1].
    decay: float = 0.1

    def __post_init__(self):
        if not self.epochs or list(self.epochs) != sorted(set(self.epochs)) or self.epochs[0] <= 0:
            raise ValueError(f"epochs must be positive and increasing, got {self.epochs}")
        check_number("decay", self.decay, most=1.0)

    def factor(self, step: jax.Array, steps_per_epoch: int, total_steps: int) -> jax.Array:
        """decay ** (number of ``epochs`` that have begun)."""
        boundaries = [round(epoch * steps_per_epoch) for epoch in self.epochs]
        factors = [self.decay**i for i in range(len(boundaries) + 1)]
        begun = jnp.sum(step >= jnp.asarray(boundaries, jnp.int32), dtype=jnp.int32)
        return jnp.asarray(factors, jnp.float32)[begun]


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Half a cosine from the base rate at step 0 to ``final`` times it at the end of the run."""

    # In [0, 1].
    final: float = 0.0

    def __post_init__(self):
        check_number("final", self.final, most=1.0)

    def factor(self, step: jax.Array, steps_per_epoch: int, total_steps: int) -> jax.Array:
        """final + (1 - final) (1 + cos(pi step / total_steps)) / 2."""
        return _cosine(1.0, self.final, step.astype(jnp.float32) / total_steps)


@dataclasses.dataclass(frozen=True)
class OneCycle:
    """Half a cosine up to the base rate, then one down, as PyTorch's OneCycleLR.

    Starts at 1 / div_factor of the base rate and ends, with the last step, at
    1 / (div_factor * final_div_factor) of it. Momentum stays constant.

    Reference: Smith and Topin (2017), arXiv:1708.07120.
    """

    # Share of the run in which the rate rises.
    rise: float = 0.3
    # The base rate over the rate at step 0.
    div_factor: float = 25.0
    # The rate at step 0 over that of the last step.
    final_div_factor: float = 1e4

    def __post_init__(self):
        check_number("rise", self.rise, most=1.0)
        for name in ("div_factor", "final_div_factor"):
            check_number(name, getattr(self, name), positive=True)

    def factor(self, step: jax.Array, steps_per_epoch: int, total_steps: int) -> jax.Array:
        """Interpolates by half cosines between the steps 0, rise * total_steps - 1 and the last."""
        start = 1.0 / self.div_factor
        end = start / self.final_div_factor
        # Where either part is shorter than a step, its length only has to be positive.
        peak = max(self.rise * total_steps - 1.0, 1e-6)
        fall = max(total_steps - 1.0 - peak, 1e-6)
        at = step.astype(jnp.float32)
        rising = _cosine(start, 1.0, jnp.clip(at / peak, 0.0, 1.0))
        falling = _cosine(1.0, end, jnp.clip((at - peak) / fall, 0.0, 1.0))
        return jnp.where(at <= peak, rising, falling)


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Multiplies the rate by ``decay`` when the validation loss stops falling.

    As PyTorch's ReduceLROnPlateau in its relative mode: a validation counts as better if its
    loss is below (1 - threshold) times the best so far; after more than ``patience`` validations
    in a row that are not, the rate falls and the count starts again.
    """

    # In [0, 1].
    decay: float = 0.1
    # In validations, one per ``evaluate_every``.
    patience: int = 10
    # The smallest improvement that counts, as a share of the best loss, in [0, 1).
    threshold: float = 1e-4

    def __post_init__(self):
        check_number("decay", self.decay, most=1.0)
        check_at_least("patience", self.patience, 0)
        check_number("threshold", self.threshold, most=1.0, below=True)

    def factor(self, step: jax.Array, steps_per_epoch: int, total_steps: int) -> jax.Array:
        """1: the factor that follows the loss is ``PlateauState.factor``."""
        return jnp.ones((), jnp.float32)


class PlateauState(NamedTuple):
    """What ``Plateau`` remembers, as JAX or NumPy scalars. Others leave it as it starts.

    Attributes:
      factor: on the learning rate, scalar float32.
      best: lowest validation loss so far, scalar float32.
      waited: validations since then, scalar int32.
    """

    factor: Any
    best: Any
    waited: Any

    @staticmethod
    def start() -> "PlateauState":
        """Before the first validation."""
        return PlateauState(jnp.float32(1.0), jnp.float32(jnp.inf), jnp.int32(0))


def after_validation(schedule: object, state: PlateauState, loss: float) -> PlateauState:
    """The state after a validation with the mean loss ``loss``; for ``Plateau`` alone it moves.

    Args:
      schedule: any schedule.
      state: scalars as NumPy arrays.
      loss: finite.
    """
    if not isinstance(schedule, Plateau):
        return state
    loss32 = np.float32(loss)
    if loss32 < state.best * np.float32(1.0 - schedule.threshold):
        return PlateauState(state.factor, loss32, np.int32(0))
    waited = np.int32(state.waited + 1)
    if waited > schedule.patience:
        return PlateauState(state.factor * np.float32(schedule.decay), state.best, np.int32(0))
    return PlateauState(state.factor, state.best, waited)


def _cosine(start: float, end: float, progress: jax.Array) -> jax.Array:
    """From ``start`` to ``end`` along half a cosine as ``progress`` goes from 0 to 1."""
    return end + (start - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
