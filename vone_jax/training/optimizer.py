"""The optimiser: a chain of Optax, its settings, its schedules, and the parts that it trains.

The factor of the schedule ``Plateau`` follows the validation loss, so it is part of the training
state, see ``PlateauState``. Everything else is a function of the step.

Parts of a network that are frozen, or have a rate of their own, are chosen by patterns. The path of
a variable is its names joined by "/", such as ``back_end/layer1_0/conv1/kernel``. A pattern is a
glob over whole paths in which ``*`` also stands for "/". It matches a variable, or a module with
everything in it: ``back_end/layer1*`` is the first stage of a ResNet, ``stem`` the stem. The
running values of a batch norm have paths, too: ``back_end/layer1_0/bn1/mean``.
"""

import dataclasses
import fnmatch
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, path_aware_map, unflatten_dict

from vone_jax import arguments
from vone_jax.arguments import POSITIVE, FromZero, Positive, Range, Share
from vone_jax.models import V1_MODULES
from vone_jax.models.vit import TOKEN_PARAMETERS

# Rates by pattern: (pattern, factor on the learning rate).
Rates = tuple[tuple[str, float], ...]
_BelowOne = Annotated[float, Range(most=1.0, below=True)]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Base of the schedules, which multiply the base rate; also of a user's."""

    def __post_init__(self) -> None:
        arguments.fields(self)

    def factor(self, step: jax.Array, steps_per_epoch: int, total_steps: int) -> jax.Array:
        """Return the float32 factor on the base rate for the step after ``step`` steps."""
        return jnp.ones((), jnp.float32)

    def momentum(self, step: jax.Array, total_steps: int) -> jax.Array | None:
        """Return the momentum of that step; None for that of ``OptimizerConfig``."""
        return None

    def after_validation(self, state: "PlateauState", loss: float) -> "PlateauState":
        """Return the state, as NumPy scalars, after a validation with a finite mean loss."""
        return state


@dataclasses.dataclass(frozen=True)
class Constant(Schedule):
    """The base rate throughout the run."""


@dataclasses.dataclass(frozen=True)
class Step(Schedule):
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
class Cosine(Schedule):
    """Half a cosine from the base rate at step 0 to ``final`` times it at the end of the run."""

    # In [0, 1].
    final: Share = 0.0

    def factor(self, step: jax.Array, steps_per_epoch: int, total_steps: int) -> jax.Array:
        return _cosine(1.0, self.final, step.astype(jnp.float32) / total_steps)


@dataclasses.dataclass(frozen=True)
class OneCycle(Schedule):
    """Half a cosine up to the base rate, then half a cosine down, as in PyTorch's OneCycleLR.

    The rate starts at 1 / div_factor of the base rate. It ends, at the last step, at
    1 / (div_factor * final_div_factor) of the base rate. The momentum goes down from max_momentum
    to base_momentum while the rate goes up, and up again while the rate goes down.

    Reference: Smith and Topin (2017), arXiv:1708.07120.
    """

    # Share of the run in which the rate rises.
    rise: Share = 0.3
    # The base rate divided by the rate at step 0.
    div_factor: Positive = 25.0
    # The rate at step 0 divided by the rate at the last step.
    final_div_factor: Positive = 1e4
    # Let the momentum follow the rate, as PyTorch does by default; False keeps that of the
    # optimiser.
    cycle_momentum: bool = True
    # The momentum at the highest rate, in [0, 1).
    base_momentum: _BelowOne = 0.85
    # The momentum at the first and the last step, in [0, 1).
    max_momentum: _BelowOne = 0.95

    def factor(self, step: jax.Array, steps_per_epoch: int, total_steps: int) -> jax.Array:
        start = 1.0 / self.div_factor
        return self._between(step, total_steps, start, 1.0, start / self.final_div_factor)

    def momentum(self, step: jax.Array, total_steps: int) -> jax.Array | None:
        if not self.cycle_momentum:
            return None
        ends = self.max_momentum
        return self._between(step, total_steps, ends, self.base_momentum, ends)

    def _between(
        self, step: jax.Array, total_steps: int, start: float, middle: float, end: float
    ) -> jax.Array:
        """Interpolate by half cosines between step 0, step rise * total_steps - 1 and the last."""
        # The length of a part that is shorter than a step only has to be positive.
        peak = max(self.rise * total_steps - 1.0, 1e-6)
        fall = max(total_steps - 1.0 - peak, 1e-6)
        at = step.astype(jnp.float32)
        rising = _cosine(start, middle, jnp.clip(at / peak, 0.0, 1.0))
        falling = _cosine(middle, end, jnp.clip((at - peak) / fall, 0.0, 1.0))
        return jnp.where(at <= peak, rising, falling)


