"""The two compiled functions of a run: one training step, one validation batch.

Both are written for the global batch; the sharding of their arguments decides on how many devices
they run. Keys are derived inside, from (seed, stream, step, example), so nothing random is stored
and the noise of an example does not depend on the mesh.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from vone_jax import mesh as meshes
from vone_jax import prng
from vone_jax.training import objective
from vone_jax.training.optimizer import apply_updates
from vone_jax.training.state import TrainState

Batch = dict[str, jax.Array]


@flax.struct.dataclass
class StepMetrics:
    """What a training step reports.

    Attributes:
      sums: over the batch, of the loss that was minimised, before the update.
      gradient_norm: Euclidean norm over all parameters, before clipping, float32.
      learning_rate: that the step used, float32.
    """

    sums: objective.Sums
    gradient_norm: jax.Array
    learning_rate: jax.Array


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    rate: Callable[[jax.Array], jax.Array],
    *,
    seed: int,
    label_smoothing: float,
    mesh: meshes.Mesh,
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """Compiles the step once for a batch shape.

    Args:
      model: see ``models.create``.
      optimizer: see ``make_optimizer``.
      rate: see ``learning_rate``.
      seed: of the experiment.
      label_smoothing: see ``objective.cross_entropy``.
      mesh: that the state is replicated on and batches are sharded over.

    Returns:
      ``(state, batch) -> (state, metrics)``. The batch has ``image`` (N, H, W, C), ``label``
      (N,) and ``index`` (N,), the example's number in the data set. The state passed in is
      donated: it must not be used again.
    """

    @partial(jax.jit, donate_argnums=0, out_shardings=meshes.replicated(mesh))
    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        root = jax.random.key(seed)
        noise_key = prng.fold(prng.stream(root, "train noise"), state.step)
        rngs = {"dropout": prng.fold(prng.stream(root, "dropout"), state.step)}

        def loss_fn(params: Any):
            logits, updated = model.apply(
                dataclasses.replace(state, params=params).variables,
                batch["image"],
                train=True,
                noise_key=prng.index_keys(noise_key, batch["index"]),
                rngs=rngs,
                mutable=["batch_stats"],
            )
            losses = objective.cross_entropy(logits, batch["label"], label_smoothing)
            sums = objective.batch_sums(losses, logits, batch["label"])
            return jnp.mean(losses), (sums, updated.get("batch_stats", {}))

        gradients, (sums, batch_stats) = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        learning_rate = rate(state.step) * state.plateau.factor
        new_state = TrainState(
            step=state.step + 1,
            params=apply_updates(state.params, updates, learning_rate),
            batch_stats=batch_stats,
            opt_state=opt_state,
            plateau=state.plateau,
        )
        return new_state, StepMetrics(sums, optax.tree.norm(gradients), learning_rate)

    return train_step


def make_eval_step(
    model: nn.Module, *, seed: int, mesh: meshes.Mesh
) -> Callable[[Any, Batch], objective.Sums]:
    """Compiles the sums over one validation batch.

    The noise of an example depends on its index alone: it is the same in every validation of a
    run, so the curve over steps is not blurred by other draws.

    Returns:
      ``(variables, batch) -> sums``; the batch has ``mask`` (N,) beside image, label and index.
    """

    @partial(jax.jit, out_shardings=meshes.replicated(mesh))
    def eval_step(variables: Any, batch: Batch) -> objective.Sums:
        noise_key = prng.stream(jax.random.key(seed), "validation noise")
        logits: Any = model.apply(
            variables,
            batch["image"],
            train=False,
            noise_key=prng.index_keys(noise_key, batch["index"]),
        )
        losses = objective.cross_entropy(logits, batch["label"])
        return objective.batch_sums(losses, logits, batch["label"], batch["mask"])

    return eval_step
