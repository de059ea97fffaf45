"""The training state, and the two compiled functions: a step, and the validation of a batch.

Both functions are written for the global batch. The sharding of their arguments determines the
devices on which they run. Keys are derived inside, from (seed, stream, step, example). So the state
holds nothing random, and the noise of an example does not depend on the mesh.
"""

import dataclasses
from collections.abc import Callable, Collection
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vone_jax import mesh as meshes
from vone_jax import prng
from vone_jax.attacks import Attack
from vone_jax.training import objective
from vone_jax.training.config import Experiment
from vone_jax.training.objective import Applied, Batch, Context, Gradient, Setup, variables_of
from vone_jax.training.optimizer import (
    PlateauState,
    euclidean_norm,
    learning_rate,
    matches,
    merge,
    rate_factors,
    split,
)


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
    # Parameters of the network.
    params: Any
    # Running values of batch norm; empty for networks without it.
    batch_stats: Any
    # State of the optimiser for all that is trained.
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
    # Trained parameters and states of the objectives that have any, by their names.
    own: Any = dataclasses.field(default_factory=dict)
    objectives: Any = dataclasses.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that are evaluated, as ``model.apply`` takes them: the means, if any."""
        return variables_of(**self.ema) if self.ema else variables_of(self.params, self.batch_stats)

    def starting_at(self, params: Any, batch_stats: Any) -> "TrainState":
        """Return the state with other variables, from which the moving means begin."""
        ema = self.ema and jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats})
        return dataclasses.replace(self, params=params, batch_stats=batch_stats, ema=ema)


def initial_state(experiment: Experiment, model: nn.Module, run: Setup | None = None) -> TrainState:
    """Return the state before the first step, a pure function to be jitted.

    The stream ``"init"`` of the experiment's seed draws the parameters. ``run`` is given to the
    objectives.
    """
    run = run or Setup(experiment, model)
    variables, root = run.variables(), jax.random.key(experiment.seed)
    own, states = {}, {}
    for each in experiment.applied:
        trained, state = each.objective.init(prng.stream(root, f"init {each.name}"), run)
        own |= {} if trained is None else {each.name: trained}
        states |= {} if state is None else {each.name: state}
    params, batch_stats = dict(variables["params"]), variables.get("batch_stats", {})
    if both := {"network", *params} & own.keys():
        raise ValueError(f"objectives: a part of the network has the name {', '.join(both)}, too")
    trained, _ = split(params, experiment.freeze)
    averaged = experiment.ema_decay is not None
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=batch_stats,
        opt_state=experiment.optimizer.transformation().init(trained | own),
        plateau=PlateauState(),
        ema={"params": params, "batch_stats": batch_stats} if averaged else None,
        own=own,
        objectives=states,
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
    # True if the update was applied. It is not applied if the loss, the numbers, the gradient or
    # the statistics of batch norm have a NaN or an infinity, or if the gradient or the change of
    # the parameters is as large as ``OptimizerConfig.largest_change``.
    finite: jax.Array
    # What objectives put into the log, as "OBJECTIVE.NAME", float32.
    numbers: dict[str, jax.Array]


@flax.struct.dataclass
class Scene:
    """What a step, or a part of it, computes with beside the trained parameters and the batch."""

    # Steps done before this one.
    step: jax.Array
    # Frozen parameters of the network, and its statistics of batch norm before the pass.
    frozen: Any
    batch_stats: Any
    # Resources and states of the objectives, by name.
    resources: Any
    states: Any
    # The number of the part, int32; None for a whole batch.
    part: Any = None


class Passes:
    """The passes of a step through the network, and the objectives around them."""

    def __init__(
        self, model: nn.Module, experiment: Experiment, steps_per_epoch: int, mesh: meshes.Mesh
    ):
        self._model, self._experiment, self._mesh = model, experiment, mesh
        self._steps_per_epoch = steps_per_epoch
        self._apply = _training_apply(model, experiment.freeze)
        self._smoothing = experiment.optimizer.label_smoothing
        # Only then, since not all networks have a gradient of the images.
        self._of_images = any(each.overrides("gradient") for each in experiment.applied)
        self._loss = self.loss
        if experiment.remat:
            policy = jax.checkpoint_policies.dots_saveable
            self._loss = jax.checkpoint(self.loss, policy=policy)

    def loss(self, params: Any, images: jax.Array, scene: Scene, batch: Batch) -> Any:
        """Return ``(mean, (sums, batch_stats, numbers))`` of a batch with other images."""
        batch, moved, numbers = batch | {"image": images}, [scene.batch_stats], {}

        def forward(images: jax.Array, keys: Any, dropout_key: jax.Array) -> jax.Array:
            keys = self._noise_keys(scene, batch) if keys is None else keys
            here = dataclasses.replace(scene, batch_stats=moved[0])
            logits, moved[0] = self._network(params, here, images, keys, dropout_key)
            return logits

        logits = forward(images, None, self._dropout_key(scene))
        # The masks of another pass of the same images are others.
        other_key = prng.stream(self._dropout_key(scene), "perturbed")
        again = lambda images, keys=None: forward(images, keys, other_key)  # noqa: E731
        losses = objective.cross_entropy(logits, batch["label"], self._smoothing)
        for each in self._that("losses"):
            context = self._context(each, scene, params, batch, numbers, scene.step)
            context = dataclasses.replace(context, forward=again)
            losses = each.objective.losses(context, batch, logits, losses)
            if jnp.shape(losses) != batch["label"].shape:
                raise ValueError(
                    f"{each.name}.losses must return the loss of each example, shape "
                    f"{batch['label'].shape}, got {jnp.shape(losses)}"
                )
        return jnp.mean(losses), (batch_sums(losses, logits, batch["label"]), moved[0], numbers)

    def batch(
        self, params: Any, scene: Scene, batch: Batch, by_part: bool | None = None
    ) -> tuple[Batch, dict[str, jax.Array]]:
        """Return the batch as the objectives change it, and their numbers.

        With ``by_part``, only those count that work on parts, or that do not.
        """
        numbers: dict[str, jax.Array] = {}
        # The replays of a batch are changed alike.
        number = scene.step // self._experiment.replays
        for each in self._that("batch", by_part):
            context = self._context(each, scene, params, batch, numbers, number)
            batch = each.objective.batch(context, batch)
        return batch, numbers

    def pass_of(self, scene: Scene) -> Callable[[Any, Batch], Gradient]:
        """Return the gradient of the mean loss of a batch."""

        def gradient(params: Any, batch: Batch) -> Gradient:
            places = (0, 1) if self._of_images else (0,)
            differentiate = jax.grad(self._loss, places, has_aux=True)
            found, aux = differentiate(params, batch["image"], scene, batch)
            sums, batch_stats, numbers = aux
            images = found[1] if self._of_images else None
            return Gradient(found[0], images, sums, batch_stats, scene.states, numbers)

        return gradient

    def around(
        self, gradient_fn: Callable[..., Gradient], scene: Scene, by_part: bool | None = None
    ) -> Callable[[Any, Batch], Gradient]:
        """Return the gradient as the objectives make it of another one. See ``batch``."""
        for each in self._that("gradient", by_part):
            gradient_fn = self._around(each, gradient_fn, scene)
        return gradient_fn

    def _around(self, each: Applied, inner: Callable[..., Gradient], scene: Scene) -> Any:
        def gradient(params: Any, batch: Batch) -> Gradient:
            numbers: dict[str, jax.Array] = {}
            context = self._context(each, scene, params, batch, numbers, scene.step)
            found, state = each.objective.gradient(context, inner, params, batch)
            if _form(state) != _form(context.state):
                raise ValueError(
                    f"{each.name}.gradient must return a state of the form that init gave, "
                    f"{_form(context.state)}, got {_form(state)}"
                )
            states = found.states | ({} if state is None else {each.name: state})
            numbers = found.numbers | numbers
            return dataclasses.replace(found, states=states, numbers=numbers)

        return gradient

    def _that(self, method: str, by_part: bool | None = None) -> list[Applied]:
        return [
            each
            for each in self._experiment.applied
            if each.overrides(method) and by_part in (None, each.objective.by_part)
        ]

    def _key(self, stream: str, number: Any) -> jax.Array:
        return prng.fold(prng.stream(jax.random.key(self._experiment.seed), stream), number)

    def _noise_keys(self, scene: Scene, batch: Batch) -> jax.Array:
        return prng.index_keys(self._key("train noise", scene.step), batch["index"])

    def _dropout_key(self, scene: Scene) -> jax.Array:
        key = self._key("dropout", scene.step)
        return key if scene.part is None else prng.fold(key, scene.part)

    def _network(
        self,
        params: Any,
        scene: Scene,
        images: jax.Array,
        keys: jax.Array,
        dropout_key: jax.Array,
        method: str = "__call__",
    ) -> tuple[Any, Any]:
        """Return the outputs in training mode and the statistics of batch norm."""
        outputs, updated = self._apply(
            variables_of(merge(params["network"], scene.frozen), scene.batch_stats),
            images,
            train=True,
            noise_key=keys,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
            method=method,
        )
        return outputs, updated.get("batch_stats", {})

    def _context(
        self,
        each: Applied,
        scene: Scene,
        params: Any,
        batch: Batch,
        numbers: dict[str, jax.Array],
        number: jax.Array,
    ) -> Context:
        """Return the context of an objective, whose numbers for the log go into ``numbers``."""
        key = self._key(each.stream, number)
        keys = prng.index_keys(key, batch["index"])
        variables = variables_of(merge(params["network"], scene.frozen), scene.batch_stats)

        def forward(images: jax.Array, keys: Any = None) -> jax.Array:
            keys = self._noise_keys(scene, batch) if keys is None else keys
            dropout_key = prng.stream(self._dropout_key(scene), "attacked")
            return self._network(params, scene, images, keys, dropout_key)[0]

        def logits_fn(keys: jax.Array, images: jax.Array) -> Any:
            return self._model.apply(variables, images, train=False, noise_key=keys)

        def apply(params: Any, images: Any, *rest: Any, method: str = "__call__") -> Any:
            return self._network(params, scene, images, *rest, method=method)[0]

        def log(name: str, value: Any) -> None:
            if jnp.ndim(value) != 0:
                raise ValueError(f"{each.name} logs {name}, which must be a scalar, got {value}")
            numbers[f"{each.name}.{name}"] = jnp.asarray(value, jnp.float32)

        return Context(
            name=each.name,
            key=key if scene.part is None else prng.fold(key, scene.part),
            keys=keys,
            step=scene.step,
            steps_per_epoch=self._steps_per_epoch,
            params=params,
            resources=scene.resources.get(each.name),
            state=scene.states.get(each.name),
            mesh=self._mesh,
            forward=forward,
            logits_fn=logits_fn,
            apply=apply,
            cross_entropy=partial(objective.cross_entropy, label_smoothing=self._smoothing),
            log=log,
        )


def _training_apply(model: nn.Module, freeze: Collection[str]) -> Callable[..., Any]:
    """Return ``model.apply``, but batch norms with a frozen running value use and keep them."""

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        is_norm = context.method_name == "__call__" and module.has_variable("batch_stats", "mean")
        paths = ("/".join((*module.path, name)) for name in ("mean", "var"))
        if is_norm and any(matches(path, *freeze) for path in paths):
            args, kwargs = args[:1], {"train": False}
        return call(*args, **kwargs)

    def apply(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(intercept):
            return model.apply(*args, **kwargs)

    return apply if freeze else model.apply


def _form(tree: Any) -> Any:
    """Return the shapes and dtypes of a tree."""
    return jax.tree.map(lambda x: f"{jnp.result_type(x)}{list(jnp.shape(x))}", tree)


def make_train_step(
    model: nn.Module,
    experiment: Experiment,
    steps_per_epoch: int,
    mesh: meshes.Mesh,
    resources: Any = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """Return the training step, which is compiled once per batch shape.

    The step of the same model, experiment, epoch and mesh is the same function, already compiled.
    The objectives change the batch, its losses and its gradient, each in the order of the tuple.
    If a batch has several parts, the gradient is the mean over the parts. Batch norm uses the
    statistics of one part at a time and updates its running values after each. The dropout of a row
    depends on its place in its part. So only networks without batch norm and dropout give the same
    result for any number of parts.

    Args:
      model: the network.
      experiment: with all fields that ``resolve`` fills in.
      steps_per_epoch: batches in an epoch, times the replays of a batch.
      mesh: the devices that train.
      resources: what the objectives' ``resources`` have returned, by their names.

    Returns:
      ``(state, batch) -> (state, metrics)``. The batch has ``image`` (N, H, W, C), ``label``
      (N,) and ``index`` (N,), the example's number in the data set. A step that is not finite
      changes only the counters of the state. The state passed in is donated: do not use it again.
    """
    step = _train_step(model, experiment, steps_per_epoch, mesh)
    return partial(step, resources=resources) if resources else step


@lru_cache(maxsize=16)
def _train_step(
    model: nn.Module, experiment: Experiment, steps_per_epoch: int, mesh: meshes.Mesh
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """Return ``(state, batch, resources=None) -> (state, metrics)``, see ``make_train_step``."""
    optimizer, freeze = experiment.optimizer, experiment.freeze
    total_steps = experiment.total_steps(steps_per_epoch)
    base_rate = learning_rate(optimizer, steps_per_epoch, total_steps)
    passes = Passes(model, experiment, steps_per_epoch, mesh)
    parts = experiment.accumulation_steps
    # On CPUs, XLA runs convolutions inside a loop many times slower.
    unroll = mesh.devices.flat[0].platform == "cpu"

    def accumulated(scene: Scene, params: Any, batch: Batch) -> Gradient:
        def of_part(part: Batch, scene: Scene) -> Gradient:
            part, numbers = passes.batch(params, scene, part, by_part=True)
            inner = passes.around(passes.pass_of(scene), scene, by_part=True)
            found = inner(params, part)
            return dataclasses.replace(found, numbers=numbers | found.numbers)

        return _accumulated(of_part, scene, batch, parts, unroll)

    @partial(jax.jit, donate_argnums=0, out_shardings=meshes.replicated(mesh))
    def train_step(
        state: TrainState, batch: Batch, resources: Any = None
    ) -> tuple[TrainState, StepMetrics]:
        batch = {name: batch[name] for name in ("image", "label", "index")}
        trained, frozen = split(state.params, freeze)
        params = {"network": trained} | state.own
        scene = Scene(state.step, frozen, state.batch_stats, resources or {}, state.objectives)
        if parts == 1:
            batch, numbers = passes.batch(params, scene, batch)
            gradient_fn = passes.around(passes.pass_of(scene), scene)
        else:
            batch, numbers = passes.batch(params, scene, batch, by_part=False)
            gradient_fn = passes.around(partial(accumulated, scene), scene, by_part=False)
        found = gradient_fn(params, batch)
        numbers = numbers | found.numbers

        trained, gradients = (
            each["network"] | {name: each[name] for name in state.own}
            for each in (params, found.params)
        )
        norm = euclidean_norm(gradients)
        rate = base_rate(state.step) * state.plateau.factor
        momentum = optimizer.schedule.momentum(state.step, total_steps)
        updates, opt_state = optimizer.transformation(rate, momentum).update(
            gradients, state.opt_state, trained
        )
        updated: Any = optax.apply_updates(trained, updates)
        own = {name: updated.pop(name) for name in state.own}
        params, batch_stats, ema = merge(updated, frozen), found.batch_stats, state.ema
        if ema is not None:
            # The first steps are averaged over fewer, so that the start is soon forgotten.
            done = state.step.astype(jnp.float32)
            decay = jnp.minimum(jnp.float32(experiment.ema_decay), (1.0 + done) / (10.0 + done))
            now = {"params": params, "batch_stats": batch_stats}
            ema = optax.incremental_update(now, ema, 1.0 - decay)
        after = dict(
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema=ema,
            own=own,
            objectives=found.states,
        )
        before = {name: getattr(state, name) for name in after}
        # A bound on the change. A check of every new value would cost as much as the update.
        change = norm * rate * max(jax.tree.leaves(rate_factors(trained, optimizer.rates)))
        checked = jnp.stack([found.sums.loss, *numbers.values()])
        finite = jnp.all(jnp.isfinite(jnp.concatenate([checked, *jax.tree.leaves(batch_stats)])))
        finite &= jnp.maximum(norm, change) < optimizer.largest_change
        after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
        step = state.step + 1
        # A line of the log was written after the last step, so the sums begin again.
        logged = state.step % experiment.log_every == 0
        earlier = jax.tree.map(lambda x: jnp.where(logged, jnp.zeros_like(x), x), state.sums)
        new_state = dataclasses.replace(
            state,
            step=step,
            sums=jax.tree.map(lambda x, y: jnp.where(finite, x + y, x), earlier, found.sums),
            skipped=state.skipped + jnp.where(finite, 0, 1).astype(jnp.int32),
            last_skipped=jnp.where(finite, state.last_skipped, step),
            **after,
        )
        return new_state, StepMetrics(found.sums, norm, rate, finite, numbers)

    return train_step


def _accumulated(
    gradient_fn: Callable[[Batch, Scene], Gradient],
    scene: Scene,
    batch: Batch,
    parts: int,
    unroll: bool,
) -> Gradient:
    """Return the mean gradient over parts of a batch, with the last statistics and states.

    The parts are computed one after another by ``gradient_fn(part, scene)``. Part i has the rows i,
    i + parts, i + 2 parts, ..., so every device has a share of each. ``unroll`` compiles a copy of
    the function per part instead of a loop.
    """
    stacked = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), batch)

    def of_part(batch_stats: Any, states: Any, part: Batch, number: jax.Array) -> Any:
        here = dataclasses.replace(scene, batch_stats=batch_stats, states=states, part=number)
        found = gradient_fn(part, here)
        added = found.params, found.sums, found.numbers
        return added, (found.batch_stats, found.states), found.images

    kept = scene.batch_stats, scene.states
    first = jax.tree.map(lambda x: x[0], stacked)
    shapes, *_ = jax.eval_shape(of_part, *kept, first, jnp.int32(0))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(carry: Any, part_and_number: Any) -> Any:
        totals, kept = carry
        added, kept, images = of_part(*kept, *part_and_number)
        return (jax.tree.map(jnp.add, totals, added), kept), images

    ((totals, kept), images) = jax.lax.scan(
        add, (zeros, kept), (stacked, jnp.arange(parts)), unroll=unroll
    )
    params, sums, numbers = totals
    if images is not None:
        images = jnp.moveaxis(images, 0, 1).reshape(batch["image"].shape) / parts
    params, numbers = jax.tree.map(lambda x: x / parts, (params, numbers))
    return Gradient(params, images, sums, *kept, numbers)


@lru_cache(maxsize=16)
def make_eval_step(
    model: nn.Module, seed: int, mesh: meshes.Mesh, attack: Attack | None = None
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
            rest = logits_fn, batch["image"], batch["label"]
            attacked = objective.attacked(attack, prng.stream(keys, "attack"), *rest)
            batch = batch | {"image": attacked}
        logits = logits_fn(keys, batch["image"])
        losses = objective.cross_entropy(logits, batch["label"])
        sums = batch_sums(losses, logits, batch["label"], batch["mask"])
        return sums if total is None else jax.tree.map(jnp.add, total, sums)

    return eval_step