@dataclasses.dataclass(frozen=True)
class Cyclic(Schedule):
    """A straight line up from 0 to the base rate, and one down to 0, which the last step has.

    Reference: Wong, Rice and Kolter (2020), arXiv:2001.03994, whose rate rises in half of the run
    for CIFAR-10, and in two fifths for MNIST.
    """

    # Share of the run in which the rate rises.
    rise: Share = 0.5

    def factor(self, step: jax.Array, steps_per_epoch: int, total_steps: int) -> jax.Array:
        done = (step + 1).astype(jnp.float32) / float(total_steps)
        places = jnp.asarray([0.0, self.rise, 1.0], jnp.float32)
        return jnp.interp(done, places, jnp.asarray([0.0, 1.0, 0.0], jnp.float32))


@dataclasses.dataclass(frozen=True)
class Plateau(Schedule):
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

    def after_validation(self, state: "PlateauState", loss: float) -> "PlateauState":
        loss32 = np.float32(loss)
        if loss32 < state.best * np.float32(1.0 - self.threshold):
            return PlateauState(state.factor, loss32, np.int32(0))
        waited = np.int32(state.waited + 1)
        if waited > self.patience:
            return PlateauState(state.factor * np.float32(self.decay), state.best, np.int32(0))
        return PlateauState(state.factor, state.best, waited)


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


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser, in PyTorch's form, see ``transformation``."""

    # Stochastic gradient descent, Adam, AdamW (weight decay apart from the gradient), or LAMB
    # (AdamW with updates in proportion to the norm of each parameter, for large batches).
    method: Literal["sgd", "adam", "adamw", "lamb"] = "sgd"
    # Base learning rate, which the schedule multiplies.
    learning_rate: Positive = 0.1
    # Factors on the learning rate of parts of the network, as (pattern, factor): patterns as in
    # freeze, factors > 0. The last pattern that matches a parameter counts.
    rates: Rates = ()
    # Learning-rate schedule over the run.
    schedule: Schedule = Constant()
    # Epochs of warm-up: a linear rise from 0 to 1 that multiplies the rate of the schedule.
    warmup_epochs: float = 0.0
    # Share of the last update that is kept, in [0, 1): momentum of SGD, beta 1 of the others.
    momentum: _BelowOne = 0.9
    # Nesterov's momentum, for SGD.
    nesterov: bool = False
    # Share of the last mean square of gradients that is kept, in [0, 1), for all but SGD.
    beta2: _BelowOne = 0.999
    # Added to the root of the mean square, > 0, for all but SGD.
    epsilon: Positive = 1e-8
    # Factor in [0, 1] on the parameters, which are then added to the gradient (SGD, Adam) or to the
    # update (AdamW, LAMB).
    weight_decay: Share = 1e-4
    # Parameters outside V1 that decay: "all", or "kernels" (no biases, nothing of a normalisation,
    # and neither the class token nor the positions of a transformer, as in timm and big_vision).
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
        if self.nesterov and self.method != "sgd":
            raise ValueError(f"nesterov is for the method sgd, got {self.method}")
        if self.warmup_epochs and isinstance(self.schedule, OneCycle):
            raise ValueError("warmup_epochs must be 0 with OneCycle, which has its own warm-up")

    @property
    def largest_change(self) -> float:
        """A larger gradient or change of the parameters counts as not finite.

        Smaller ones cannot take a finite parameter or momentum to infinity, which in float32 begins
        at 3.4e38. All methods but SGD keep the squares of gradients, and those of a user may.
        """
        ours = type(self).transformation is OptimizerConfig.transformation
        return 1e30 if ours and self.method == "sgd" else 1e15

    def transformation(
        self, rate: float | jax.Array = 1.0, momentum: jax.Array | None = None
    ) -> optax.GradientTransformation:
        """Return the optimiser at a learning rate, whose updates are added to the parameters.

        Let g be the gradient of the loss, clipped first, and p a parameter. SGD is that of PyTorch
        with dampening 0: v = momentum v + g + weight_decay p from v = 0 on, and p = p - rate v. So
        a change of the rate acts at once on the accumulated momentum. Adam and AdamW (Loshchilov
        and Hutter, arXiv:1711.05101) are those of PyTorch, LAMB is that of You et al.
        (arXiv:1904.00962). What is learned within V1 does not decay: 0 is not a neutral value
        there. A subclass may return any other optimiser of Optax.

        Args:
          rate: the learning rate, without the factors of ``rates``. It may be a traced value, since
            the state does not depend on it.
          momentum: as for ``rate``. Default: that of the settings.
        """
        beta1: Any = self.momentum if momentum is None else momentum

        def is_decayed(path: Any, parameter: jax.Array) -> bool:
            # Biases and the scales of normalisations are the parameters with one axis.
            first, last = (getattr(path[place], "key", None) for place in (0, -1))
            is_kernel = parameter.ndim > 1 and last not in TOKEN_PARAMETERS
            return (self.decayed == "all" or is_kernel) and first not in V1_MODULES

        mask = partial(jax.tree_util.tree_map_with_path, is_decayed)
        decay = [optax.add_decayed_weights(self.weight_decay, mask)] if self.weight_decay else []
        adam = partial(optax.scale_by_adam, beta1, self.beta2, self.epsilon)
        limit = self.gradient_clip
        parts = [] if limit is None else [optax.clip_by_global_norm(limit)]
        if self.method == "sgd":
            parts += [*decay, optax.trace(beta1, self.nesterov)]
        elif self.method == "adam":
            parts += [*decay, adam()]
        else:
            parts += [adam(), *decay]
            if self.method == "lamb":
                parts.append(optax.scale_by_trust_ratio())
        if self.rates:
            factors: Any = {
                factor: optax.scale(factor) for factor in (1.0, *dict(self.rates).values())
            }
            parts.append(optax.partition(factors, partial(rate_factors, rates=self.rates)))
        return optax.chain(*parts, optax.scale(-rate))


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


