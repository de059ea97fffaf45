"""The parts of a run: data, network, compiled functions, and when to validate and to save."""

import dataclasses
import warnings
from collections import deque
from collections.abc import Callable, Collection
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, data
from vone_jax import mesh as meshes
from vone_jax.data.sources import are_numbers, class_identifier
from vone_jax.experiments.experiment import DataConfig, Experiment
from vone_jax.experiments.state import TrainState, check_patterns, initial_state, split
from vone_jax.training.similarity import make_targets
from vone_jax.training.step import MARKS, Batch, StepMetrics, Sums, make_eval_step, make_train_step

if TYPE_CHECKING:
    from vone_jax.network import Network

_FIELDS_ON_DEVICE = ("image", "label", "index", "mask", *MARKS)


@dataclasses.dataclass(frozen=True)
class Setup:
    """The parts of a run, whose ``experiment`` has the number of classes filled in.

    ``parameters`` is the number of trained parameters, without frozen ones. An epoch has
    ``steps_per_epoch`` full batches, and the run ``total_steps`` steps. ``teacher_weights`` is a
    checksum of the teacher's weights, see ``Network.checksum``, or None without one.
    """

    experiment: Experiment
    mesh: meshes.Mesh
    model: nn.Module
    parameters: int
    train_source: data.Source
    eval_source: data.Source
    steps_per_epoch: int
    total_steps: int
    teacher_weights: str | None
    train_step: Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
    eval_step: Callable[[Any, Batch], Sums]

    @property
    def num_classes(self) -> int:
        """The number of classes of the data."""
        return self.train_source.num_classes

    def initial_state(self) -> TrainState:
        """Return the state at step 0, on every device."""
        return jax.jit(
            lambda: initial_state(self.experiment, self.model),
            out_shardings=meshes.replicated(self.mesh),
            # It runs once, and XLA would take long to optimise its many random draws.
            compiler_options={"xla_backend_optimization_level": 0},
        )()

    def train_batches(self, skip: int) -> "data.Batches":
        """Return this process's part of the training batches after the first ``skip``."""
        config = self.experiment.data
        return data.train_batches(
            self.train_source,
            batch_size=config.batch_size,
            seed=self.experiment.seed,
            augment=config.augment,
            preprocessing=data.Preprocessing(config.center_crop),
            skip=skip,
            **self._reading(),
        )

    def eval_batches(self) -> "data.Batches":
        """Return this process's part of the validation batches, padded and masked."""
        config = self.experiment.data
        return data.eval_batches(
            self._prepared,
            batch_size=config.eval_batch_size,
            **self._reading(),
        )

    @cached_property
    def _prepared(self) -> data.Source:
        """The validation images, which are decoded once and not in each epoch."""
        crop = data.Preprocessing(self.experiment.data.center_crop)
        return data.Prepared(self.eval_source, self.experiment.model.image_size, crop)

    def shard(self, batch: dict[str, Any]) -> Batch:
        """Put this process's part of a batch on the devices, where bytes become floats."""
        fields = {name: batch[name] for name in _FIELDS_ON_DEVICE if name in batch}
        placed = meshes.shard_batch(self.mesh, fields)
        if placed["image"].dtype == jnp.uint8:
            placed["image"] = _in_unit_range(placed["image"])
        return placed

    def mark(self, batch: Batch, stop: bool) -> Batch:
        """Add to a batch on the devices whether this process got a request to stop."""
        if jax.process_count() == 1:
            return batch
        rows = np.full(len(batch["label"]) // jax.process_count(), stop)
        return batch | {"stop": meshes.shard_batch(self.mesh, rows)}

    def due(self, epochs: float, step: int) -> bool:
        """Return True if an action that is done every so many epochs is due at a step."""
        interval = min(epochs * self.steps_per_epoch, self.total_steps)
        return step > 0 and step % max(1, round(interval)) == 0

    def _reading(self) -> dict[str, Any]:
        return {
            "image_size": self.experiment.model.image_size,
            "workers": self.experiment.data.workers,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
            "as_bytes": True,
        }


@jax.jit
def _in_unit_range(images: jax.Array) -> jax.Array:
    # If XLA knows that the divisor is a constant, it multiplies by the inverse, which rounds
    # differently from the division.
    white = jax.lax.optimization_barrier(jnp.full(images.shape, 255, jnp.float32))
    return images.astype(jnp.float32) / white


class Prefetch:
    """Training batches on the devices, some of them loaded before their step.

    ``place`` puts a batch on the devices without waiting for it. When a batch is taken, ``ahead``
    more batches are on the devices. At most ``number`` batches are loaded.
    """

    def __init__(
        self, batches: "data.Batches", place: Callable[[Any], Batch], ahead: int, number: int
    ):
        self._batches, self._place = batches, place
        self._ahead, self._unloaded = ahead, number
        self._waiting: deque[Batch] = deque()

    def take(self) -> Batch:
        """Return the next batch."""
        while self._unloaded and len(self._waiting) <= self._ahead:
            self._waiting.append(self._place(next(self._batches)))
            self._unloaded -= 1
        return self._waiting.popleft()


def for_data(experiment: Experiment, given: Collection[str] = ()) -> Experiment:
    """Return the experiment with the fields that follow from its data set filled in.

    They are ``"data.eval_split"``, ``"model.num_classes"`` and ``"model.in_channels"``. Those in
    ``given`` are kept.

    Raises:
      ValueError, FileNotFoundError: if the data cannot be opened.
    """
    config, model = experiment.data, experiment.model
    if "data.eval_split" not in given:
        split = data.evaluation_split(config.source, data_dir=config.data_dir)
        # "." is all of a folder without splits, of which training keeps a part for validation.
        split = "validation" if split == "." else split
        config = dataclasses.replace(config, eval_split=split)
    if "model.num_classes" not in given:
        model = dataclasses.replace(model, num_classes=None)
    if "model.in_channels" not in given:
        channels = _load(config, "train_split").image_shape[-1]
        model = model.moved(in_channels=channels)
    return dataclasses.replace(experiment, data=config, model=model)


def _load(config: DataConfig, split: str) -> data.Source:
    """Open the split that the field ``split`` names. Errors about it begin with the field."""
    name = getattr(config, split)
    try:
        return data.load(config.source, name, data_dir=config.data_dir)
    except ValueError as error:
        about = "data." if str(error).startswith("data_dir") else ""
        if f"no split {name!r}" in str(error):
            about = f"data.{split}: "
        raise ValueError(f"{about}{error}") from error


def prepare(experiment: Experiment, mesh: meshes.Mesh) -> Setup:
    """Open the data and build everything, without compiling anything."""
    config = experiment.data
    part_size = config.batch_size // experiment.accumulation_steps
    meshes.check_batch_size(mesh, part_size, "data.batch_size / accumulation_steps")
    meshes.check_batch_size(mesh, config.eval_batch_size, "data.eval_batch_size")
    train_source, eval_source = _load(config, "train_split"), _load(config, "eval_split")
    if config.eval_split.partition("[")[0] == config.train_split:
        warnings.warn(
            f"data.eval_split {config.eval_split} validates on images of the training split "
            f"{config.train_split}; its accuracy says nothing about new images",
            stacklevel=2,
        )
    part = mesh.size * experiment.accumulation_steps
    if part > len(train_source) and experiment.accumulation_steps > 1:
        raise ValueError(
            f"accumulation_steps must be at most {len(train_source) // mesh.size or 1} for "
            f"{len(train_source)} training images on {meshes.describe(mesh)}, got "
            f"{experiment.accumulation_steps}"
        )
    if part <= len(train_source) < config.batch_size:
        # A small set is one batch, rounded down to a multiple of devices times parts.
        config = dataclasses.replace(config, batch_size=len(train_source) // part * part)
    experiment = _fit(dataclasses.replace(experiment, data=config), train_source, eval_source)
    teacher = _open_teacher(experiment, train_source)
    model = experiment.build()
    steps_per_epoch = data.batches_per_epoch(train_source, config.batch_size)
    total_steps = experiment.total_steps(steps_per_epoch)
    if total_steps > arguments.LARGEST_COUNT:
        raise ValueError(
            f"epochs must make at most {arguments.LARGEST_COUNT} steps, got "
            f"{experiment.epochs:g} with {total_steps} steps"
        )
    shapes = jax.eval_shape(lambda: initial_state(experiment, model))
    freeze, rates = experiment.freeze, experiment.optimizer.rates
    check_patterns(freeze, rates, shapes.params, shapes.batch_stats)
    return Setup(
        experiment=experiment,
        mesh=mesh,
        model=model,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(split(shapes.params, freeze)[0])),
        train_source=train_source,
        eval_source=eval_source,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        teacher_weights=None if teacher is None else teacher.checksum,
        train_step=make_train_step(
            model,
            experiment,
            steps_per_epoch,
            mesh,
            _targets(experiment, model, mesh, shapes),
            teacher and meshes.replicate(mesh, teacher.traced_logits_fn()),
        ),
        eval_step=make_eval_step(model, experiment.seed, mesh),
    )


def _targets(
    experiment: Experiment, model: nn.Module, mesh: meshes.Mesh, shapes: TrainState
) -> Any:
    """Return images and similarities of the regularisation on every device, or None."""
    config = experiment.similarity
    if config is None:
        return None
    meshes.check_batch_size(mesh, config.batch, "similarity.batch")
    size, channels = experiment.model.image_size, experiment.model.in_channels
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    features = partial(model.apply, noise_key=jax.random.key(0), method="features")
    layers: Any = jax.eval_shape(features, shapes.variables, image)
    for layer in config.layers:
        arguments.choice("each of similarity.layers", layer, layers)
    return meshes.replicate(mesh, make_targets(experiment))


def _open_teacher(experiment: Experiment, source: data.Source) -> "Network | None":
    """Open the teacher of the distillation, if there is one, and check that it fits."""
    if experiment.distillation is None:
        return None
    # Imported here, because it takes long: wrong arguments are answered before.
    from vone_jax.network import open_network

    spec, size = experiment.distillation.teacher, experiment.model.image_size
    teacher = open_network(spec)
    shape = (size, size, experiment.model.in_channels)
    if teacher.image_shape != shape:
        raise ValueError(
            f"distillation.teacher must take images of shape {shape}, {spec} takes "
            f"{teacher.image_shape}"
        )
    names = tuple(source.class_names)
    ours, theirs = (list(map(class_identifier, each)) for each in (names, teacher.class_names))
    unnamed = are_numbers(ours) or are_numbers(theirs)
    different = ours != theirs and (not unnamed or sorted(ours) == sorted(theirs))
    if teacher.num_classes != source.num_classes or different:
        raise ValueError(
            f"distillation.teacher must have the classes of {source.name!r} in their order; {spec} "
            f"has {teacher.num_classes}, {', '.join(teacher.class_names[:3])}, ..., the images "
            f"{source.num_classes}, {', '.join(names[:3])}, ..."
        )
    return teacher


def _fit(experiment: Experiment, *sources: data.Source) -> Experiment:
    """Check that an experiment fits its data, and fill in the number of classes."""
    model = experiment.model
    for source in sources:
        where = f"the images of {source.name!r} {source.split!r}"
        if source.image_shape[-1] != model.in_channels:
            raise ValueError(
                f"model.in_channels is {model.in_channels}, but {where} have "
                f"{source.image_shape[-1]} channel(s); leave it out to take it from the data"
            )
        if model.num_classes is None:
            model = dataclasses.replace(model, num_classes=source.num_classes)
        if source.num_classes != model.num_classes:
            raise ValueError(
                f"model.num_classes is {model.num_classes}, but {where} have "
                f"{source.num_classes} classes; leave it out to take it from the data"
            )
        names, first = source.class_names, sources[0]
        if names != first.class_names:
            differing = next(i for i, name in enumerate(names) if name != first.class_names[i])
            raise ValueError(
                f"the splits {first.split!r} and {source.split!r} of {source.name!r} must have the "
                f"same classes, but class {differing} is {first.class_names[differing]!r} in the "
                f"first and {names[differing]!r} in the second"
            )
    return dataclasses.replace(experiment, model=model)
