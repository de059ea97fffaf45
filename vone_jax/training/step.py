"""The two compiled functions of a training: a step, and the validation of a batch.

Both functions are written for the global batch. The sharding of their arguments determines the
devices on which they run. Keys are derived inside, from (seed, stream, step, example). So the state
holds nothing random, and the noise of an example does not depend on the mesh.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from vone_jax import fast, prng
from vone_jax import mesh as meshes
from vone_jax.training.augmentation import make_corruption
from vone_jax.training.experiment import Experiment
from vone_jax.training.optimizer import euclidean_norm, learning_rate, make_optimizer
from vone_jax.training.similarity import make_similarity_gradient
from vone_jax.training.state import (
    Sums,
    TrainState,
    merge,
    rate_factors,
    split,
    training_apply,
    variables_of,
)

Batch = dict[str, jax.Array]

_STREAMS = ("train noise", "dropout", "augmentation", "perturbation", "similarity", "teacher")
# A larger gradient or change of the parameters counts as not finite. Smaller ones cannot take a
# finite parameter or momentum to infinity, which in float32 begins at 3.4e38.
_LARGEST_CHANGE = 1e30


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Return the cross-entropy of each example in nats, computed in float32.

    A share s = ``label_smoothing`` of the target is spread evenly over the classes. The target is
    1 - s + s / classes for the right class and s / classes for the others, as in PyTorch.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    right = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    return -(1.0 - label_smoothing) * right - label_smoothing * jnp.mean(log_probabilities, axis=1)


def batch_sums(
    losses: jax.Array, logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None
) -> Sums:
    """Return the sums over a batch. ``mask`` is False for padding, whose values may be NaN."""
    if mask is None:
        mask = jnp.ones(labels.shape, bool)
    hit = jnp.argmax(logits, axis=-1) == labels
    # Selected, not multiplied: a NaN in a padded row must not reach the sum.
    return Sums(
        loss=jnp.sum(jnp.where(mask, losses, 0.0)),
        correct=jnp.sum(hit & mask, dtype=jnp.int32),
        seen=jnp.sum(mask, dtype=jnp.int32),
    )


@flax.struct.dataclass
class StepMetrics:
    """The metrics of a training step."""

    # Sums over the batch, with the loss that was minimised, before the update.
    sums: Sums
    # Euclidean norm of the gradient over all trained parameters, before clipping, float32.
    gradient_norm: jax.Array
    # Learning rate of the step, without the factors of OptimizerConfig.rates.
    learning_rate: jax.Array
    # True if the update was applied. It is not applied if the loss, the gradient or the statistics
    # of batch norm have a NaN or an infinity, or if the gradient or the change of the parameters is
    # 1e30 or larger.
    finite: jax.Array
    # The term of the similarity regularisation, which ``sums.loss`` does not include; else None.
    similarity: jax.Array | None = None


def divergence(teacher: jax.Array, logits: jax.Array, temperature: float) -> jax.Array:
    """Return KL(teacher || network) of the softmax of logits / temperature, (N,), in nats.

    It is computed in float32, also from logits of lower precision.
    """
    theirs, ours = (
        jax.nn.log_softmax(each.astype(jnp.float32) / temperature) for each in (teacher, logits)
    )
    return jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)


def make_loss(model: nn.Module, experiment: Experiment) -> Callable[..., Any]:
    """Return the training loss of a batch as a function.

    It is ``(trained, frozen, batch_stats, batch, noise_key, dropout_key) -> (mean, (sums,
    batch_stats))``, with the parameters as ``split`` divides them. With ``remat``, only the results
    of convolutions and matrix products are stored for the backward pass. With ``distillation`` the
    batch has the teacher's logits as ``teacher``.
    """
    apply, distillation = training_apply(model, experiment.freeze), experiment.distillation

    def loss_fn(
        trained: Any, frozen: Any, batch_stats: Any, batch: Batch, noise_key: Any, dropout_key: Any
    ):
        logits, updated = apply(
            variables_of(merge(trained, frozen), batch_stats),
            batch["image"],
            train=True,
            noise_key=prng.index_keys(noise_key, batch["index"]),
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        losses = cross_entropy(logits, batch["label"], experiment.optimizer.label_smoothing)
        if distillation is not None:
            away = divergence(batch["teacher"], logits, distillation.temperature)
            losses += distillation.weight * (away - losses)
        sums = batch_sums(losses, logits, batch["label"])
        return jnp.mean(losses), (sums, updated.get("batch_stats", {}))

    if experiment.remat:
        return jax.checkpoint(loss_fn, policy=jax.checkpoint_policies.dots_saveable)
    return loss_fn


def make_train_step(
    model: nn.Module,
    experiment: Experiment,
    steps_per_epoch: int,
    mesh: meshes.Mesh,
    targets: Any = None,
    teacher: Any = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """Return the training step, which is compiled once per batch shape.

    Corruptions change the images first, the perturbation second. The perturbation uses the labels
    and the current network in evaluation mode. If a batch has several parts, the gradient is the
    mean over the parts. Batch norm uses the statistics of one part at a time and updates its
    running values after each. The dropout of a row depends on its place in its part. So only
    networks without batch norm and dropout give the same result for any number of parts.

    The gradient of the similarity regularisation is added, with ``targets`` of ``make_targets``.
    The loss in the metrics does not include this term. The ``teacher`` of the distillation gets
    corrupted but not perturbed images.

    Returns:
      ``(state, batch) -> (state, metrics)``. The batch has ``image`` (N, H, W, C), ``label``
      (N,) and ``index`` (N,), the example's number in the data set. A step that is not finite
      changes only the counters of the state. The state passed in is donated: do not use it again.
    """
    config, perturbation = experiment.data, experiment.perturbation
    optimizer = make_optimizer(experiment.optimizer)
    base_rate = learning_rate(
        experiment.optimizer, steps_per_epoch, experiment.total_steps(steps_per_epoch)
    )
    corrupt = make_corruption(
        config.corruptions, config.corruption_severity, config.corruption_probability
    )
    freeze = experiment.freeze
    loss_gradient_fn = jax.grad(make_loss(model, experiment), has_aux=True)
    similarity_fn = None
    if experiment.similarity is not None:
        similarity_fn = make_similarity_gradient(model, experiment.similarity, mesh, freeze)

    def gradient_fn(params: Any, batch_stats: Any, batch: Batch, keys: dict[str, jax.Array]):
        if perturbation is not None:
            variables = variables_of(params, batch_stats)
            attack_keys = prng.index_keys(keys["perturbation"], batch["index"])

            def logits_fn(keys: jax.Array, images: jax.Array) -> Any:
                return model.apply(variables, images, train=False, noise_key=keys)

            perturb = perturbation.perturb
            # An attack is a loop of gradients, which CPUs compute slowly in other layouts.
            attacked = fast.in_fast_layout(lambda keys, *rest: perturb(keys, logits_fn, *rest))
            batch = batch | {"image": attacked(attack_keys, batch["image"], batch["label"])}
        noise_key, dropout_key = keys["train noise"], keys["dropout"]
        return loss_gradient_fn(*split(params, freeze), batch_stats, batch, noise_key, dropout_key)

    @partial(jax.jit, donate_argnums=0, out_shardings=meshes.replicated(mesh))
    def train_step(
        state: TrainState, batch: Batch, targets: Any = None, teacher: Any = None
    ) -> tuple[TrainState, StepMetrics]:
        root = jax.random.key(experiment.seed)
        keys = {name: prng.fold(prng.stream(root, name), state.step) for name in _STREAMS}
        batch = {name: batch[name] for name in ("image", "label", "index")}
        if corrupt is not None:
            batch["image"] = corrupt(keys["augmentation"], batch["image"], batch["index"])
        if teacher is not None:
            teacher_keys = prng.index_keys(keys["teacher"], batch["index"])
            batch["teacher"] = teacher(teacher_keys, batch["image"])

        if experiment.accumulation_steps == 1:
            gradients, (sums, batch_stats) = gradient_fn(
                state.params, state.batch_stats, batch, keys
            )
        else:

            def part_gradient_fn(batch_stats: Any, part: Batch, number: jax.Array):
                part_keys = keys | {"dropout": prng.fold(keys["dropout"], number)}
                return gradient_fn(state.params, batch_stats, part, part_keys)

            gradients, (sums, batch_stats) = _accumulated(
                part_gradient_fn,
                state.batch_stats,
                batch,
                experiment.accumulation_steps,
                # On CPUs, XLA runs convolutions inside a loop many times slower.
                unroll=mesh.devices.flat[0].platform == "cpu",
            )

        term = None
        if similarity_fn is not None:
            term, extra = similarity_fn(
                state.params, state.batch_stats, targets, keys["similarity"]
            )
            gradients = jax.tree.map(jnp.add, gradients, extra)

        trained, frozen = split(state.params, freeze)
        norm = euclidean_norm(gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
        rate = base_rate(state.step) * state.plateau.factor
        factors = rate_factors(trained, experiment.optimizer.rates)
        updated = jax.tree.map(lambda p, u, f: p - rate * f * u, trained, updates, factors)
        before = (trained, state.batch_stats, state.opt_state)
        after = (updated, batch_stats, opt_state)
        # A bound on the change. A check of every new value would cost as much as the update.
        change = norm * rate * max(jax.tree.leaves(factors))
        losses = jnp.stack([sums.loss] if term is None else [sums.loss, term])
        finite = jnp.all(jnp.isfinite(jnp.concatenate([losses, *jax.tree.leaves(batch_stats)])))
        finite &= jnp.maximum(norm, change) < _LARGEST_CHANGE
        trained, batch_stats, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), after, before
        )
        step = state.step + 1
        # A line of the log was written after the last step, so the sums begin again.
        begun = state.step % experiment.log_every == 0
        earlier = jax.tree.map(lambda x: jnp.where(begun, jnp.zeros_like(x), x), state.sums)
        new_state = dataclasses.replace(
            state,
            step=step,
            params=merge(trained, frozen),
            batch_stats=batch_stats,
            opt_state=opt_state,
            sums=jax.tree.map(lambda x, y: jnp.where(finite, x + y, x), earlier, sums),
            skipped=state.skipped + jnp.where(finite, 0, 1).astype(jnp.int32),
            last_skipped=jnp.where(finite, state.last_skipped, step),
        )
        return new_state, StepMetrics(sums, norm, rate, finite, term)

    if targets is None and teacher is None:
        return train_step
    return partial(train_step, targets=targets, teacher=teacher)


def _accumulated(
    gradient_fn: Callable[[Any, Batch, jax.Array], Any],
    batch_stats: Any,
    batch: Batch,
    parts: int,
    unroll: bool,
) -> Any:
    """Return the mean gradient, the sums and the last batch statistics over parts of a batch.

    The parts are computed one after another by ``gradient_fn(batch_stats, part, number)``. Part i
    has the rows i, i + parts, i + 2 parts, ..., so every device has a share of each. ``unroll``
    compiles a copy of the function per part instead of a loop.
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


def make_eval_step(
    model: nn.Module, seed: int, mesh: meshes.Mesh
) -> Callable[[Any, Batch, Any], Sums]:
    """Return the compiled function ``(variables, batch, total) -> total`` of a validation batch.

    ``total`` is the sums so far; None begins. The batch has ``image``, ``label``, ``index`` and
    ``mask``, bool (N,), False for padding. The noise of an example depends only on the seed and the
    example's index. It is the same in every validation of a run, so changes of the curve over steps
    are changes of the network.
    """

    @partial(jax.jit, out_shardings=meshes.replicated(mesh))
    def eval_step(variables: Any, batch: Batch, total: Any = None) -> Sums:
        noise_key = prng.stream(jax.random.key(seed), "validation noise")
        keys = prng.index_keys(noise_key, batch["index"])
        logits: Any = model.apply(variables, batch["image"], train=False, noise_key=keys)
        losses = cross_entropy(logits, batch["label"])
        sums = batch_sums(losses, logits, batch["label"], batch["mask"])
        return sums if total is None else jax.tree.map(jnp.add, total, sums)

    return eval_step
