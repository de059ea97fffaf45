"""The two compiled functions of a run: one training step, one validation batch.

Both are written for the global batch; the sharding of their arguments decides on how many devices
they run. Keys are derived inside, from (seed, stream, step, example), so nothing random is stored
and the noise of an example does not depend on the mesh.
"""

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
from vone_jax.training.augmentation import Augmentation
from vone_jax.training.optimizer import apply_updates
from vone_jax.training.perturbation import Perturbation, perturbed
from vone_jax.training.similarity import Similarity
from vone_jax.training.similarity_step import make_similarity_gradient
from vone_jax.training.state import TrainState

Batch = dict[str, jax.Array]

# Fields of a batch that mark rows; a step counts the marks over all processes.
MARKS = ("unreadable", "stop")


@flax.struct.dataclass
class StepMetrics:
    """What a training step reports.

    Attributes:
      sums: over the batch, of the loss that was minimised, before the update.
      gradient_norm: Euclidean norm over all parameters, before clipping, float32.
      learning_rate: that the step used, float32.
      finite: whether the step was taken, bool; it is not where the loss, the gradient or the
        state it leads to has a NaN or an infinity.
      marks: rows that are marked, int32, for each of ``MARKS`` that the batch has.
    """

    sums: objective.Sums
    gradient_norm: jax.Array
    learning_rate: jax.Array
    finite: jax.Array
    marks: dict[str, jax.Array]


def make_loss(model: nn.Module, label_smoothing: float, remat: bool) -> Callable[..., Any]:
    """The loss of a batch in training.

    Args:
      model: see ``models.create``.
      label_smoothing: see ``objective.cross_entropy``.
      remat: keep only the results of convolutions and matrix products for the backward pass.

    Returns:
      ``(params, batch_stats, batch, noise_key, dropout_key) -> (mean, (sums, batch_stats))``.
    """

    def loss_fn(params: Any, batch_stats: Any, batch: Batch, noise_key: Any, dropout_key: Any):
        variables = {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})
        logits, updated = model.apply(
            variables,
            batch["image"],
            train=True,
            noise_key=prng.index_keys(noise_key, batch["index"]),
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        losses = objective.cross_entropy(logits, batch["label"], label_smoothing)
        sums = objective.batch_sums(losses, logits, batch["label"])
        return jnp.mean(losses), (sums, updated.get("batch_stats", {}))

    if remat:
        return jax.checkpoint(loss_fn, policy=jax.checkpoint_policies.dots_saveable)
    return loss_fn


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    rate: Callable[[jax.Array], jax.Array],
    *,
    seed: int,
    label_smoothing: float,
    mesh: meshes.Mesh,
    augment: Augmentation | None = None,
    accumulation_steps: int = 1,
    remat: bool = False,
    perturbation: Perturbation = None,
    similarity: Similarity | None = None,
    targets: Any = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """Compiles the step once for a batch shape.

    Args:
      model: see ``models.create``.
      optimizer: see ``make_optimizer``.
      rate: see ``learning_rate``.
      seed: of the experiment.
      label_smoothing: see ``objective.cross_entropy``.
      mesh: that the state is replicated on and batches are sharded over.
      augment: what happens to the images first, see ``make_augmentation``.
      accumulation_steps: number of parts, a divisor of the batch size. The gradient is the mean
        of theirs. Batch norm uses the statistics of one part at a time, and moves its running
        values after each, so only networks without it learn the same from any number of parts.
      remat: see ``make_loss``.
      perturbation: what is done to the images after that, from the labels and the network as it
        is, in evaluation mode.
      similarity: adds the gradient of similarity regularisation, which the reported loss leaves
        out.
      targets: images and similarities of the regularisation, see ``make_similarity_gradient``.

    Returns:
      ``(state, batch) -> (state, metrics)``. The batch has ``image`` (N, H, W, C), ``label``
      (N,), ``index`` (N,), the example's number in the data set, and perhaps ``MARKS``, bool (N,).
      A step that is not finite leaves all but ``state.step`` as it was. The state passed in is
      donated: it must not be used again.
    """

    plain_gradient_fn = jax.grad(make_loss(model, label_smoothing, remat), has_aux=True)
    similarity_fn = None
    if similarity is not None:
        similarity_fn = make_similarity_gradient(model, similarity, mesh)

    def gradient_fn(
        params: Any,
        batch_stats: Any,
        batch: Batch,
        noise_key: Any,
        dropout_key: Any,
        attack_key: Any,
    ):
        if perturbation is not None:
            variables = {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})
            keys = prng.index_keys(attack_key, batch["index"])
            images, labels = batch["image"], batch["label"]
            batch = batch | {
                "image": perturbed(perturbation, model, variables, keys, images, labels)
            }
        return plain_gradient_fn(params, batch_stats, batch, noise_key, dropout_key)

    @partial(jax.jit, donate_argnums=0, out_shardings=meshes.replicated(mesh))
    def train_step(
        state: TrainState, batch: Batch, targets: Any = None
    ) -> tuple[TrainState, StepMetrics]:
        root = jax.random.key(seed)
        noise_key, dropout_key, augmentation_key, attack_key = (
            prng.fold(prng.stream(root, name), state.step)
            for name in ("train noise", "dropout", "augmentation", "perturbation")
        )
        marks = {m: jnp.sum(batch[m], dtype=jnp.int32) for m in MARKS if m in batch}
        batch = {name: batch[name] for name in ("image", "label", "index")}
        if augment is not None:
            batch["image"] = augment(augmentation_key, batch["image"], batch["index"])

        if accumulation_steps == 1:
            gradients, (sums, batch_stats) = gradient_fn(
                state.params, state.batch_stats, batch, noise_key, dropout_key, attack_key
            )
        else:
            gradients, (sums, batch_stats) = _accumulated(
                lambda stats, part, number: gradient_fn(
                    state.params, stats, part, noise_key, prng.fold(dropout_key, number), attack_key
                ),
                state.batch_stats,
                batch,
                accumulation_steps,
                # XLA runs convolutions that are inside a loop many times slower on CPUs.
                unroll=mesh.devices.flat[0].platform == "cpu",
            )

        if similarity_fn is not None:
            key = prng.fold(prng.stream(root, "similarity"), state.step)
            extra = similarity_fn(state.params, state.batch_stats, targets, key)
            gradients = jax.tree.map(jnp.add, gradients, extra)

        norm = optax.tree.norm(gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        learning_rate = rate(state.step) * state.plateau.factor
        before = (state.params, state.batch_stats, state.opt_state)
        after = (apply_updates(state.params, updates, learning_rate), batch_stats, opt_state)
        finite = _all_finite((sums.loss, norm, after))
        params, batch_stats, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), after, before
        )
        new_state = TrainState(state.step + 1, params, batch_stats, opt_state, state.plateau)
        return new_state, StepMetrics(sums, norm, learning_rate, finite, marks)

    return train_step if targets is None else partial(train_step, targets=targets)


