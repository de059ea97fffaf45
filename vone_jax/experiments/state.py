"""The training state: everything that changes from step to step, and its start."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from vone_jax import prng
from vone_jax.experiments.experiment import Experiment
from vone_jax.experiments.optimizer import PlateauState, make_optimizer
from vone_jax.experiments.selection import split

# Name of the trained layer weights of similarity regularisation among the parameters.
WEIGHTS = "similarity_weights"


def variables_of(params: Any, batch_stats: Any) -> dict[str, Any]:
    """Return the variables that ``model.apply`` takes: no layer weights, no empty collection."""
    network = {name: leaf for name, leaf in params.items() if name != WEIGHTS}
    return {"params": network} | ({"batch_stats": batch_stats} if batch_stats else {})


@flax.struct.dataclass
class TrainState:
    """Everything that changes from step to step. It is frozen; a step returns a new one."""

    # Number of optimiser steps done, scalar int32.
    step: jax.Array
    # Parameters of the network and, with similarity regularisation, weights of the compared layers.
    params: Any
    # Running values of batch norm; empty for networks without it.
    batch_stats: Any
    # State of the optimiser for the parameters that are not frozen.
    opt_state: optax.OptState
    plateau: PlateauState

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
    image = jnp.zeros((1, config.image_size, config.image_size, config.in_channels), jnp.float32)
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
        plateau=PlateauState.start(),
    )
