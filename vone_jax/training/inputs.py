"""The data of an experiment: its splits, its batches, and their place on the devices."""

import contextlib
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from vone_jax import data
from vone_jax import mesh as meshes
from vone_jax.training.config import DataConfig, Experiment
from vone_jax.training.objective import Batch


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


def train_batches(experiment: Experiment, source: data.Source, skip: int) -> Any:
    """Return this process's part of the training batches after ``skip`` steps, without end."""
    config, replays = experiment.data, experiment.replays
    batches = data.train_batches(
        source,
        batch_size=config.batch_size,
        seed=experiment.seed,
        image_size=experiment.model.image_size,
        augment=config.augment,
        preprocessing=data.Preprocessing(config.center_crop),
        skip=skip // replays,
        **_process(config),
    )
    return batches if replays == 1 else _replayed(batches, replays, skip % replays)


def _replayed(batches: "data.Batches", replays: int, done: int) -> Iterator[dict[str, Any]]:
    """Yield each batch several times, the first one only as often as is left."""
    with contextlib.closing(batches):
        for batch in batches:
            yield from itertools.repeat(batch, replays - done)
            done = 0


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
