"""The training state, and the two compiled functions: a step, and the validation of a batch.

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
import numpy as np
import optax

from vone_jax import mesh as meshes
from vone_jax import prng
from vone_jax.attacks import PGD
from vone_jax.training import objectives
from vone_jax.training.config import Experiment
from vone_jax.training.objectives import WEIGHTS, Batch, variables_of
from vone_jax.training.optimizer import (
    PlateauState,
    euclidean_norm,
    learning_rate,
    make_optimizer,
)
from vone_jax.training.parts import merge, rate_factors, split, training_apply
from vone_jax.training.perturbations import Fast, Free, PairedPerturbation

# The streams of keys of a step, beside those of the changes of a batch.
_STREAMS = ("train noise", "dropout", "perturbation", "similarity")
# A larger gradient or change of the parameters counts as not finite. Smaller ones cannot take a
# finite parameter or momentum to infinity, which in float32 begins at 3.4e38. All methods but SGD
# keep the squares of gradients.
_LARGEST_CHANGE = {"sgd": 1e30}
_LARGEST_SQUARED = 1e15


@flax.struct.dataclass
class Sums:
    """Metrics as sums over ``seen`` examples, float32 and int32: one division gives the means."""

    loss: Any = np.float32(0.0)
    # Number of examples whose largest logit is that of the label.
    correct: Any = np.int32(0)
    # Number of examples whose label has one of the five largest logits.
    correct5: Any = np.int32(0)
    seen: Any = np.int32(0)

    def means(self) -> dict[str, float]:
        """Return the mean ``loss``, ``accuracy`` and ``top5_accuracy``, on the host."""
        seen = int(self.seen)
        return {
            "loss": float(self.loss) / seen,
            "accuracy": int(self.correct) / seen,
            "top5_accuracy": int(self.correct5) / seen,
        }


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
    # Moving means of ``params`` and ``batch_stats``, by these names; None without ``ema_decay``.
    ema: Any = None
    # Perturbation of the images of ``Free`` (N, H, W, C), by place in the batch; else None.
    delta: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that are evaluated, as ``model.apply`` takes them: the means, if any."""
        return variables_of(**self.ema) if self.ema else variables_of(self.params, self.batch_stats)

    def starting_at(self, params: Any, batch_stats: Any) -> "TrainState":
        """Return the state with other variables, from which the moving means begin."""
        ema = self.ema and jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats})
        return dataclasses.replace(self, params=params, batch_stats=batch_stats, ema=ema)


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
    batch_stats = variables.get("batch_stats", {})
    averaged = experiment.ema_decay is not None
    free = isinstance(experiment.perturbation, Free)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=batch_stats,
        opt_state=make_optimizer(experiment.optimizer).init(trained),
        plateau=PlateauState(),
        ema={"params": params, "batch_stats": batch_stats} if averaged else None,
        delta=jnp.zeros((experiment.data.batch_size, *image.shape[1:])) if free else None,
    )