def matches(path: str, *patterns: str) -> bool:
    """Return True if a pattern matches the variable at a path, or a module above it."""
    forms = (form for pattern in patterns for form in (pattern, f"{pattern}/*"))
    return any(fnmatch.fnmatchcase(path, form) for form in forms)


def split(params: Any, freeze: Collection[str]) -> tuple[Any, Any]:
    """Divide a tree of parameters into those that are trained and those that are frozen."""
    flat = flatten_dict(params, sep="/")
    frozen = {path: leaf for path, leaf in flat.items() if matches(path, *freeze)}
    trained = {path: leaf for path, leaf in flat.items() if path not in frozen}
    return unflatten_dict(trained, sep="/"), unflatten_dict(frozen, sep="/")


def merge(trained: Any, frozen: Any) -> Any:
    """Put the two trees of ``split`` together again."""
    return unflatten_dict(flatten_dict(trained) | flatten_dict(frozen))


def rate_factors(params: Any, rates: Rates) -> Any:
    """Return the factor on the learning rate of each parameter, as a tree of floats.

    The last pattern that matches a parameter counts. If none matches, the factor is 1.
    """

    def factor_at(path: tuple[Any, ...], _: Any) -> float:
        name = "/".join(path)
        return next((factor for pattern, factor in reversed(rates) if matches(name, pattern)), 1.0)

    return path_aware_map(factor_at, params)


def check_patterns(freeze: Collection[str], rates: Rates, params: Any, batch_stats: Any) -> None:
    """Check that each pattern matches a variable of the network, and a parameter is trained."""
    parameters = [*flatten_dict(params, sep="/")]
    variables = [*parameters, *flatten_dict(batch_stats, sep="/")]
    for pattern in freeze:
        _check_pattern("freeze", pattern, variables)
    for pattern, _ in rates:
        _check_pattern("optimizer.rates", pattern, parameters)
    if all(matches(path, *freeze) for path in parameters):
        raise ValueError(f"freeze must leave a parameter to train, got {', '.join(freeze)}")


def _check_pattern(field: str, pattern: str, paths: Sequence[str]) -> None:
    if not any(matches(path, pattern) for path in paths):
        modules = {path.rpartition("/")[0] for path in paths}
        raise ValueError(
            f"{field}: nothing in the network has the name {pattern!r}"
            f"{arguments.nearest(pattern.rstrip('*/'), sorted(modules))}; there are "
            f"{', '.join(sorted({'/'.join(path.split('/')[:2]) for path in modules}))}"
        )


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
