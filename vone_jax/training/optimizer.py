"""The optimiser: stochastic gradient descent, its settings and its learning-rate schedules.

The factor of the schedule ``Plateau`` follows the validation loss, so it is part of the training
state, see ``PlateauState``. Every other factor is a function of the step.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vone_jax import arguments
from vone_jax.arguments import POSITIVE, FromZero, Positive, Range, Share
from vone_jax.models import V1_MODULES

# Rates by pattern: (pattern, factor on the learning rate).
Rates = tuple[tuple[str, float], ...]
_BelowOne = Annotated[float, Range(most=1.0, below=True)]


class _Schedule:
    def __post_init__(self) -> None:
        arguments.fields(self)

    def factor(self, step: jax.Array, steps_per_epoch: int, total_steps: int) -> jax.Array:
        """Return the float32 factor on the base rate for the step after ``step`` steps."""
        return jnp.ones((), jnp.float32)


@dataclasses.dataclass(frozen=True)
class Constant(_Schedule):
    """The base rate throughout the run."""


@dataclasses.dataclass(frozen=True)
class Step(_Schedule):
    """The rate is multiplied by ``decay`` at the start of each of ``epochs``, counted from 0."""

    # Increasing, for instance (20, 40, 60).
    epochs: tuple[float, ...]
    # In [0, 1].
    decay: Share = 0.1

    def __post_init__(self):
        epochs = self.epochs if isinstance(self.epochs, tuple) else ()
        if not epochs or list(epochs) != sorted(set(epochs)) or epochs[0] <= 0:
            raise ValueError(
                "epochs must be a tuple of positive and increasing numbers, such as (20, 40), got "
                f"{self.epochs!r}"
            )
        super().__post_init__()

    def factor(self, step: jax.Array, steps_per_epoch: int, total_steps: int) -> jax.Array:
        # Steps are counted in an int32.
        boundaries = [min(round(e * steps_per_epoch), arguments.LARGEST_COUNT) for e in self.epochs]
        factors = [self.decay**i for i in range(len(boundaries) + 1)]
        started = jnp.sum(step >= jnp.asarray(boundaries, jnp.int32), dtype=jnp.int32)
        return jnp.asarray(factors, jnp.float32)[started]


@dataclasses.dataclass(frozen=True)
class Cosine(_Schedule):
    """Half a cosine from the base rate at step 0 to ``final`` times it at the end of the run."""

    # In [0, 1].
    final: Share = 0.0

    def factor(self, step: jax.Array, steps_per_epoch: int, total_steps: int) -> jax.Array:
        return _cosine(1.0, self.final, step.astype(jnp.float32) / total_steps)


@dataclasses.dataclass(frozen=True)
class OneCycle(_Schedule):
    """Half a cosine up to the base rate, then half a cosine down, as in PyTorch's OneCycleLR.

    The rate starts at 1 / div_factor of the base rate. It ends, at the last step, at
    1 / (div_factor * final_div_factor) of the base rate. Momentum stays constant.

    Reference: Smith and Topin (2017), arXiv:1708.07120.
    """

    # Share of the run in which the rate rises.
    rise: Share = 0.3
    # The base rate divided by the rate at step 0.
    div_factor: Positive = 25.0
    # The rate at step 0 divided by the rate at the last step.
    final_div_factor: Positive = 1e4

    def factor(self, step: jax.Array, steps_per_epoch: int, total_steps: int) -> jax.Array:
        """Interpolate by half cosines between step 0, step rise * total_steps - 1 and the last."""
        start = 1.0 / self.div_factor
        end = start / self.final_div_factor
        # The length of a part that is shorter than a step only has to be positive.
        peak = max(self.rise * total_steps - 1.0, 1e-6)
        fall = max(total_steps - 1.0 - peak, 1e-6)
        at = step.astype(jnp.float32)
        rising = _cosine(start, 1.0, jnp.clip(at / peak, 0.0, 1.0))
        falling = _cosine(1.0, end, jnp.clip((at - peak) / fall, 0.0, 1.0))
        return jnp.where(at <= peak, rising, falling)


@dataclasses.dataclass(frozen=True)
class Plateau(_Schedule):
    """The rate is multiplied by ``decay`` when the validation loss stops falling.

    This is PyTorch's ReduceLROnPlateau in its relative mode. A validation is an improvement if its
    loss is below (1 - threshold) times the best loss so far. After more than ``patience``
    validations in a row without improvement the rate falls, and the count starts again.
    """

    # In [0, 1].
    decay: Share = 0.1
    # Number of validations; there is one per ``evaluate_every``.
    patience: FromZero = 10
    # The smallest improvement that counts, as a share of the best loss, in [0, 1).
    threshold: _BelowOne = 1e-4


class PlateauState(NamedTuple):
    """The memory of ``Plateau``, as JAX or NumPy scalars. Other schedules do not change it.

    The defaults are those before the first validation.
    """

    # Factor on the learning rate, float32.
    factor: Any = np.float32(1.0)
    # Lowest validation loss so far, float32.
    best: Any = np.float32(np.inf)
    # Number of validations since then, int32.
    waited: Any = np.int32(0)


def after_validation(schedule: object, state: PlateauState, loss: float) -> PlateauState:
    """Return the state, as NumPy scalars, after a validation with a finite mean loss."""
    if not isinstance(schedule, Plateau):
        return state
    loss32 = np.float32(loss)
    if loss32 < state.best * np.float32(1.0 - schedule.threshold):
        return PlateauState(state.factor, loss32, np.int32(0))
    waited = np.int32(state.waited + 1)
    if waited > schedule.patience:
        return PlateauState(state.factor * np.float32(schedule.decay), state.best, np.int32(0))
    return PlateauState(state.factor, state.best, waited)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Stochastic gradient descent in PyTorch's form, see ``make_optimizer``."""

    # Base learning rate, which the schedule multiplies.
    learning_rate: Positive = 0.1
    # Factors on the learning rate of parts of the network, as (pattern, factor): patterns as in
    # freeze, factors > 0. The last pattern that matches a parameter counts.
    rates: Rates = ()
    # Learning-rate schedule over the run.
    schedule: Constant | Step | Cosine | OneCycle | Plateau = Constant()
    # Epochs of warm-up: a linear rise from 0 to 1 that multiplies the rate of the schedule.
    warmup_epochs: float = 0.0
    # Share of the last update that is kept, in [0, 1).
    momentum: _BelowOne = 0.9
    # Factor in [0, 1]. The parameters times this are added to the gradient before momentum, which
    # is coupled weight decay as in PyTorch.
    weight_decay: Share = 1e-4
    # Parameters outside V1 that decay: "all", or "kernels" (no biases and nothing of batch norm).
    decayed: Literal["all", "kernels"] = "all"
    # Share of the target distribution that is spread evenly over the classes.
    label_smoothing: _BelowOne = 0.0
    # Largest Euclidean norm of the gradient over all parameters; None does not clip.
    gradient_clip: Annotated[float | None, POSITIVE] = None

    def __post_init__(self):
        arguments.fields(self)
        for rate in self.rates:
            if not isinstance(rate, tuple) or len(rate) != 2:
                raise ValueError(f"rates must be pairs (pattern, factor), got {rate!r}")
            arguments.number(f"rates: the factor of {rate[0]!r}", rate[1], POSITIVE)
        if self.warmup_epochs and isinstance(self.schedule, OneCycle):
            raise ValueError("warmup_epochs must be 0 with OneCycle, which has its own warm-up")


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return SGD in PyTorch's form, without the learning rate.

    Let g be the gradient of the loss, clipped first, and p a parameter. Its update is
    v = momentum v + g + weight_decay p, from v = 0 on. The training step subtracts learning_rate *
    v, where the learning rate includes the factor of ``rates``. So a change of the rate acts at
    once on the accumulated momentum, as in ``torch.optim.SGD`` with dampening 0. What is learned
    within V1 does not decay: 0 is not a neutral value there.
    """
    parts = []
    if config.gradient_clip is not None:
        parts.append(optax.clip_by_global_norm(config.gradient_clip))
    if config.weight_decay:
        # Biases and the scales of batch norm are the parameters with one axis.
        least = 2 if config.decayed == "kernels" else 0

        def is_decayed(path: Any, parameter: jax.Array) -> bool:
            return parameter.ndim >= least and path[0].key not in V1_MODULES

        mask = partial(jax.tree_util.tree_map_with_path, is_decayed)
        parts.append(optax.add_decayed_weights(config.weight_decay, mask))
    return optax.chain(*parts, optax.trace(config.momentum))


def learning_rate(
    config: OptimizerConfig, steps_per_epoch: int, total_steps: int
) -> Callable[[jax.Array], jax.Array]:
    """Return the learning rate as a function of the steps done, without the factor of ``Plateau``.

    The function takes a scalar int32 and returns the float32 rate of the next step: the base rate,
    times the factor of the schedule, times (step + 1) / warm-up steps during warm-up.
    """
    warmup_steps = max(1, round(config.warmup_epochs * steps_per_epoch))

    def rate(step: jax.Array) -> jax.Array:
        factor = config.schedule.factor(step, steps_per_epoch, total_steps)
        warmup = jnp.minimum(1.0, (step + 1).astype(jnp.float32) / float(warmup_steps))
        return config.learning_rate * warmup * factor

    return rate


def euclidean_norm(tree: Any) -> jax.Array:
    """Return the Euclidean norm over all values of a tree of float arrays, a scalar.

    Each array is summed over all axes but the last. One sum over the channels of all arrays
    follows. A TPU adds channels side by side, so a sum of each array to one number takes longer.
    """
    squares = [jnp.atleast_1d(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)]
    channels = [jnp.sum(each, axis=tuple(range(each.ndim - 1))) for each in squares]
    # Without the barrier XLA sums each array to one number after all.
    return jnp.sqrt(jnp.sum(jax.lax.optimization_barrier(jnp.concatenate(channels))))


def _cosine(start: float, end: float, progress: jax.Array) -> jax.Array:
    """Go from ``start`` to ``end`` along half a cosine as ``progress`` goes from 0 to 1."""
    return end + (start - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