def batch_sums(
    losses: jax.Array, logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None
) -> Sums:
    """Return the sums over a batch. ``mask`` is False for padding, whose values may be NaN."""
    if mask is None:
        mask = jnp.ones(labels.shape, bool)
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    # As in argmax, the first of equal logits is the largest, and NaN is larger than a number.
    before = jnp.arange(logits.shape[1])[None] < labels[:, None]
    rank = jnp.sum(~jnp.where(before, logits < own, logits <= own), axis=1, dtype=jnp.int32)
    hit = jnp.argmax(logits, axis=-1) == labels
    # Selected, not multiplied: a NaN in a padded row must not reach the sum.
    return Sums(
        loss=jnp.sum(jnp.where(mask, losses, 0.0)),
        correct=jnp.sum(hit & mask, dtype=jnp.int32),
        correct5=jnp.sum((rank < 5) & mask, dtype=jnp.int32),
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


def make_loss(model: nn.Module, experiment: Experiment) -> Callable[..., Any]:
    """Return the training loss of a batch as a function.

    It is ``(trained, frozen, batch_stats, batch, noise_key, dropout_key) -> (mean, (sums,
    batch_stats))``, with the parameters as ``split`` divides them. With ``remat``, only the results
    of convolutions and matrix products are stored for the backward pass.
    """
    apply = training_apply(model, experiment.freeze)

    def loss_fn(
        trained: Any, frozen: Any, batch_stats: Any, batch: Batch, noise_key: Any, dropout_key: Any
    ):
        params = merge(trained, frozen)

        def forward(images: jax.Array, batch_stats: Any, noise_key: Any, dropout_key: Any) -> Any:
            logits, updated = apply(
                variables_of(params, batch_stats),
                images,
                train=True,
                noise_key=prng.index_keys(noise_key, batch["index"]),
                rngs={"dropout": dropout_key},
                mutable=["batch_stats"],
            )
            return logits, updated.get("batch_stats", {})

        logits, batch_stats = forward(batch["image"], batch_stats, noise_key, dropout_key)
        if isinstance(experiment.perturbation, PairedPerturbation):
            # Both images have the same noise of V1, so that only the perturbation is between them.
            key = prng.stream(dropout_key, "perturbed")
            moved, batch_stats = forward(batch["perturbed"], batch_stats, noise_key, key)
            losses = objectives.paired_losses(experiment, logits, moved, batch)
        else:
            losses = objectives.losses(experiment, logits, batch)
        return jnp.mean(losses), (batch_sums(losses, logits, batch["label"]), batch_stats)

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

    The changes of ``objectives.changes`` come first, the perturbation last. The perturbation uses
    the labels and the current network, in training mode for ``Fast``, else in evaluation mode. That
    of ``Free`` has the gradient of the step itself, and a step is one replay of a batch. If a batch
    has several parts, the gradient is the mean over the parts. Batch norm uses the statistics of
    one part at a time and updates its running values after each. The dropout of a row depends on
    its place in its part. So only networks without batch norm and dropout give the same result for
    any number of parts.

    The gradient of the similarity regularisation is added, with ``targets`` of ``make_targets``.
    The loss in the metrics does not include this term. The ``teacher`` of the distillation gets
    corrupted and mixed, but not perturbed images.

    Returns:
      ``(state, batch) -> (state, metrics)``. The batch has ``image`` (N, H, W, C), ``label``
      (N,) and ``index`` (N,), the example's number in the data set. A step that is not finite
      changes only the counters of the state. The state passed in is donated: do not use it again.
    """
    optimizer, freeze = experiment.optimizer, experiment.freeze
    total_steps = experiment.total_steps(steps_per_epoch)
    base_rate = learning_rate(optimizer, steps_per_epoch, total_steps)
    loss_fn = make_loss(model, experiment)
    loss_gradient_fn = jax.grad(loss_fn, has_aux=True)
    apply = training_apply(model, freeze)
    awp, perturbation = experiment.weight_perturbation, experiment.perturbation
    similarity_fn = None
    if experiment.similarity is not None:
        similarity_fn = objectives.make_similarity_gradient(
            model, experiment.similarity, mesh, freeze
        )

    def gradient_fn(
        params: Any, batch_stats: Any, batch: Batch, keys: dict[str, jax.Array], step: jax.Array
    ):
        if perturbation is not None:
            variables = variables_of(params, batch_stats)
            attack_keys = prng.index_keys(keys["perturbation"], batch["index"])
            dropout_key = prng.stream(keys["dropout"], "attacked")

            def logits_fn(keys: jax.Array, images: jax.Array) -> Any:
                if not isinstance(perturbation, Fast):
                    return model.apply(variables, images, train=False, noise_key=keys)
                logits, _ = apply(
                    variables,
                    images,
                    train=True,
                    noise_key=keys,
                    rngs={"dropout": dropout_key},
                    mutable=["batch_stats"],
                )
                return logits

            batch = objectives.perturb(perturbation, attack_keys, logits_fn, batch)
        trained, frozen = split(params, freeze)
        rest = frozen, batch_stats, batch, keys["train noise"], keys["dropout"]
        if awp is not None:
            gradients, _ = loss_gradient_fn(trained, *rest)
            active = step >= round(awp.warmup_epochs * steps_per_epoch)
            trained = awp.ascended(trained, gradients, active)
        return loss_gradient_fn(trained, *rest)

    def free_gradient_fn(
        params: Any, batch_stats: Any, batch: Batch, keys: dict[str, jax.Array], delta: jax.Array
    ):
        """Return the gradient of the parameters, the new perturbation, and the other results."""
        assert isinstance(perturbation, Free)
        trained, frozen = split(params, freeze)
        images = batch["image"]

        def loss(trained: Any, delta: jax.Array) -> Any:
            moved = batch | {"image": images + delta}
            return loss_fn(
                trained, frozen, batch_stats, moved, keys["train noise"], keys["dropout"]
            )

        (gradients, ascent), rest = jax.grad(loss, (0, 1), has_aux=True)(trained, delta)
        return gradients, perturbation.after(delta, ascent, images), rest

    @partial(jax.jit, donate_argnums=0, out_shardings=meshes.replicated(mesh))
    def train_step(
        state: TrainState, batch: Batch, targets: Any = None, teacher: Any = None
    ) -> tuple[TrainState, StepMetrics]:
        root = jax.random.key(experiment.seed)
        keys = {name: prng.fold(prng.stream(root, name), state.step) for name in _STREAMS}
        batch = {name: batch[name] for name in ("image", "label", "index")}
        for stream, change in objectives.changes(experiment, teacher).items():
            # The replays of a batch are changed alike.
            number = state.step // experiment.replays
            batch = change(prng.fold(prng.stream(root, stream), number), batch)

        delta = state.delta
        if isinstance(perturbation, Free):
            gradients, delta, (sums, batch_stats) = free_gradient_fn(
                state.params, state.batch_stats, batch, keys, delta
            )
        elif experiment.accumulation_steps == 1:
            gradients, (sums, batch_stats) = gradient_fn(
                state.params, state.batch_stats, batch, keys, state.step
            )
        else:

            def part_gradient_fn(batch_stats: Any, part: Batch, number: jax.Array):
                part_keys = keys | {"dropout": prng.fold(keys["dropout"], number)}
                return gradient_fn(state.params, batch_stats, part, part_keys, state.step)

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
        rate = base_rate(state.step) * state.plateau.factor
        momentum = optimizer.schedule.momentum(state.step, total_steps)
        updates, opt_state = make_optimizer(optimizer, rate, momentum).update(
            gradients, state.opt_state, trained
        )
        updated = optax.apply_updates(trained, updates)
        params, ema = merge(updated, frozen), state.ema
        if ema is not None:
            # The first steps are averaged over fewer, so that the start is soon forgotten.
            done = state.step.astype(jnp.float32)
            decay = jnp.minimum(jnp.float32(experiment.ema_decay), (1.0 + done) / (10.0 + done))
            now = {"params": params, "batch_stats": batch_stats}
            ema = optax.incremental_update(now, ema, 1.0 - decay)
        before = (state.params, state.batch_stats, state.opt_state, state.ema, state.delta)
        after = (params, batch_stats, opt_state, ema, delta)
        # A bound on the change. A check of every new value would cost as much as the update.
        change = norm * rate * max(jax.tree.leaves(rate_factors(trained, optimizer.rates)))
        losses = jnp.stack([sums.loss] if term is None else [sums.loss, term])
        finite = jnp.all(jnp.isfinite(jnp.concatenate([losses, *jax.tree.leaves(batch_stats)])))
        finite &= jnp.maximum(norm, change) < _LARGEST_CHANGE.get(
            optimizer.method, _LARGEST_SQUARED
        )
        params, batch_stats, opt_state, ema, delta = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), after, before
        )
        step = state.step + 1
        # A line of the log was written after the last step, so the sums begin again.
        logged = state.step % experiment.log_every == 0
        earlier = jax.tree.map(lambda x: jnp.where(logged, jnp.zeros_like(x), x), state.sums)
        new_state = dataclasses.replace(
            state,
            step=step,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema=ema,
            delta=delta,
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
    model: nn.Module, seed: int, mesh: meshes.Mesh, attack: PGD | None = None
) -> Callable[[Any, Batch, Any], Sums]:
    """Return the compiled function ``(variables, batch, total) -> total`` of a validation batch.

    ``total`` is the sums so far; None begins. The batch has ``image``, ``label``, ``index`` and
    ``mask``, bool (N,), False for padding. The noise of an example depends only on the seed and the
    example's index. It is the same in every validation of a run, so changes of the curve over steps
    are changes of the network. If there is an ``attack``, it changes the images first.
    """

    @partial(jax.jit, out_shardings=meshes.replicated(mesh))
    def eval_step(variables: Any, batch: Batch, total: Any = None) -> Sums:
        noise_key = prng.stream(jax.random.key(seed), "validation noise")
        keys = prng.index_keys(noise_key, batch["index"])

        def logits_fn(keys: jax.Array, images: jax.Array) -> Any:
            return model.apply(variables, images, train=False, noise_key=keys)

        if attack is not None:
            batch = objectives.perturb(attack, prng.stream(keys, "attack"), logits_fn, batch)
        logits = logits_fn(keys, batch["image"])
        losses = objectives.cross_entropy(logits, batch["label"])
        sums = batch_sums(losses, logits, batch["label"], batch["mask"])
        return sums if total is None else jax.tree.map(jnp.add, total, sums)

    return eval_step