def _accumulated(
    gradient_fn: Callable[[Any, Batch, jax.Array], Any],
    batch_stats: Any,
    batch: Batch,
    parts: int,
    unroll: bool,
) -> Any:
    """Mean gradient, sums and last batch statistics over the parts of a batch, one by one.

    Part i has the rows i, i + parts, i + 2 parts, ...: a share of those of every device.

    Args:
      gradient_fn: ``(batch_stats, part, number) -> (gradients, (sums, batch_stats))``.
      batch_stats: before the first part.
      batch: of N rows, a multiple of ``parts``.
      parts: number of parts.
      unroll: compile each part by itself instead of a loop over them.
    """
    stacked = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), batch)
    first = jax.tree.map(lambda x: x[0], stacked)
    shapes = jax.eval_shape(gradient_fn, batch_stats, first, jnp.int32(0))
    gradients, (sums, _) = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(carry: Any, part_and_number: Any):
        totals, batch_stats = carry
        gradients, (sums, batch_stats) = gradient_fn(batch_stats, *part_and_number)
        return (jax.tree.map(jnp.add, totals, (gradients, sums)), batch_stats), None

    start = ((gradients, sums), batch_stats)
    ((gradients, sums), batch_stats), _ = jax.lax.scan(
        add, start, (stacked, jnp.arange(parts)), unroll=unroll
    )
    return jax.tree.map(lambda g: g / parts, gradients), (sums, batch_stats)


def _all_finite(tree: Any) -> jax.Array:
    """Whether no array of a tree has a NaN or an infinity."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


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
