"""The optimiser and its learning rate."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vone_jax.training.experiment import OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """SGD in PyTorch's form, up to the learning rate.

    With the gradient g of the loss, clipped first, the update u of a parameter p is
    g' = g + weight_decay p;  v = momentum v + g';  u = g' + momentum v if nesterov, else v.
    The step subtracts learning_rate * u, so a change of the rate acts at once on the momentum that
    has been gathered (``torch.optim.SGD`` with dampening 0).
    """
    parts = []
    if config.gradient_clip is not None:
        parts.append(optax.clip_by_global_norm(config.gradient_clip))
    if config.weight_decay:
        mask = _is_kernel if config.decayed == "kernels" else None
        parts.append(optax.add_decayed_weights(config.weight_decay, mask))
    return optax.chain(*parts, optax.trace(config.momentum, config.nesterov))


def learning_rate(
    config: OptimizerConfig, steps_per_epoch: int, total_steps: int
) -> Callable[[jax.Array], jax.Array]:
    """The learning rate as a function of the number of steps done, before any plateau.

    Args:
      config: of the optimiser.
      steps_per_epoch: of the data.
      total_steps: of the run.

    Returns:
      A function from a scalar int32 step to the float32 rate of the step that follows: the base
      rate times the factor of the schedule times, while warming up, (step + 1) / warm-up steps.
    """
    warmup_steps = max(1, round(config.warmup_epochs * steps_per_epoch))

    def rate(step: jax.Array) -> jax.Array:
        factor = config.schedule.factor(step, steps_per_epoch, total_steps)
        warmup = jnp.minimum(1.0, (step + 1).astype(jnp.float32) / warmup_steps)
        return config.learning_rate * warmup * factor

    return rate


def apply_updates(params: Any, updates: Any, rate: jax.Array) -> Any:
    """params - rate * updates, leaf by leaf."""
    return jax.tree.map(lambda p, u: p - rate * u, params, updates)


def _is_kernel(params: Any) -> Any:
    # Biases and batch norm's scales are the parameters with one axis.
    return jax.tree.map(lambda p: p.ndim > 1, params)
