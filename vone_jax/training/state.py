"""The training state: everything that changes from step to step, its start, and its parts.

Patterns choose the variables that are frozen, and those with a learning rate of their own. The path
of a variable is its names joined by "/", such as ``back_end/layer1_0/conv1/kernel``. A pattern is a
glob over whole paths in which ``*`` also stands for "/". It matches a variable, or a module with
everything in it: ``back_end/layer1*`` is the first stage of a ResNet, ``stem`` the stem. The
running values of a batch norm have paths, too: ``back_end/layer1_0/bn1/mean``.
"""

import fnmatch
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, path_aware_map, unflatten_dict

from vone_jax import arguments, prng
from vone_jax.training.experiment import Experiment
from vone_jax.training.optimizer import PlateauState, Rates, make_optimizer

# Name of the trained layer weights of similarity regularisation among the parameters.
WEIGHTS = "similarity_weights"


def variables_of(params: Any, batch_stats: Any) -> dict[str, Any]:
    """Return the variables that ``model.apply`` takes: no layer weights, no empty collection."""
    network = {name: leaf for name, leaf in params.items() if name != WEIGHTS}
    return {"params": network} | ({"batch_stats": batch_stats} if batch_stats else {})


@flax.struct.dataclass
class Sums:
    """Metrics as sums over ``seen`` examples, float32 and int32: one division gives the means."""

    loss: Any = np.float32(0.0)
    # Number of examples whose largest logit is that of the label.
    correct: Any = np.int32(0)
    seen: Any = np.int32(0)

    def means(self) -> dict[str, float]:
        """Return the mean ``loss`` and ``accuracy``, on the host."""
        seen = int(self.seen)
        return {"loss": float(self.loss) / seen, "accuracy": int(self.correct) / seen}


@flax.struct.dataclass
class TrainState:
    """Everything that changes from step to step. It is frozen; a step returns a new one.

    A step takes one batch, so ``step`` is also the position in the data.
    """

    # Number of optimiser steps done, scalar int32.
    step: jax.Array
    # Parameters of the network and, with similarity regularisation, weights of the compared layers.
    params: Any
    # Running values of batch norm; empty for networks without it.
    batch_stats: Any
    # State of the optimiser for the parameters that are not frozen.
    opt_state: optax.OptState
    plateau: PlateauState
    # Metrics since the last line of the log, over the steps that were not skipped.
    sums: Sums = Sums()
    # Number of steps that were skipped because they were not finite, and the last of them, int32.
    skipped: Any = np.int32(0)
    last_skipped: Any = np.int32(0)
    # Step of the last validation, int32; 0 before the first.
    validated: Any = np.int32(0)

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that ``model.apply`` takes."""
        return variables_of(self.params, self.batch_stats)


def initial_state(experiment: Experiment, model: nn.Module) -> TrainState:
    """Return the state before the first step, a pure function to be jitted.

    The stream ``"init"`` of the experiment's seed draws the parameters. The layers that similarity
    regularisation compares have equal weights.
    """
    config, root = experiment.model, jax.random.key(experiment.seed)
    keys = {"params": prng.stream(root, "init"), "noise": prng.stream(root, "init noise")}
    image = jnp.zeros((1, config.image_size, config.image_size, config.in_channels or 3))
    variables = model.init(keys, image)
    params = dict(variables["params"])
    if experiment.similarity is not None:
        params[WEIGHTS] = jnp.zeros(len(experiment.similarity.layers), jnp.float32)
    trained, _ = split(params, experiment.freeze)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=make_optimizer(experiment.optimizer).init(trained),
        plateau=PlateauState(),
    )


def matches(pattern: str, path: str) -> bool:
    """Return True if a pattern matches the path of a variable, or of a module above it."""
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}/*")


def is_frozen(freeze: Iterable[str], path: str) -> bool:
    """Return True if one of the patterns ``freeze`` matches the variable with this path."""
    return any(matches(pattern, path) for pattern in freeze)


def split(params: Any, freeze: Collection[str]) -> tuple[Any, Any]:
    """Divide a tree of parameters into those that are trained and those that are frozen."""
    flat = flatten_dict(params, sep="/")
    frozen = {path: leaf for path, leaf in flat.items() if is_frozen(freeze, path)}
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
        return next((factor for pattern, factor in reversed(rates) if matches(pattern, name)), 1.0)

    return path_aware_map(factor_at, params)


def training_apply(model: nn.Module, freeze: Collection[str]) -> Callable[..., Any]:
    """Return ``model.apply``, but batch norms with a frozen running value use and keep them."""

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        is_norm = context.method_name == "__call__" and module.has_variable("batch_stats", "mean")
        paths = ("/".join((*module.path, name)) for name in ("mean", "var"))
        if is_norm and any(is_frozen(freeze, path) for path in paths):
            args, kwargs = args[:1], {"train": False}
        return call(*args, **kwargs)

    def apply(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(intercept):
            return model.apply(*args, **kwargs)

    return apply if freeze else model.apply


def check_patterns(freeze: Collection[str], rates: Rates, params: Any, batch_stats: Any) -> None:
    """Check that each pattern matches a variable of the network, and a parameter is trained."""
    parameters = list(flatten_dict(params, sep="/"))
    variables = [*parameters, *flatten_dict(batch_stats, sep="/")]
    for pattern in freeze:
        _check_pattern("freeze", pattern, variables)
    trained = [path for path in parameters if not is_frozen(freeze, path)]
    if not trained:
        raise ValueError(f"freeze must leave a parameter to train, got {', '.join(freeze)}")
    for pattern, _ in rates:
        _check_pattern("optimizer.rates", pattern, parameters)
        if not any(matches(pattern, path) for path in trained):
            raise ValueError(f"optimizer.rates: freeze covers {pattern!r}; leave out one of them")


def _check_pattern(field: str, pattern: str, paths: Sequence[str]) -> None:
    if not any(matches(pattern, path) for path in paths):
        modules = {path.rpartition("/")[0] for path in paths}
        raise ValueError(
            f"{field}: nothing in the network has the name {pattern!r}"
            f"{arguments.nearest(pattern.rstrip('*/'), sorted(modules))}; there are "
            f"{', '.join(sorted({'/'.join(path.split('/')[:2]) for path in modules}))}"
        )
