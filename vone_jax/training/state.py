"""The training state: everything that changes from step to step, and nothing random."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from vone_jax import prng
from vone_jax.training.schedules import PlateauState
from vone_jax.training.similarity_step import WEIGHTS


@flax.struct.dataclass
class TrainState:
    """A frozen record; a step makes a new one.

    Attributes:
      step: number of optimiser steps done, scalar int32.
      params: trained parameters: the network's and, with similarity regularisation, the weights
        of the layers that it compares.
      batch_stats: running values of batch norm; empty for networks without it.
      opt_state: of the optimiser: momentum.
      plateau: of the ``Plateau`` schedule.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    plateau: PlateauState

    @property
    def variables(self) -> dict[str, Any]:
        """What ``model.apply`` takes."""
        params = {name: leaf for name, leaf in self.params.items() if name != WEIGHTS}
        if not self.batch_stats:
            return {"params": params}
        return {"params": params, "batch_stats": self.batch_stats}


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    seed: int,
    image_shape: tuple[int, int, int],
    compared_layers: int = 0,
) -> TrainState:
    """The state before the first step: a pure function of its arguments, to be jitted.

    Args:
      model: see ``models.create``.
      optimizer: see ``make_optimizer``.
      seed: of the experiment; the initial parameters come from its stream ``"init"``.
      image_shape: (H, W, C).
      compared_layers: number of layers that similarity regularisation compares; their weights
        begin equal.
    """
    root = jax.random.key(seed)
    keys = {"params": prng.stream(root, "init"), "noise": prng.stream(root, "init noise")}
    variables = model.init(keys, jnp.zeros((1, *image_shape), jnp.float32))
    params = dict(variables["params"])
    if compared_layers:
        params[WEIGHTS] = jnp.zeros(compared_layers, jnp.float32)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        plateau=PlateauState.start(),
    )
