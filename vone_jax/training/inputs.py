"""What an experiment takes from its data and networks: the fields that follow from them, batches.

``resolve`` fills in the fields of an experiment that are None, in this one place.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vone_jax import data, models, names
from vone_jax import mesh as meshes
from vone_jax.data.sources import are_numbers, class_identifier
from vone_jax.training.experiment import DataConfig, Experiment, ModelConfig
from vone_jax.training.step import Batch


def resolve(experiment: Experiment, source: data.Source, initial: Any = None) -> Experiment:
    """Return the experiment with every field filled in that is None and follows from others.

    An explicit value always stays. The number of classes and of channels are those of the images.
    The front end (V1 and the stage before it; mean and standard deviation of a base network) is
    that of the initial weights, if these are of a network of the same kind, at the same pixels per
    degree; else the default of ``models.create``.

    Args:
      experiment: as it is written in a config.
      source: the training images.
      initial: a network with weights, such as ``vone_jax.open_network`` returns; or None.

    Raises:
      ValueError: if the experiment does not fit its data; the message names the field.
    """
    config, model = experiment.data, experiment.model
    if config.eval_split is None:
        config = dataclasses.replace(config, eval_split=_evaluation_split(config))
    if source.num_classes == 1:
        raise ValueError(
            f"data.source {source.name!r} has one class, so there is nothing to learn; each class "
            "needs a folder of its own"
        )
    given = {name: value for name, value in vars(model).items() if value is not None}
    channels = given.setdefault("in_channels", source.image_shape[-1])
    classes = given.setdefault("num_classes", source.num_classes)
    where = f"the images of {source.name!r} {source.split!r}"
    for name, ours, theirs in (
        ("in_channels", channels, source.image_shape[-1]),
        ("num_classes", classes, source.num_classes),
    ):
        if ours != theirs:
            raise ValueError(
                f"model.{name} is {ours}, but {where} have {theirs}; leave it out to take it from "
                "the data"
            )
    given = _front_end(given, initial) | given
    try:
        made: Any = models.create(**given)
        defaults: dict[str, Any] = {"width": made.back_end.width} | models.trunk_options(made)
        if isinstance(made, models.VOneNet):
            defaults |= {"v1": made.v1, "subcortical": made.subcortical}
        else:
            defaults |= {"mean": made.mean, "std": made.std}
            if model.front_end is None:
                defaults["stem_size"] = model.image_size
        given = defaults | given
        resolved = ModelConfig(**given)
    except ValueError as error:
        raise ValueError(f"model.{error}") from error
    return dataclasses.replace(experiment, data=config, model=resolved)


def _evaluation_split(config: DataConfig) -> str:
    split = data.evaluation_split(config.source, data_dir=config.data_dir)
    # "." is all of a folder without splits, of which training keeps a part for validation.
    return "validation" if split == "." else split


def _stem_size(given: dict[str, Any], stem: Any) -> int:
    """Return the image size whose form a stem has: ours, if the stem is of another network."""

    def form(stem: Any) -> tuple[Any, ...]:
        return getattr(stem, "stride", None), getattr(stem, "pool", None)

    size = given["image_size"]
    for other in (size, 224, 32):
        made: Any = models.create(given["name"], 1, stem_size=other, width=given.get("width"))
        if form(made.stem) == form(stem):
            return other
    return size


def _front_end(given: dict[str, Any], initial: Any) -> dict[str, Any]:
    """Return the front end of initial weights as fields of the model, if it fits the model."""
    if given.get("front_end") is not None:
        return {}
    source = None if initial is None else initial.model
    kind = names.prefix(given["name"])
    channels, size = given["in_channels"], given["image_size"]
    if not kind and isinstance(source, models.BaseNetwork) and len(source.mean) == channels:
        return {"mean": source.mean, "std": source.std, "stem_size": _stem_size(given, source.stem)}
    if not isinstance(source, models.VOneNet) or source.in_channels != channels:
        return {}
    if kind != ("ev_" if source.subcortical is not None else "vone_"):
        return {}

    def at_size(stage: Any) -> Any:
        if stage is None or stage.image_size == size:
            return stage
        degrees = size / source.v1.pixels_per_degree
        return dataclasses.replace(stage, image_size=size, visual_degrees=degrees)

    return {"v1": at_size(source.v1), "subcortical": at_size(source.subcortical)}


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
