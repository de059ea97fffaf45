"""The inputs of a run: its data, batches on the devices, the teacher, similarity targets."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vone_jax import arguments, data
from vone_jax import mesh as meshes
from vone_jax.data.sources import are_numbers, class_identifier
from vone_jax.training.experiment import DataConfig, Experiment
from vone_jax.training.similarity import make_targets
from vone_jax.training.state import TrainState
from vone_jax.training.step import Batch


def open_train_split(config: DataConfig) -> data.Source:
    """Open the training images of an experiment."""
    return data.load(config.source, config.train_split, data_dir=config.data_dir)


def open_eval_split(experiment: Experiment, train_source: data.Source) -> data.Source:
    """Open the validation images of a resolved experiment, prepared for its network."""
    config, split = experiment.data, experiment.data.eval_split
    assert split is not None
    source = data.load(config.source, split, data_dir=config.data_dir)
    if source.class_names != train_source.class_names:
        pairs = zip(train_source.class_names, source.class_names, strict=False)
        first = next((pair for pair in pairs if pair[0] != pair[1]), ("one more", "one less"))
        raise ValueError(
            f"the splits {train_source.split!r} and {split!r} of {source.name!r} must have the "
            f"same classes, but one has {first[0]!r} where the other has {first[1]!r}"
        )
    if split.partition("[")[0] == config.train_split:
        warnings.warn(
            f"data.eval_split {split} validates on images of the training split "
            f"{config.train_split}; its accuracy says nothing about new images",
            stacklevel=2,
        )
    crop = data.Preprocessing(config.center_crop)
    return data.Prepared(source, experiment.model.image_size, crop)


def train_batches(experiment: Experiment, source: data.Source, skip: int) -> "data.Batches":
    """Return this process's part of the training batches after the first ``skip``, without end."""
    config = experiment.data
    return data.train_batches(
        source,
        batch_size=config.batch_size,
        seed=experiment.seed,
        image_size=experiment.model.image_size,
        augment=config.augment,
        preprocessing=data.Preprocessing(config.center_crop),
        skip=skip,
        **_process(config),
    )


def eval_batches(experiment: Experiment, source: data.Source) -> "data.Batches":
    """Return this process's part of the validation batches, padded and masked."""
    config = experiment.data
    size = experiment.model.image_size
    return data.eval_batches(
        source, batch_size=config.eval_batch_size, image_size=size, **_process(config)
    )


def _process(config: DataConfig) -> dict[str, Any]:
    count, index = jax.process_count(), jax.process_index()
    options = {"process_count": count, "process_index": index, "as_bytes": True}
    return options | {"workers": config.workers}


def place(mesh: meshes.Mesh, batch: dict[str, Any]) -> Batch:
    """Put this process's part of a batch on the devices, where bytes become floats."""
    placed = meshes.shard_batch(mesh, batch)
    return placed | {"image": _in_unit_range(placed["image"])}


@jax.jit
def _in_unit_range(images: jax.Array) -> jax.Array:
    # If XLA knows that the divisor is a constant, it multiplies by the inverse, which rounds
    # differently from the division.
    white = jax.lax.optimization_barrier(jnp.full(images.shape, 255, jnp.float32))
    return images.astype(jnp.float32) / white


def check_teacher(experiment: Experiment, class_names: Sequence[str], teacher: Any) -> None:
    """Raise a ``ValueError`` unless the teacher of the distillation fits the network and the data.

    ``teacher`` is a network as ``vone_jax.open_network`` returns it.
    """
    model = experiment.model
    shape = (model.image_size, model.image_size, model.in_channels)
    if teacher.image_shape != shape:
        raise ValueError(
            f"distillation.teacher must take images of shape {shape}, {teacher.name} takes "
            f"{teacher.image_shape}"
        )
    ours, theirs = (list(map(class_identifier, x)) for x in (class_names, teacher.class_names))
    unnamed = are_numbers(ours) or are_numbers(theirs)
    different = ours != theirs and (not unnamed or sorted(ours) == sorted(theirs))
    if teacher.num_classes != len(class_names) or different:
        raise ValueError(
            f"distillation.teacher must have the classes of the data in their order; "
            f"{teacher.name} has {teacher.num_classes}, {', '.join(theirs[:3])}, ..., the images "
            f"{len(class_names)}, {', '.join(ours[:3])}, ..."
        )


def similarity_targets(
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
